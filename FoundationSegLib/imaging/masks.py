"""Masks and edits: bit-packed, boxed, exact in both directions, with checksums that follow changes."""

import base64
import hashlib
import math
import zlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codec import frozen, mutable
from ..errors import GeometryError, InputError
from .geometry import EMPTY_BOX, Axis, Box, Shape, array_axis, as_shape, bounding_box


@frozen
class PackedMask:
    """The voxels of one segment: a box and one bit per voxel in it, in KJI order.

    Attributes:
        box: where the bits lie; the tight bounding box if made by :func:`pack_mask`.
        bits: ``ceil(voxels of the box / 8)`` bytes; the first voxel is the highest bit of the first byte.

    Raises:
        GeometryError: the number of bytes does not fit the box.
    """

    box: Box
    bits: bytes

    def __post_init__(self) -> None:
        if len(self.bits) != (math.prod(self.box.shape_kji) + 7) // 8:
            raise GeometryError(f"a mask of {len(self.bits)} bytes does not fit its box {self.box}")
        if not self.bits:
            object.__setattr__(self, "box", EMPTY_BOX)  # empty masks are equal, and fit every image

    @property
    def nbytes(self) -> int:
        """Memory taken by the bits, in bytes."""
        return len(self.bits)

    @property
    def voxels(self) -> int:
        """The number of voxels that are set."""
        whole = len(self.bits) // 8 * 8  # eight bytes at once are four times faster
        words, rest = np.frombuffer(self.bits[:whole], np.uint64), np.frombuffer(self.bits[whole:], np.uint8)
        return int(np.bitwise_count(words).sum(dtype=np.int64) + np.bitwise_count(rest).sum(dtype=np.int64))

    def unpack(self) -> NDArray[np.bool_]:
        """A new boolean array of the shape of the box, (K, J, I)."""
        shape = self.box.shape_kji
        flat = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=math.prod(shape))
        return flat.view(np.bool_).reshape(shape)

    def unpack_slices(self, start: int, stop: int) -> NDArray[np.bool_]:
        """A new boolean array of some slices of the box across k, (stop - start, J, I), counted from its first one."""
        _, rows, columns = self.box.shape_kji
        first, end = start * rows * columns, stop * rows * columns
        whole = np.frombuffer(self.bits, np.uint8)[first // 8 : (end + 7) // 8]
        flat = np.unpackbits(whole)[first % 8 : first % 8 + end - first]
        return flat.view(np.bool_).reshape(stop - start, rows, columns)

    def expand(self, shape_kji: Shape) -> NDArray[np.bool_]:
        """A new boolean array of a whole image, (K, J, I), with the voxels in place.

        Raises:
            GeometryError: the box does not lie inside an image of that shape.
        """
        mask = np.zeros(shape_kji, np.bool_)
        _cut(mask, self.box)[...] = self.unpack()
        return mask


EMPTY_MASK = PackedMask(EMPTY_BOX, b"")


def pack_mask(mask_kji: NDArray[np.generic], start_kji: Shape = (0, 0, 0)) -> PackedMask:
    """Pack the non-zero voxels of a (K, J, I) array into their tight bounding box.

    ``start_kji`` is the place of the array's first voxel in the image.
    """
    mask = mask_kji if mask_kji.dtype == np.bool_ else mask_kji != 0
    tight = bounding_box(mask)
    if tight is EMPTY_BOX:
        return EMPTY_MASK
    return PackedMask(tight.shifted(start_kji), np.packbits(mask[tight.slices]).tobytes())


def _cut(array_kji: NDArray[np.bool_], box: Box) -> NDArray[np.bool_]:
    if min(box.start_kji) < 0 or any(np.greater(box.stop_kji, array_kji.shape)):
        raise GeometryError(f"the mask's box {box} does not fit an image of shape {array_kji.shape}")
    return array_kji[box.slices]


def merge_masks(masks: Sequence[PackedMask]) -> PackedMask:
    """The voxels that are set in any of the masks."""
    masks = [mask for mask in masks if not mask.box.is_empty]
    if len(masks) == 1:
        return masks[0]
    box = EMPTY_BOX
    for mask in masks:
        box = box.union(mask.box)
    merged = np.zeros(box.shape_kji, np.bool_)
    for mask in masks:
        merged[mask.box.relative_to(box).slices] |= mask.unpack()
    return pack_mask(merged, box.start_kji)


@frozen
class SegmentChange:
    """Change of one segment by an edit: voxels gained and voxels lost, each in its own tight box."""

    gained: PackedMask = EMPTY_MASK
    lost: PackedMask = EMPTY_MASK

    @property
    def nbytes(self) -> int:
        """Memory taken by the bits, in bytes."""
        return self.gained.nbytes + self.lost.nbytes

    @property
    def is_empty(self) -> bool:
        """True where nothing changed."""
        return self.gained.box.is_empty and self.lost.box.is_empty

    def inverse(self) -> "SegmentChange":
        """The change that takes this one back."""
        return SegmentChange(self.lost, self.gained)

    def apply(self, mask_kji: NDArray[np.bool_]) -> None:
        """Make the change in a (K, J, I) boolean array of the whole image, in place.

        Raises:
            GeometryError: a box does not lie inside the array; nothing is changed then.
        """
        lost, gained = _cut(mask_kji, self.lost.box), _cut(mask_kji, self.gained.box)
        np.copyto(lost, False, where=self.lost.unpack())
        np.copyto(gained, True, where=self.gained.unpack())


def change_between(
    before_kji: NDArray[np.generic], after_kji: NDArray[np.generic], start_kji: Shape = (0, 0, 0)
) -> SegmentChange:
    """The change that turns one (K, J, I) array into another of the same shape; what is not zero is in the segment.

    ``start_kji`` is the place of the arrays' first voxel in the image.

    Raises:
        GeometryError: the shapes differ.
    """
    if before_kji.shape != after_kji.shape:
        raise GeometryError(f"masks of shapes {before_kji.shape} and {after_kji.shape} cannot be compared")
    # One bit a voxel first: what follows then goes through an eighth of the memory.
    was, now = np.packbits(before_kji.astype(np.bool_, copy=False)), np.packbits(after_kji.astype(np.bool_, copy=False))
    differing = was ^ now
    box = Box((0, 0, 0), before_kji.shape).shifted(start_kji)
    return SegmentChange(gained=_tight(differing & now, box), lost=_tight(differing & was, box))


def _tight(bits: NDArray[np.uint8], box: Box) -> PackedMask:
    """The mask of some bits, one for each voxel of a box."""
    voxels = np.unpackbits(bits, count=math.prod(box.shape_kji)).view(np.bool_).reshape(box.shape_kji)
    if not voxels.any():
        return EMPTY_MASK
    for axis in range(3):
        if not (voxels.take(0, axis).any() and voxels.take(-1, axis).any()):
            return pack_mask(voxels, box.start_kji)
    return PackedMask(box, bits.tobytes())


@frozen
class Edit:
    """One step of the history: the change of every segment it touched, by segment id."""

    changes: Mapping[str, SegmentChange]

    @property
    def nbytes(self) -> int:
        """Memory taken by the bits, in bytes; what the history's budget counts."""
        return sum(change.nbytes for change in self.changes.values())

    def inverse(self) -> "Edit":
        """The edit that takes this one back."""
        return Edit({segment_id: change.inverse() for segment_id, change in self.changes.items()})

    def apply(self, masks_kji: Mapping[str, NDArray[np.bool_]]) -> None:
        """Make every change in place; ``masks_kji`` holds a boolean array of the whole image for each segment id."""
        for segment_id, change in self.changes.items():
            change.apply(masks_kji[segment_id])


def cut_out(mask: PackedMask, box: Box) -> NDArray[np.bool_]:
    """A mask in a box of the volume: a new (K, J, I) boolean array of the shape of the box."""
    if box == mask.box:
        return mask.unpack()
    array = np.zeros(box.shape_kji, np.bool_)
    lay_in(mask, array, box)
    return array


def without_mask(whole: PackedMask, part: PackedMask) -> PackedMask:
    """The voxels of a mask that are not in another one."""
    if whole is part or whole == part:
        return EMPTY_MASK
    return pack_mask(whole.unpack() & ~cut_out(part, whole.box), whole.box.start_kji)


def lay_in(mask: PackedMask, array: NDArray[np.bool_], box: Box) -> None:
    """Set the voxels of a mask in an array that is a box of the volume."""
    common = mask.box.intersection(box)
    if not common.is_empty:
        inner = common.relative_to(mask.box)
        voxels = mask.unpack_slices(inner.start_kji[0], inner.stop_kji[0])
        array[common.relative_to(box).slices] |= voxels[:, inner.slices[1], inner.slices[2]]


def boxes_by_slice(mask: PackedMask, axis: Axis) -> tuple[Box, ...]:
    """The tight box of a mask on each slice across an axis that it has voxels on."""
    n, voxels, boxes = array_axis(axis), mask.unpack(), []
    for index in range(voxels.shape[n]):
        start = list(mask.box.start_kji)
        start[n] += index
        boxes.append(bounding_box(voxels.take([index], axis=n)).shifted(as_shape(start)))
    return tuple(box for box in boxes if not box.is_empty)


def connected_part(mask: PackedMask, slab: Box, positions_kji: Sequence[tuple[int, int, int]]) -> PackedMask:
    """The part of a mask in a slab that is face-connected to voxels at some positions; empty if none is set."""
    box = mask.box.intersection(slab)
    if box.is_empty:
        return EMPTY_MASK
    voxels = cut_out(mask, box)
    part = np.zeros_like(voxels)
    for position in positions_kji:
        at = tuple(np.subtract(position, box.start_kji))
        if all(0 <= n < size for n, size in zip(at, box.shape_kji, strict=True)):
            part[at] = voxels[at]
    count = int(part.sum())
    while count:
        for axis in range(3):
            part = _along_runs(voxels, part, axis)
        before, count = count, int(part.sum())
        if count == before:
            return pack_mask(part, box.start_kji)
    return EMPTY_MASK


def _along_runs(voxels: NDArray[np.bool_], part: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """The runs of voxels along an axis that have a voxel of the part in them."""
    if voxels.shape[axis] == 1:
        return part
    lines, marked = (np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis]) for array in (voxels, part))
    starts = lines.copy()
    starts[:, 1:] &= ~lines[:, :-1]
    runs = np.cumsum(starts.reshape(-1)).reshape(lines.shape)
    hit = np.zeros(int(runs[-1, -1]) + 1, np.bool_)
    hit[runs[marked]] = True
    whole = hit[runs] & lines
    shape = np.moveaxis(voxels, axis, -1).shape
    return np.moveaxis(whole.reshape(shape), -1, axis)


