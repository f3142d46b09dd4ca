"""A checksum of a mask that follows its changes: what it costs goes with the change, and not with the mask.

It is a sum over the voxels, of a number for each place: gained voxels add theirs, lost ones take it away. Sixteen
voxels of a row are one word, which counts times a number of its own; the sums of rows times others make the sum of a
slice, and so on, modulo 2^64. Two masks that differ have the same checksum once in about 2^48 times.
"""

import numpy as np
from numpy.typing import NDArray

from .mask import PackedMask, SegmentChange

_WORD = 16
_SLICES = 16  # at once: what is unpacked then stays near the processor
_MODULUS = 2**64
# So that no place counts like another one on another axis.
_FIRST_I, _FIRST_J, _FIRST_K = 1 << 60, 1 << 61, 1 << 62


def checksum(mask: PackedMask) -> int:
    """The checksum of a mask: 0 where it is empty, below 2^64. About 0.3 ms for a million voxels of its box."""
    (k, j, i), (depth, rows, columns) = mask.box.start_kji, mask.box.shape_kji
    first_word, before = divmod(i, _WORD)
    words = -(-(before + columns) // _WORD)
    of_words, of_rows = _numbers(_FIRST_I + first_word, words), _numbers(_FIRST_J + j, rows)
    by_slice = np.zeros(depth, np.uint64)
    padded = np.zeros((min(depth, _SLICES), rows, words * _WORD), np.bool_)
    for start in range(0, depth, _SLICES):
        stop = min(start + _SLICES, depth)
        padded[: stop - start, :, before : before + columns] = mask.unpack_slices(start, stop)
        packed = np.packbits(padded[: stop - start].reshape(-1)).view(">u2").reshape(-1, rows, words)
        by_slice[start:stop] = packed.astype(np.uint64) @ of_words @ of_rows
    return int(by_slice @ _numbers(_FIRST_K + k, depth))


def changed_checksum(before: int, change: SegmentChange) -> int:
    """The checksum of a mask after a change whose gained voxels it had not, and whose lost voxels it had."""
    return (before + checksum(change.gained) - checksum(change.lost)) % _MODULUS


def _numbers(first: int, count: int) -> NDArray[np.uint64]:
    """A number of 64 bits for each place, the same everywhere and always (the finaliser of SplitMix64)."""
    numbers = (np.arange(count, dtype=np.uint64) + np.uint64(first)) * np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
