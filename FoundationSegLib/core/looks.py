"""From voxels to the pictures that a classifier sees: one or several looks at an image, explicit and recorded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .intensity import CT_WINDOWS, IntensityMapping, check_policy, resolve_intensity
from .volume import Volume

CT_LOOKS = "ct-windows"  # each window a picture of its own
CT_CHANNELS = "ct-channels"  # three windows as red, green and blue, for models that were trained so
Resolve = Callable[[str, Volume], IntensityMapping]


@dataclass(frozen=True, slots=True)
class Look:
    """One way to see an image.

    Attributes:
        name: what results call it.
        mappings: one, for grey or for all colours alike; or three, seen as red, green and blue.
    """

    name: str
    mappings: tuple[IntensityMapping, ...]

    def see(self, plane: NDArray[np.generic]) -> NDArray[np.uint8]:
        """A slice (rows, columns) or (rows, columns, 3) as a picture: (rows, columns) or (rows, columns, 3)."""
        flat = plane.reshape(plane.shape[0], -1)
        seen = [mapping.to_uint8(flat) for mapping in self.mappings]
        return seen[0].reshape(plane.shape) if len(seen) == 1 else np.stack(seen, axis=2)

    def to_document(self) -> dict[str, Any]:
        """The form of the report."""
        return {"name": self.name, "channels": [mapping.to_document() for mapping in self.mappings]}


def check_looks(policy: str) -> None:
    """Raise :class:`InputError` unless the text names looks: an intensity policy, ``ct-windows`` or ``ct-channels``."""
    if policy not in (CT_LOOKS, CT_CHANNELS):
        check_policy(policy)


def resolve_looks(
    policy: str,
    volume: Volume,
    ct_channels: Sequence[Sequence[int]] = (),
    resolve: Resolve = resolve_intensity,
) -> tuple[Look, ...]:
    """The looks that a policy means for an image.

    ``auto`` sees CT through three windows: as the model's channels where it was trained so, otherwise as three pictures
    whose embeddings are averaged; everything else as :func:`~.intensity.resolve_intensity` has it.

    Args:
        policy: see :func:`check_looks`.
        volume: the image.
        ct_channels: the lowest and highest Hounsfield units of red, green and blue, from the model's card; or none.
        resolve: how a single policy is resolved.

    Raises:
        InputError: the policy is unknown, or does not fit the image or the model.
    """
    check_looks(policy)
    if policy in (CT_LOOKS, CT_CHANNELS) and volume.is_colour:
        raise InputError(f"{policy} is for CT, not for colour; use auto")
    if policy == "auto":
        single = resolve(policy, volume)
        if volume.is_colour or single.rule not in CT_WINDOWS:
            return (Look(single.rule, (single,)),)
        policy = CT_CHANNELS if ct_channels else CT_LOOKS
    if policy == CT_CHANNELS:
        return (_channels(ct_channels),)
    if policy == CT_LOOKS:
        return tuple(Look(name, (resolve(name, volume),)) for name in CT_WINDOWS)
    mapping = resolve(policy, volume)
    return (Look(mapping.rule, (mapping,)),)


def _channels(windows: Sequence[Sequence[int]]) -> Look:
    if len(windows) != 3:
        raise InputError(f"{CT_CHANNELS} is for models that were trained with three windows as colours; use auto")
    mappings = (IntensityMapping(CT_CHANNELS, "window", float(low), float(high)) for low, high in windows)
    return Look(CT_CHANNELS, tuple(mappings))
