"""One segment as a mask, from a Slicer segmentation (.seg.nrrd) or from a label map."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InputError
from ..core.geometry import Geometry
from ..core.name_words import listed
from .label_maps import is_segmentation, labels_of, looks_like_label_map, refuse_dicom_segmentation, single_layer
from .raw import RawImage, read_raw

_FEW_LABELS = 32
_SEGMENT_FIELD = re.compile(r"Segment(\d+)_ID")


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """Where a .seg.nrrd keeps a segment: in which layer, under which label value."""

    name: str
    layer: int
    label: int


def read_mask_prompt(path: Path, segment_name: str) -> tuple[NDArray[np.bool_], Geometry]:
    """The voxels of one segment of a file, and the file's grid.

    Args:
        path: a segmentation that Slicer wrote, with shared labels or in overlapping layers; or a label map.
        segment_name: the segment's name or, in a label map, the label's number. A label map with a single label
            gives that one under any name that is no number.

    Returns:
        The mask (K, J, I), bool, and the geometry of the file, which need not be that of the image.

    Raises:
        InputError: unreadable, or no such segment; the message names those that there are.
        GeometryError: no regular grid.
    """
    raw = read_raw(path)
    if is_segmentation(raw.tags):
        return _segment(raw, path, segment_name), raw.geometry
    return _label(labels_of(single_layer(raw, path), path), path, segment_name), raw.geometry


def segment_names(path: Path) -> tuple[str, ...]:
    """The names by which :func:`read_mask_prompt` finds the segments of a file; of a label map, its numbers.

    Raises:
        InputError: unreadable, there is no segment in it, or it is an image.
        GeometryError: no regular grid.
    """
    raw = read_raw(path)
    if is_segmentation(raw.tags):
        refuse_dicom_segmentation(raw, path)
        names = tuple(segment.name for segment in stored_segments(raw.tags))
    else:
        names = tuple(map(str, _label_numbers(labels_of(single_layer(raw, path), path), path)))
    if not names:
        raise InputError(f"{path.name} has no segment")
    return names


def _label_numbers(labels_kji: NDArray[np.generic], path: Path) -> list[int]:
    """The labels of a label map; what has no label below 0 and only a few of them is taken for one."""
    found: list[int] = np.unique(labels_kji).tolist()
    if found[0] < 0 or (len(found) > _FEW_LABELS and not looks_like_label_map(labels_kji)):
        raise InputError(f"{path.name} is an image, not a label map; its values are no segments")
    return [label for label in found if label]


def _segment(raw: RawImage, path: Path, name: str) -> NDArray[np.bool_]:
    refuse_dicom_segmentation(raw, path)
    if "ractional" in raw.tags.get("Segmentation_MasterRepresentation", ""):
        raise InputError(f"{path.name} holds fractional segments; save it with binary label maps")
    stored = stored_segments(raw.tags)
    fitting = [segment for segment in stored if segment.name == name]
    if not fitting:
        known = listed([segment.name for segment in stored])
        raise InputError(f"{path.name} has no segment {name!r}; it has: {known}")
    if len(fitting) > 1:
        raise InputError(f"{path.name} has {len(fitting)} segments called {name!r}; rename them")
    layers = np.moveaxis(raw.voxels, -1, 1).reshape(-1, *raw.voxels.shape[1:4])
    if fitting[0].layer >= len(layers):
        raise InputError(f"{path.name} is damaged: the segment {name!r} lies in a layer that is missing")
    return layers[fitting[0].layer] == fitting[0].label


def stored_segments(tags: Mapping[str, str]) -> tuple[StoredSegment, ...]:
    """The segments that the header of a .seg.nrrd lists, in its order.

    Files from before Slicer 4.11 name neither layer nor label: each segment has a layer of its own, with label 1.
    """
    numbers = sorted(int(match[1]) for match in map(_SEGMENT_FIELD.fullmatch, tags) if match)
    return tuple(
        StoredSegment(
            name=tags.get(f"Segment{n}_Name", tags[f"Segment{n}_ID"]),
            layer=_number(tags.get(f"Segment{n}_Layer", ""), n),
            label=_number(tags.get(f"Segment{n}_LabelValue", ""), 1),
        )
        for n in numbers
    )


def _number(text: str, otherwise: int) -> int:
    return int(text) if text.isdecimal() else otherwise


def _label(labels_kji: NDArray[np.generic], path: Path, name: str) -> NDArray[np.bool_]:
    present = [int(label) for label in np.unique(labels_kji) if label != 0]
    if name.isdecimal() and int(name) in present:
        return labels_kji == int(name)
    if len(present) == 1 and not name.isdecimal():
        return labels_kji == present[0]
    known = listed(present) or "none"
    raise InputError(f"{path.name} has no label {name!r}; it has: {known}")
