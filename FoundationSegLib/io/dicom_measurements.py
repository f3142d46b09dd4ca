"""DICOM objects beside a segmentation: measurements (TID 1500) and Parametric Maps, written with `highdicom`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dicom_segmentation import MAKER, Coded, DicomSegment, coded, identity, import_highdicom, read_headers, used_slices

_REPORT_NUMBER, _MAP_NUMBER = 301, 302  # of their series, apart from those of a scanner
_IMAGING = Coded("SCT", "363679005", "Imaging")
_VOLUME, _LONG_AXIS, _MEAN = (
    Coded("SCT", "118565006", "Volume"),
    Coded("SCT", "103339001", "Long Axis"),
    Coded("SCT", "373098007", "Mean"),
)
_MM3, _MM, _NO_UNITS = (
    Coded("UCUM", "mm3", "cubic millimeter"),
    Coded("UCUM", "mm", "millimeter"),
    Coded("UCUM", "1", "no units"),
)
# The quantity of stored values and its unit, by modality; of others the mean itself is the quantity (IBSI's code).
_QUANTITIES = {
    "CT": (Coded("DCM", "112031", "Attenuation Coefficient"), Coded("UCUM", "[hnsf'U]", "Hounsfield unit")),
    "MR": (Coded("DCM", "110852", "MR signal intensity"), _NO_UNITS),
}
_INTENSITY = Coded("IBSI", "Q4LE", "Mean intensity"), _NO_UNITS
_SIDES = {"7771000", "24028007"}  # left and right


@dataclass(frozen=True, slots=True)
class Measured:
    """Measures of a segment: ``volume_mm3`` is None for an image of one slice; ``mean`` is of the rescaled values."""

    volume_mm3: float | None
    diameter_mm: float
    mean: float


def measurement_report(
    segmentation: Any, sources: Sequence[Path], segments: Sequence[DicomSegment], measured: Sequence[Measured]
) -> Any:
    """Return a Comprehensive 3D SR with the measures of each segment of a DICOM SEG.

    Args:
        segmentation: the object that :func:`~.dicom_segmentation.dicom_segmentation` has made.
        sources: the files of the slices, in the order of k; those that it has a segment on are named.
        segments, measured: of the same segments, in its order.
    """
    highdicom = import_highdicom()
    (series,) = segmentation.ReferencedSeriesSequence
    images = read_headers([sources[k] for k in used_slices(segments)])
    quantity, unit = _QUANTITIES.get(images[0].Modality, _INTENSITY)
    groups = []
    for number, (segment, measures) in enumerate(zip(segments, measured, strict=True), start=1):
        values = [(_LONG_AXIS, measures.diameter_mm, _MM, None), (quantity, measures.mean, unit, _MEAN)]
        if measures.volume_mm3 is not None:
            values.insert(0, (_VOLUME, measures.volume_mm3, _MM3, None))
        groups.append(_group(highdicom, segmentation, series.SeriesInstanceUID, number, segment, values))
    device = highdicom.sr.DeviceObserverIdentifyingAttributes(
        uid=highdicom.UID(), manufacturer_name=MAKER, model_name=MAKER
    )
    observer = highdicom.sr.ObserverContext(coded(highdicom, Coded("DCM", "121007", "Device")), device)
    report = highdicom.sr.MeasurementReport(
        highdicom.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=coded(highdicom, _IMAGING),
        imaging_measurements=groups,
        title=coded(highdicom, Coded("DCM", "126000", "Imaging Measurement Report")),
    )
    document = highdicom.sr.Comprehensive3DSR(
        evidence=[segmentation, *images],
        content=report[0],
        manufacturer=MAKER,
        is_complete=True,
        **identity(highdicom, _REPORT_NUMBER),
    )
    document.SeriesDescription = f"{MAKER}: measurements"
    return document


def _group(
    highdicom: Any,
    segmentation: Any,
    series_uid: str,
    number: int,
    segment: DicomSegment,
    values: Sequence[tuple[Coded, float, Coded, Coded | None]],
) -> Any:
    measurements = [
        highdicom.sr.Measurement(
            name=coded(highdicom, name),
            value=float(f"{value:.8g}"),
            unit=coded(highdicom, unit),
            derivation=None if derivation is None else coded(highdicom, derivation),
        )
        for name, value, unit, derivation in values
    ]
    kind, side = coded(highdicom, segment.type), segment.modifier
    laterality = coded(highdicom, side) if side is not None and side.value in _SIDES else None
    return highdicom.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=highdicom.sr.TrackingIdentifier(
            uid=highdicom.UID.from_uuid(segment.tracking_id), identifier=segment.name
        ),
        referenced_segment=highdicom.sr.ReferencedSegment(
            segmentation.SOPClassUID,
            segmentation.SOPInstanceUID,
            number,
            source_series=highdicom.sr.SourceSeriesForSegmentation(series_uid),
        ),
        finding_type=kind,
        finding_category=coded(highdicom, segment.category),
        finding_sites=None if laterality is None else [highdicom.sr.FindingSite(kind, laterality)],
        algorithm_id=highdicom.sr.AlgorithmIdentification(segment.algorithm, segment.version),
        measurements=measurements,
    )


@dataclass(frozen=True, slots=True)
class MapQuantity:
    """The quantity of a map: a code, the name of the label or object that it is about, and a unit."""

    code: Coded
    about: str
    unit: Coded = _NO_UNITS


def evidence_quantity(label: str, method: str) -> MapQuantity:
    """Quantity of evidence for a label, which no standard has a code for."""
    return MapQuantity(Coded("99FSEG", f"evidence-{method}"[:16], f"Evidence by {method}"), label)


def uncertainty_quantity(name: str) -> MapQuantity:
    """Quantity of the uncertainty of a segment, from 0 (sure) to 1."""
    return MapQuantity(Coded("99FSEG", "uncertainty", "Uncertainty"), name)


def parametric_map(sources: Sequence[Path], values_kji: NDArray[np.float32], quantity: MapQuantity) -> Any:
    """Return a Parametric Map of real numbers on the slices of a DICOM series.

    Args:
        sources: the files of the slices, in the order of k.
        values_kji: (K, J, I), finite, on the grid of those slices.
        quantity: of the values.
    """
    highdicom = import_highdicom()
    low, high = float(values_kji.min()), float(values_kji.max())
    title = f"{quantity.code.meaning}: {quantity.about}"
    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label=quantity.code.value[:16],
        lut_explanation=title[:64],
        unit=coded(highdicom, quantity.unit),
        value_range=(low, high),
        slope=1.0,
        intercept=0.0,
        quantity_definition=coded(highdicom, quantity.code),
    )
    window = highdicom.VOILUTTransformation(  # of real numbers, whose window may be narrower than 1
        (low + high) / 2, max(high - low, 1e-6), voi_lut_function=highdicom.VOILUTFunctionValues.LINEAR_EXACT
    )
    document = highdicom.pm.ParametricMap(
        source_images=read_headers(sources),
        pixel_array=np.ascontiguousarray(values_kji, np.float32),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[mapping],
        voi_lut_transformations=[window],
        content_label=quantity.code.value.upper().replace("-", "_")[:16],
        content_description=title[:64],
        manufacturer=MAKER,
        **identity(highdicom, _MAP_NUMBER, is_image=True),
    )
    document.SeriesDescription = f"{MAKER}: {title}"[:64]
    document.Laterality = document.get("Laterality") or ""  # a series of a paired part has to have it, if only empty
    return document
