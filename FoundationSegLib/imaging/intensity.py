"""The intensity policy and the intensity views of a classifier: explicit, over the whole volume, recorded."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..codec import frozen
from ..errors import InputError, did_you_mean
from .volume import Volume

# Width and centre in Hounsfield units: the usual radiological windows (radiopaedia.org/articles/windowing-ct).
# Soft tissue is also what MedSAM was trained on (pre_CT_MR.py, branch LiteMedSAM of bowang-lab/MedSAM).
CT_WINDOWS: dict[str, tuple[float, float]] = {
    "ct-soft-tissue": (400.0, 40.0),
    "ct-lung": (1500.0, -600.0),
    "ct-bone": (1800.0, 400.0),
}
# MedSAM's rule for every modality but CT (pre_CT_MR.py): these percentiles of the positive voxels.
PERCENTILES = (0.5, 99.5)
NAMED_POLICIES = ("auto", *CT_WINDOWS, "percentile", "display", "raw")

# What `auto` takes for Hounsfield units where no modality is known: air is at -1000 and scanners pad with values
# down to -3024 (and rarely below); metal and extended scales reach 32767; a CT of a body, whatever part of the
# field of view is air, has its median between air and dense bone.
_CT_LOWEST = (-8192.0, -500.0)
_CT_HIGHEST = (100.0, 32767.0)
_CT_MEDIAN = (-3100.0, 1500.0)


@frozen
class IntensityMapping:
    """A policy resolved for one volume: ``low`` becomes 0, ``high`` becomes 255, values beyond are clipped.

    Attributes:
        policy: what was asked for, e.g. ``"auto"`` or ``"350,50"``.
        rule: what that came to: a CT window's name, ``"percentile"``, ``"display"``, ``"raw"``, ``"window"``
            or ``"colour"`` (red, green and blue are kept).
        low, high: the limits in the unit of the voxels.
        document: the form of the report: policy, rule, limits, and the same as width and centre.

    Raises:
        InputError: the limits are not finite, or ``low`` is not below ``high``.
    """

    policy: str
    rule: str
    low: float
    high: float
    document: Mapping[str, Any] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not (self.low < self.high and math.isfinite(self.high - self.low)):
            raise InputError(f"the intensity policy {self.policy!r} leaves nothing to see: {self.low} to {self.high}")
        limits = {"policy": self.policy, "rule": self.rule, "low": self.low, "high": self.high}
        document = {**limits, "window": self.high - self.low, "level": (self.high + self.low) / 2}
        object.__setattr__(self, "document", document)

    def to_uint8(self, values: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Any array of voxels in 0..255, shape unchanged; rounded down, as in MedSAM's preprocessing."""
        if values.ndim > 2:  # plane by plane: in float64 a whole volume would take eight bytes a voxel
            return np.stack([self.to_uint8(plane) for plane in values])
        clipped = np.clip(values.astype(np.float64), self.low, self.high)
        return ((clipped - self.low) / (self.high - self.low) * 255.0).astype(np.uint8)


def check_policy(policy: str) -> None:
    """Raise :class:`InputError` unless the text is a named policy or ``W,L`` with a width above 0."""
    if policy not in NAMED_POLICIES:
        _parse_window(policy)


def resolve_intensity(policy: str, volume: Volume) -> IntensityMapping:
    """The mapping that a policy means for a volume.

    Args:
        policy: one of :data:`NAMED_POLICIES`, or ``"W,L"``: width and centre in the unit of the voxels.
        volume: a volume that :func:`~FoundationSegLib.imaging.volume.require_image` accepts.

    Raises:
        InputError: unknown policy, ``display`` for an image that brings no window, or a window that leaves nothing
            to see.
    """
    check_policy(policy)
    if volume.is_colour and policy in ("auto", "raw"):
        return IntensityMapping(policy, "colour", *_colour_limits(volume.array_kji))
    rule = automatic_rule(volume) if policy == "auto" else policy
    if rule in CT_WINDOWS:
        return IntensityMapping(policy, rule, *_limits(*CT_WINDOWS[rule]))
    if rule == "percentile":
        return IntensityMapping(policy, rule, *_percentile_limits(volume.array_kji))
    if rule == "raw":
        return IntensityMapping(policy, rule, *_raw_limits(volume.array_kji))
    if rule == "display":
        return IntensityMapping(policy, rule, *_display_limits(volume))
    return IntensityMapping(policy, "window", *_limits(*_parse_window(rule)))


def automatic_rule(volume: Volume) -> str:
    """Name the rule of ``auto``: CT by its modality or, where none is known, by its values; else percentiles."""
    if volume.modality:
        return "ct-soft-tissue" if volume.modality == "CT" else "percentile"
    return "ct-soft-tissue" if _looks_like_hounsfield(volume.array_kji) else "percentile"


def _looks_like_hounsfield(array: NDArray[np.generic]) -> bool:
    """By the lowest and the highest value and the median, the last of about a million voxels of an even pattern."""
    step = max(1, round((array.size / 1e6) ** (1 / 3)))

    def within(value: float, limits: tuple[float, float]) -> bool:
        return limits[0] <= value <= limits[1]

    return (
        within(float(array.min()), _CT_LOWEST)
        and within(float(array.max()), _CT_HIGHEST)
        and within(float(np.median(array[::step, ::step, ::step])), _CT_MEDIAN)
    )


