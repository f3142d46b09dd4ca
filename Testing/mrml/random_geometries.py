"""Image grids and parent transforms of every kind that files bring along."""

import numpy as np
from hypothesis import strategies as st

from FoundationSegLib.imaging.geometry import Geometry

_angles = st.tuples(*[st.floats(-np.pi, np.pi)] * 3)


def _rotation(angles):
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        a, b = [n for n in range(3) if n != axis]
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def _affine(linear, origin):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, origin
    return matrix


@st.composite
def geometries(draw, largest=6):
    """Permuted, flipped, oblique, sheared (as by a gantry tilt) and anisotropic grids, down to one voxel thick."""
    permutation = np.eye(3)[list(draw(st.permutations(range(3))))]
    signs = draw(st.tuples(*[st.sampled_from([1.0, -1.0])] * 3))
    rotation = _rotation(draw(st.just((0, 0, 0)) | _angles))
    shear = np.eye(3)
    shear[np.triu_indices(3, 1)] = draw(st.just((0, 0, 0)) | st.tuples(*[st.floats(-0.6, 0.6)] * 3))
    spacing = [10**exponent for exponent in draw(st.tuples(*[st.floats(-1.3, 1)] * 3))]
    origin = draw(st.tuples(*[st.floats(-1000, 1000)] * 3))
    shape = draw(st.tuples(*[st.integers(1, largest)] * 3))
    return Geometry(_affine(rotation @ shear @ permutation @ np.diag(signs) @ np.diag(spacing), origin), shape)


@st.composite
def parent_matrices(draw):
    """Linear parent transforms: none, or turned, scaled, mirrored and moved."""
    if draw(st.booleans()):
        return None
    scale = draw(st.tuples(*[st.sampled_from([0.5, 1.0, 1.7, -1.0])] * 3))
    return _affine(_rotation(draw(_angles)) @ np.diag(scale), draw(st.tuples(*[st.floats(-200, 200)] * 3)))


def masks(geometry, seed, density=0.4):
    """A (K, J, I) boolean array that the seed determines."""
    return np.random.default_rng(seed).random(geometry.shape_kji) < density


def add_parent(scene, matrix, *nodes):
    """Put nodes under a new linear transform; None puts them under none."""
    import slicer.util

    if matrix is None:
        return None
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    parent.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    for node in nodes:
        node.SetAndObserveTransformNodeID(parent.GetID())
    return parent


def solid(writer, box):
    mask = np.zeros(writer.geometry.shape_kji, bool)
    mask[box.slices] = True
    return mask
