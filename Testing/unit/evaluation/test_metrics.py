"""Dice and NSD against cases done by hand and against plain surfaces of blocks; the peak of memory."""

import itertools
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.evaluation.simulated_prompts import dice, surface_dice
from FoundationSegLib.installation.inspection import peak_memory_mb
from Testing.unit.evaluation.masks import block, pairs, spacings

SHAPE = (12, 12, 12)
ranges = st.tuples(st.integers(0, 11), st.integers(1, 12)).filter(lambda ends: ends[0] < ends[1])
blocks = st.tuples(ranges, ranges, ranges)
tolerances = st.floats(0, 8)


def patches(ends, spacing_ijk):
    """The surface of a block, cut where eight voxels meet: by place in mm (k, j, i) its area in mm^2.

    Within a face a patch is a rectangle, along an edge a plane at a slant, at a corner a triangle.
    """
    steps = spacing_ijk[::-1]
    found = {}
    for place in itertools.product(*(range(start - 1, stop) for start, stop in ends)):
        at_end = [p in (start - 1, stop - 1) for p, (start, stop) in zip(place, ends, strict=True)]
        across = [step for step, is_end in zip(steps, at_end, strict=True) if is_end]
        along = [step for step, is_end in zip(steps, at_end, strict=True) if not is_end]
        if len(across) == 1:
            area = along[0] * along[1]
        elif len(across) == 2:
            area = math.hypot(across[0] / 2, across[1] / 2) * along[0]
        elif len(across) == 3:
            a, b, c = (step / 2 for step in across)
            area = np.linalg.norm(np.cross((-a, b, 0), (-a, 0, c))) / 2
        else:
            continue
        found[tuple(p * step for p, step in zip(place, steps, strict=True))] = area
    return np.array(list(found)), np.array(list(found.values()))


def surface_dice_of_blocks(first, second, spacing, tolerance):
    (places, areas), (others, other_areas) = patches(first, spacing), patches(second, spacing)
    distances = np.linalg.norm(places[:, None] - others[None], axis=2)
    near = areas[distances.min(axis=1) <= tolerance].sum() + other_areas[distances.min(axis=0) <= tolerance].sum()
    return near / (areas.sum() + other_areas.sum())


@given(blocks, blocks, spacings, tolerances)
def test_nsd_of_blocks_is_that_of_their_plain_surfaces(first, second, spacing, tolerance):
    if any(b - a == 1 for ends in (first, second) for a, b in ends):
        return  # in a sheet, eight voxels meet at two surfaces at once
    plain = surface_dice_of_blocks(first, second, spacing, tolerance)
    # A distance of exactly the tolerance may fall on either side.
    low, high = (surface_dice_of_blocks(first, second, spacing, tolerance + n) for n in (-1e-4, 1e-4))
    ours = surface_dice(block(SHAPE, *first), block(SHAPE, *second), spacing, tolerance)
    assert low - 1e-5 <= ours <= high + 1e-5
    assert low != high or ours == pytest.approx(plain, abs=1e-5)


def test_empty_masks():
    empty, full = np.zeros((3, 4, 5), np.bool_), np.ones((3, 4, 5), np.bool_)
    assert (dice(empty, empty), surface_dice(empty, empty, (1, 1, 1), 2)) == (1, 1)
    for truth, mask in ((empty, full), (full, empty)):
        assert (dice(truth, mask), surface_dice(truth, mask, (1, 1, 1), 2)) == (0, 0)


@given(pairs, spacings, tolerances)
def test_both_are_symmetric_and_within_0_and_1(pair, spacing, tolerance):
    first, second = pair
    for score in (dice, lambda a, b: surface_dice(a, b, spacing, tolerance)):
        there, back = score(first, second), score(second, first)
        assert 0 <= there <= 1
        assert there == pytest.approx(back, abs=1e-6)
        assert score(first, first) == 1
    if first.any() and second.any():
        overlap = np.count_nonzero(first & second)
        assert dice(first, second) == pytest.approx(2 * overlap / (first.sum() + second.sum()), abs=1e-6)


@given(pairs, spacings, tolerances, st.tuples(*[st.integers(0, 9)] * 6))
def test_what_lies_around_changes_nothing(pair, spacing, tolerance, margins):
    around = list(zip(margins[::2], margins[1::2], strict=True))
    first, second = (np.pad(mask, around) for mask in pair)
    assert dice(first, second) == dice(*pair)
    assert surface_dice(first, second, spacing, tolerance) == surface_dice(*pair, spacing, tolerance)


TAKE_100_MB = "import sys; taken = b'x' * 100_000_000; del taken; print(flush=True); sys.stdin.read()"
LAUNCH = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {TAKE_100_MB!r}]))"
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the peak of another process is known on Linux alone")


@pytest.mark.skipif(sys.platform == "win32", reason="not known on Windows")
def test_the_peak_of_this_process():
    taken = b"x" * 50_000_000
    assert peak_memory_mb() >= len(taken) / 1e6
    assert peak_memory_mb() == peak_memory_mb(os.getpid())


@linux_only
@pytest.mark.parametrize("code", [TAKE_100_MB, LAUNCH], ids=["direct", "through a launcher"])
def test_the_peak_of_another_process_stays_after_it_was_freed(code):
    command = (sys.executable, "-c", code)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert 100 < peak_memory_mb(process.pid) < 200
        process.stdin.close()
    assert peak_memory_mb(process.pid) is None, "it has ended"
