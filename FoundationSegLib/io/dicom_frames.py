"""Multi-frame DICOM files: where each frame lies. GDCM places them by the first two frames and checks nothing."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..core.errors import GeometryError, InputError
from .raw import RawImage, swap_lps_ras
from .stack import place_slices

_POSITION = (0x0020, 0x0032)
_ORIENTATION = (0x0020, 0x0037)
_PIXEL_SPACING = (0x0028, 0x0030)
_RESCALE_INTERCEPT = (0x0028, 0x1052)
_RESCALE_SLOPE = (0x0028, 0x1053)
_SAME_DIRECTION = 1e-3


def place_frames(path: Path, raw: RawImage) -> RawImage:
    """A multi-frame image with its frames in order along their normal and the matrix that their positions give.

    Files whose frames have no positions (ultrasound, secondary capture) or one for all come back as they are.

    Raises:
        GeometryError: positions are uneven or shared, orientations differ, or not every frame has one.
        InputError: the frames' stored values mean different things.
    """
    count = raw.voxels.shape[1]
    content = path.read_bytes()
    if any(len(set(_decimals(content, tag, 1))) > 1 for tag in (_RESCALE_SLOPE, _RESCALE_INTERCEPT)):
        raise InputError(f"{path.name}: its frames are scaled differently, which is not supported; export them singly")
    positions = _decimals(content, _POSITION, 3)
    if len(positions) < 2:
        return raw
    orientations = _decimals(content, _ORIENTATION, 6)
    if len(positions) != count or not orientations:
        raise GeometryError(f"{path.name} has {count} frames, but positions for {len(positions)}; export it again")
    if np.ptp(orientations, axis=0).max() > _SAME_DIRECTION:
        raise GeometryError(f"{path.name}: its frames lie in different directions; it is no volume")
    # DICOM gives the distance of rows, then that of columns: along j, then along i.
    along_j, along_i = (_decimals(content, _PIXEL_SPACING, 2) or [(1.0, 1.0)])[0]
    stack = place_slices(positions, orientations[0], (along_i, along_j))
    voxels = raw.voxels[:, list(stack.order)]
    return replace(raw, voxels=voxels, ijk_to_ras=swap_lps_ras(stack.matrix_lps), notes=(*raw.notes, *stack.notes))


def _decimals(content: bytes, tag: tuple[int, int], count: int) -> list[tuple[float, ...]]:
    """The values of every element with that tag and that many decimals, in the file's order.

    The elements lie in nested sequences that ITK does not hand out. They are found by their bytes: little endian
    (all that DICOM still allows), then either ``DS`` and two bytes of length, or four bytes of length.
    """
    name = re.escape(tag[0].to_bytes(2, "little") + tag[1].to_bytes(2, "little"))
    found = []
    for match in re.finditer(name + rb"(?:DS(.)\x00|(.)\x00\x00\x00)", content, re.DOTALL):
        length = (match[1] or match[2])[0]
        try:
            values = tuple(float(part) for part in content[match.end() : match.end() + length].split(b"\\"))
        except ValueError:  # these bytes were voxels
            continue
        if len(values) == count:
            found.append(values)
    return found
