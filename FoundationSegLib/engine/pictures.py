"""What of a volume is shown to a classifier: which slices, which part of each, and how each becomes a picture."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..imaging.geometry import Axis, Geometry, array_axis
from ..imaging.intensity import Look
from ..imaging.masks import PackedMask
from ..imaging.volume import Volume
from ..requests.classification import Frame, Subject, frame_of, slice_frame, slices_of, square, widened
from .orientation import Orientation, radiological
from .slice_inference import slice_of


@dataclass(frozen=True, slots=True)
class View:
    """Everything but its number, its look and the model that makes the picture of a slice what it is.

    Attributes:
        volume_key, axis, orientation: the slices, and how they are turned.
        frame: what is seen of a stored slice: a square in mm.
        inside: outside of this part of the slice it is black.
        silhouette: names the segment outside of which it is black; empty where there is none.
    """

    volume_key: str
    axis: Axis
    orientation: Orientation
    frame: Frame
    inside: Frame
    silhouette: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """The slices of a volume as pictures.

    Attributes:
        volume: the image.
        view: what is seen of its slices.
        slices: their numbers, rising.
        segment: the voxels outside of which pictures are black; None where there is no such segment.
    """

    volume: Volume
    view: View
    slices: tuple[int, ...]
    segment: PackedMask | None = None

    def picture(self, index: int, look: Look) -> NDArray[np.uint8]:
        """A slice through a look, as it is seen: (rows, columns) or (rows, columns, 3), square in mm."""
        plane = look.see(slice_of(self.volume, self.view.axis, index))
        if self.segment is not None:
            plane = np.where(self._silhouette(plane, index), plane, 0).astype(np.uint8)
        return self.view.orientation.turn(self.view.frame.cut(plane, self.view.inside))

    def is_blank(self, picture: NDArray[np.uint8]) -> bool:
        """Whether there is nothing to see: every pixel of what is not padding is the same."""
        shown = picture[self.shown()]
        return bool(shown.size == 0 or (shown == shown[:1]).all())

    def shown(self) -> NDArray[np.bool_]:
        """Of a picture (rows, columns): True where it shows the image, False where it is filled up."""
        slice_shape = slice_frame(self.volume.geometry, self.view.axis).shape
        ones = self.view.frame.cut(np.ones(slice_shape, np.uint8), self.view.inside)
        return self.view.orientation.turn(ones) > 0

    def _silhouette(self, plane: NDArray[np.uint8], index: int) -> NDArray[np.bool_]:
        segment, place = self.segment, array_axis(self.view.axis)
        silhouette = np.zeros(plane.shape[:2], np.bool_)
        if segment is not None:
            cut = segment.unpack().take(index - segment.box.start_kji[place], axis=place)
            silhouette[frame_of(segment.box, self.view.axis).slices] = cut
        return silhouette if plane.ndim == 2 else silhouette[..., None]


def take_pictures(volume: Volume, subject: Subject) -> Pictures:
    """The pictures of a subject; none is made yet.

    Raises:
        InputError: no slice of the image is in the range, or the region or the segment lies outside of the image.
    """
    geometry, axis = volume.geometry, subject.axis
    slices = slices_of(subject, geometry)
    inside, frame = _frames(geometry, subject)
    orientation = radiological(geometry, axis)
    segment = subject.segment if subject.view == "mask" else None
    silhouette = "" if segment is None else _fingerprint(segment)
    return Pictures(volume, View(volume.key, axis, orientation, frame, inside, silhouette), slices, segment)


def _frames(geometry: Geometry, subject: Subject) -> tuple[Frame, Frame]:
    """What is shown of a slice, and the square around it.

    Around a segment the square is filled with what is there; around a region of the user's it is black, since what is
    outside was not meant.
    """
    whole = slice_frame(geometry, subject.axis)
    if subject.box is not None:
        inside = frame_of(subject.box, subject.axis)
        return inside, square(inside, geometry, subject.axis)
    if subject.segment is not None:
        around = widened(frame_of(subject.segment.box, subject.axis), subject.margin)
        return whole, square(around, geometry, subject.axis)
    return whole, square(whole, geometry, subject.axis)


def _fingerprint(segment: PackedMask) -> str:
    digest = hashlib.blake2b(segment.bits, digest_size=16)
    digest.update(repr(segment.box).encode())
    return digest.hexdigest()