def touched_slices(mask: PackedMask, axis: Axis) -> tuple[int, ...]:
    """The numbers of the slices across an axis on which a mask has voxels."""
    n = array_axis(axis)
    others = tuple(other for other in range(3) if other != n)
    return tuple(int(index) + mask.box.start_kji[n] for index in np.flatnonzero(mask.unpack().any(axis=others)))


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


_LEVEL = 1  # a segment becomes 20 to 100 times smaller at any level


def mask_key(mask: PackedMask) -> str:
    """The hash of a mask, 32 hexadecimal digits; an empty text for an empty one. Equal tight masks have equal keys."""
    if mask.box.is_empty:
        return ""
    digest = hashlib.blake2b(repr((mask.box.start_kji, mask.box.stop_kji)).encode(), digest_size=16)
    digest.update(mask.bits)
    return digest.hexdigest()


class _Compressed(dict[str, tuple[Box, bytes]]):
    """The boxes and the compressed bits of masks by their keys."""

    def __missing__(self, key: str) -> tuple[Box, bytes]:
        raise InputError(f"the mask {key} is missing: the steps came without their masks")


@mutable
class MaskTable:
    """Masks that steps name by their keys, compressed.

    Attributes:
        within: the box of the image. Documents with masks that reach out of it are refused, before memory is taken for
            them; None for no such limit.
        nbytes: memory taken by the compressed masks, in bytes.
    """

    within: Box | None = None
    nbytes: int = 0
    _masks: _Compressed = field(default_factory=_Compressed)
    _last: tuple[str, PackedMask] = ("", EMPTY_MASK)  # the seed of a segment is asked for several times in a row

    def __contains__(self, key: str) -> bool:
        return key in self._masks

    def retain(self, keys: Container[str]) -> None:
        """Drop the masks of all other keys."""
        self._masks = _Compressed({key: entry for key, entry in self._masks.items() if key in keys})
        self.nbytes = sum(len(bits) for _, bits in self._masks.values())

    def put(self, mask: PackedMask) -> str:
        """Keep a mask and return its key."""
        key = mask_key(mask) if mask.bits else ""
        if key and key not in self._masks:
            self._masks[key] = (mask.box, zlib.compress(mask.bits, _LEVEL))
            self.nbytes += len(self._masks[key][1])
        return key

    def get(self, key: str) -> PackedMask:
        """The mask of a key; the empty one for an empty key.

        Raises:
            InputError: no mask with that key was put here.
        """
        if not key:
            return EMPTY_MASK
        if key != self._last[0]:
            box, bits = self._masks[key]
            self._last = key, PackedMask(box, zlib.decompress(bits))
        return self._last[1]

    def to_document(self, keys: Iterable[str]) -> dict[str, Any]:
        """The masks of those keys as JSON values; without those that were dropped."""
        document = {}
        for key in sorted(set(keys) & self._masks.keys()):
            box, bits = self._masks[key]
            text = base64.b64encode(bits).decode("ascii")
            document[key] = {"start_kji": box.start_kji, "stop_kji": box.stop_kji, "bits": text}
        return document

    def take_document(self, document: Mapping[str, Any]) -> None:
        """Put in the masks of :meth:`to_document`.

        Raises:
            InputError: one is damaged, or reaches out of the image.
        """
        for key, entry in document.items():
            try:
                box = Box(as_shape(entry["start_kji"]), as_shape(entry["stop_kji"]))
                if self.within is not None and not self.within.contains(box):
                    raise ValueError("it reaches out of the image")
                # No more is unpacked than the box has bits for: a small text may unpack to any amount of memory.
                most = (math.prod(box.shape_kji) + 7) // 8 + 1
                bits = zlib.decompressobj().decompress(base64.b64decode(entry["bits"], validate=True), most)
                mask = PackedMask(box, bits)
            except (KeyError, TypeError, ValueError, OverflowError, zlib.error, GeometryError) as error:
                raise InputError(f"the mask {key} is damaged: {error}") from error
            if self.put(mask) != key:
                raise InputError(f"the mask {key} is damaged: its voxels are others")
