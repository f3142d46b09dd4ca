"""Run a model on whole volumes: place prompts in voxels, and keep the model's view of one image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import PromptError
from ..imaging.geometry import Geometry
from ..imaging.intensity import IntensityMapping
from ..imaging.masks import PackedMask
from ..imaging.volume import Volume
from ..models import protocols
from ..progress import Progress
from ..prompts import kinds
from ..prompts.drawing import lasso_voxels, scribble_voxels
from ..prompts.placement import place_box, require_inside, require_voxels
from .slice_inference import LoadedModel, Weights

_Unboxed = (
    kinds.PointPrompt
    | kinds.ScribblePrompt
    | kinds.LassoPrompt
    | kinds.MaskPrompt
    | kinds.ClassPrompt
    | kinds.TextPrompt
)
_DRAWN: dict[type[Any], tuple[Any, Callable[..., PackedMask]]] = {
    kinds.ScribblePrompt: ("scribble", scribble_voxels),
    kinds.LassoPrompt: ("lasso", lasso_voxels),
    kinds.MaskPrompt: ("mask", require_voxels),
}


def place_in_volume(
    prompts: Sequence[kinds.Prompt], locations: Sequence[str], geometry: Geometry
) -> tuple[protocols.VolumePrompt, list[int]]:
    """Place prompts, RAS in mm, in a volume; return them with the numbers of those that were clipped.

    Args:
        prompts: those of one segment, of kinds that the model understands.
        locations: where each stands in its document.
        geometry: the image.

    Raises:
        PromptError: a prompt lies outside the image, or nothing says where the segment is.
    """
    parts: list[protocols.VolumePart] = []
    clipped: list[int] = []
    for n, (prompt, location) in enumerate(zip(prompts, locations, strict=True)):
        if isinstance(prompt, kinds.BoxPrompt):
            placed = place_box(prompt, geometry, location)
            is_clipped = placed.clipped
            parts.append(protocols.VolumeBox(placed.box, prompt.polarity is kinds.Polarity.POSITIVE, location))
        else:
            is_clipped = require_inside(prompt, geometry, location)
            parts.append(_part(prompt, geometry, location))
        if is_clipped:
            clipped.append(n)
    if not any(part.positive for part in parts):
        kind = prompts[0].kind
        raise PromptError(f"a negative {kind} alone does not say where the segment is", f"{locations[0]}.polarity")
    return protocols.VolumePrompt(tuple(parts)), clipped


def _part(prompt: _Unboxed, geometry: Geometry, location: str) -> protocols.VolumePart:
    positive = prompt.polarity is kinds.Polarity.POSITIVE
    if isinstance(prompt, kinds.PointPrompt):
        i, j, k = geometry.nearest_voxel(prompt.position).tolist()
        return protocols.VolumePoint((k, j, i), positive, location)
    if isinstance(prompt, kinds.ClassPrompt):
        return protocols.VolumeWords("class", prompt.name, positive, location)
    if isinstance(prompt, kinds.TextPrompt):
        return protocols.VolumeWords("text", prompt.text, positive, location)
    kind, voxels_of = _DRAWN[type(prompt)]
    return protocols.VolumeVoxels(kind, voxels_of(prompt, geometry, location), positive, location)


# Weights, image, and the window that it was cut to: everything that changes a model's view.
ViewKey = tuple[Weights, str, tuple[float, float] | None]


@dataclass(slots=True)
class ViewCache:
    """Keeps the last view of a model of volumes: it may be as large as the image many times over."""

    _key: ViewKey | None = None
    _view: protocols.VolumeView | None = None

    @property
    def volume_key(self) -> str:
        """The image that is viewed; empty where there is none."""
        return "" if self._key is None else self._key[1]

    def holds(self, model_id: str, volume_key: str) -> bool:
        """Return True where the view is that model's of that image."""
        return self._key is not None and (self._key[0].checkpoint.model_id, self._key[1]) == (model_id, volume_key)

    @property
    def nbytes(self) -> int:
        """Memory taken by the view, in bytes."""
        return 0 if self._view is None else self._view.nbytes

    def clear(self) -> None:
        """Drop the view."""
        self._key = self._view = None

    def view(
        self, loaded: LoadedModel[protocols.VolumeModel], volume: Volume, mapping: IntensityMapping, progress: Progress
    ) -> tuple[protocols.VolumeView, bool]:
        """Return a model's view of an image, and True where it was made anew; errors are those of the model's ``view``.

        The old view is dropped before the next one is made: both at once may be more than there is memory for.
        """
        window = None if mapping.rule == "raw" else (mapping.low, mapping.high)
        key = (loaded.weights, volume.key, window)
        if self._view is not None and key == self._key:
            return self._view, False
        self.clear()
        progress.step("view", 0, 1)
        self._view = loaded.model.view(_cut_to_window(volume, window), progress)
        self._key = key
        return self._view, True


def _cut_to_window(volume: Volume, window: tuple[float, float] | None) -> Volume:
    """Return the image with values beyond a window at its limits, in its own unit and type."""
    if window is None:
        return volume
    array = volume.array_kji
    if array.dtype.kind != "f":  # a limit between two whole numbers, or beyond the type, would change the type
        limits = np.iinfo(array.dtype)
        low, high = (int(np.clip(round(limit), limits.min, limits.max)) for limit in window)
        return replace(volume, array_kji=np.clip(array, low, high))
    return replace(volume, array_kji=np.clip(array, *window).astype(array.dtype, copy=False))