def _limits(width: float, centre: float) -> tuple[float, float]:
    return centre - width / 2, centre + width / 2


def _percentile_limits(array: NDArray[np.generic]) -> tuple[float, float]:
    positive = array[array > 0]
    low, high = (float(v) for v in np.percentile(positive if positive.size else array, PERCENTILES))
    # A nearly constant image has equal percentiles: its whole range is what there is to see.
    return (low, high) if low < high else (float(array.min()), float(array.max()))


def _display_limits(volume: Volume) -> tuple[float, float]:
    if volume.window_level is None or not volume.window_level[0] > 0:
        raise InputError("the image brings no display window; choose another intensity policy, for example 'auto'")
    return _limits(*volume.window_level)


def _raw_limits(array: NDArray[np.generic]) -> tuple[float, float]:
    """8 bits stay as they are; anything else is seen from its lowest to its highest value."""
    return (0.0, 255.0) if array.dtype == np.uint8 else (float(array.min()), float(array.max()))


def _colour_limits(array: NDArray[np.generic]) -> tuple[float, float]:
    """The range of a type of whole numbers; real numbers count to 1 or, where they go beyond, as 8 bits do, to 255."""
    if array.dtype.kind == "f":
        return 0.0, 1.0 if array.max() <= 1 else 255.0
    return 0.0, float(np.iinfo(array.dtype).max)


def _parse_window(text: str) -> tuple[float, float]:
    try:
        width, centre = (float(part) for part in text.split(","))
    except ValueError:
        names = ", ".join(NAMED_POLICIES)
        near = did_you_mean(text, NAMED_POLICIES)
        usage = f"use {names}, or width,centre as in 400,40"
        raise InputError(f"unknown intensity policy {text!r}; {near and f'{near} '}{usage}") from None
    if not (math.isfinite(width) and math.isfinite(centre) and width > 0):
        raise InputError(f"the window {text!r} needs a width above 0 and finite numbers")
    return width, centre


CT_WINDOW_VIEWS = "ct-windows"  # each window a picture of its own
CT_CHANNELS = "ct-channels"  # three windows as red, green and blue, for models that were trained so
Resolve = Callable[[str, Volume], IntensityMapping]


@frozen
class IntensityView:
    """One way to map the intensities of an image to a picture.

    Attributes:
        name: its name in results.
        mappings: one, for grey or for all colours alike; or three, seen as red, green and blue.
    """

    name: str
    mappings: tuple[IntensityMapping, ...]

    def see(self, plane: NDArray[np.generic]) -> NDArray[np.uint8]:
        """Map a slice (rows, columns) or (rows, columns, 3) to a picture: (rows, columns) or (rows, columns, 3)."""
        flat = plane.reshape(plane.shape[0], -1)
        channels = [mapping.to_uint8(flat) for mapping in self.mappings]
        return channels[0].reshape(plane.shape) if len(channels) == 1 else np.stack(channels, axis=2)

    def to_document(self) -> dict[str, Any]:
        """The form of the report."""
        return {"name": self.name, "channels": [dict(mapping.document) for mapping in self.mappings]}


def check_intensity_views(policy: str) -> None:
    """Raise :class:`InputError` unless the text is an intensity policy, ``ct-windows`` or ``ct-channels``."""
    if policy not in (CT_WINDOW_VIEWS, CT_CHANNELS):
        check_policy(policy)


def resolve_intensity_views(
    policy: str,
    volume: Volume,
    ct_channels: Sequence[Sequence[int]] = (),
    resolve: Resolve = resolve_intensity,
) -> tuple[IntensityView, ...]:
    """Return the views of an image that a policy means.

    ``auto`` sees CT through three windows: as the model's channels where it was trained so, otherwise as three pictures
    whose embeddings are averaged; everything else as :func:`~.intensity.resolve_intensity` has it.

    Args:
        policy: see :func:`check_intensity_views`.
        volume: the image.
        ct_channels: the lowest and highest Hounsfield units of red, green and blue, from the model's card; or none.
        resolve: how a single policy is resolved.

    Raises:
        InputError: the policy is unknown, or does not fit the image or the model.
    """
    check_intensity_views(policy)
    if policy in (CT_WINDOW_VIEWS, CT_CHANNELS) and volume.is_colour:
        raise InputError(f"{policy} is for CT, not for colour; use auto")
    if policy == "auto":
        single = resolve(policy, volume)
        if volume.is_colour or single.rule not in CT_WINDOWS:
            return (IntensityView(single.rule, (single,)),)
        policy = CT_CHANNELS if ct_channels else CT_WINDOW_VIEWS
    if policy == CT_CHANNELS:
        return (_channels(ct_channels),)
    if policy == CT_WINDOW_VIEWS:
        return tuple(IntensityView(name, (resolve(name, volume),)) for name in CT_WINDOWS)
    mapping = resolve(policy, volume)
    return (IntensityView(mapping.rule, (mapping,)),)


def _channels(windows: Sequence[Sequence[int]]) -> IntensityView:
    if len(windows) != 3:
        raise InputError(f"{CT_CHANNELS} is for models that were trained with three windows as colours; use auto")
    mappings = (IntensityMapping(CT_CHANNELS, "window", float(low), float(high)) for low, high in windows)
    return IntensityView(CT_CHANNELS, tuple(mappings))
