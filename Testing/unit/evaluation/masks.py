"""Random masks and spacings, for hypothesis."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

shapes = st.tuples(*[st.integers(1, 6)] * 3)
pairs = shapes.flatmap(lambda shape: st.tuples(*[arrays(np.bool_, shape)] * 2))
spacings = st.tuples(*[st.floats(0.3, 5).map(lambda n: round(n, 2))] * 3)


def block(shape_kji, *ranges):
    """A mask with one block in it, (start, stop) along k, j and i."""
    mask = np.zeros(shape_kji, np.bool_)
    mask[tuple(slice(*one) for one in ranges)] = True
    return mask
