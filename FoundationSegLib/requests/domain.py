"""Domain of a model: tell before any score whether an image is of the kind that the model was trained on.

Modality, grid, field of view and the part of the body are told from the header and the values; numpy alone is needed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..catalog.model_cards import BODY_REGIONS, BodyRegion, ModelCard, TrainingDomain
from ..codec import frozen
from ..errors import DomainError
from ..imaging.intensity import automatic_rule
from ..imaging.volume import Volume, towards_ras

DomainVerdict = Literal["inside", "outside", "unknown"]
# Words of the DICOM attribute Body Part Examined (CID 4031 and what scanners write), by region.
_HEADER_WORDS: Mapping[BodyRegion, tuple[str, ...]] = {
    "head": ("HEAD", "BRAIN", "SKULL", "SINUS", "ORBIT"),
    "chest": ("CHEST", "THORAX", "LUNG", "TAP"),
    "abdomen": ("ABD", "LIVER", "PELVIS", "KIDNEY", "TAP"),
}
# Words for parts of the body that no model here was trained on.
_ELSEWHERE = (
    *("HAND", "WRIST", "ARM", "ELBOW", "SHOULDER", "FOOT", "ANKLE", "KNEE", "LEG", "HIP", "FEMUR", "FINGER"),
    *("EXTREMITY", "SPINE", "BREAST", "NECK"),
)
_SAMPLE_MM = 6.0  # spacing of the voxels that are looked at
_SAMPLE_PIXELS, _WARM = 100_000, 1.25  # of colours: pixels, and by how much red outweighs green in a retina
_LEAST_KNOWN_MM = 30.0  # less of the body than that says nothing
# In Hounsfield units: soft tissue and bone begin, bone begins, aerated lung (without the air around the patient).
_TISSUE, _BONE, _LUNG = -300, 250, (-930, -550)
_LEAST_BODY_CM2, _LARGEST_HEAD_CM2 = 20.0, 350.0
_CHEST_LUNG, _HEAD_BONE = 0.15, 0.12  # shares: of lung in the section of a chest, of bone in that of a head


@frozen
class DomainCheck:
    """An image held against what a model was trained on.

    Attributes:
        verdict: ``"unknown"`` where neither header nor values say what the image shows.
        reasons: what speaks for the verdict, as parts of a sentence.
        regions_mm: how much of each part of the body is seen along it, by the values of a CT.
        nearest: the part of the body whose name the model itself finds nearest to the image; empty where it was not
            asked. It decides nothing: a model that saw one part alone need not know the others.
        is_overridden: True where the user asked for scores all the same.
    """

    verdict: DomainVerdict
    reasons: tuple[str, ...] = ()
    regions_mm: Mapping[str, float] = field(default_factory=dict)
    nearest: str = ""
    is_overridden: bool = False

    def to_document(self) -> dict[str, Any]:
        """The form of the report."""
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "regions_mm": {name: round(length) for name, length in self.regions_mm.items()},
            "nearest": self.nearest,
            "overridden": self.is_overridden,
        }

    def notes(self, title: str) -> Iterator[str]:
        """Yield what the user has to know beside the scores."""
        reasons = "; ".join(self.reasons)
        if self.nearest and self.regions_mm and self.nearest != max(self.regions_mm, key=self.regions_mm.__getitem__):
            yield f"the model itself finds the image nearest to a CT of the {self.nearest}"
        if self.verdict == "outside":
            yield f"scored at your wish, though the image is not of the domain of {title}: {reasons}"
        elif self.verdict == "unknown":
            yield f"it is not known whether the image is of the domain of {title}: {reasons}"


def check_domain(card: ModelCard, volume: Volume) -> DomainCheck | None:
    """Hold an image against the domain of a model; None for a model of no certain domain."""
    domain = card.domain
    if domain is None:
        return None
    wrong = list(_wrong_kind(card, domain, volume))
    if wrong:
        return DomainCheck("outside", tuple(wrong))
    if "CT" not in domain.modalities:
        return _by_header(domain, volume)
    if not domain.regions:
        return DomainCheck("inside")
    regions_mm = body_regions(volume, domain.sees_mm)
    header = header_regions(volume.body_part)
    seen = max(regions_mm[region] for region in domain.regions)
    trained = " or ".join(domain.regions)
    most = max(regions_mm, key=lambda region: regions_mm[region])
    if seen >= domain.least_mm:
        return DomainCheck("inside", (f"{seen:.0f} mm of the {trained}",), regions_mm)
    if regions_mm[most] >= _LEAST_KNOWN_MM:
        other = f"it seems to show the {most} ({regions_mm[most]:.0f} mm); " if most not in domain.regions else ""
        reason = f"{other}{seen:.0f} mm of the {trained} are seen, and {domain.least_mm:.0f} mm are needed"
        return DomainCheck("outside", (reason,), regions_mm)
    if header and not header & set(domain.regions):
        return DomainCheck("outside", (f"its header says {volume.body_part}, not {trained}",), regions_mm)
    return DomainCheck("unknown", (f"its values do not show a {trained}",), regions_mm)


def _by_header(domain: TrainingDomain, volume: Volume) -> DomainCheck:
    """Hold an image against a domain whose parts of the body its values do not tell."""
    part, seen = volume.body_part, header_regions(volume.body_part)
    if not volume.modality:
        kinds = " or ".join(domain.modalities)
        return DomainCheck("unknown", (f"no header says its modality, which would have to be {kinds}",))
    if not domain.regions or seen & set(domain.regions):
        return DomainCheck("inside", (f"its header says {part or volume.modality}",))
    trained = " or ".join(domain.regions)
    if seen or any(word in part.upper() for word in _ELSEWHERE):
        return DomainCheck("outside", (f"its header says {part}, not {trained}",))
    return DomainCheck("unknown", (f"its header says {part or 'nothing'} of the part of the body, not {trained}",))


def require_domain(card: ModelCard, volume: Volume, is_overridden: bool) -> DomainCheck | None:
    """Hold an image against the domain of a model, and go on outside of it only where the user asked for that.

    Raises:
        DomainError: the image is outside, and nobody asked to go on.
    """
    check = check_domain(card, volume)
    if check is None or check.verdict != "outside":
        return check
    if not is_overridden:
        raise DomainError(
            f"the image is not of the domain of {card.title}, so that its scores would mean nothing: "
            f"{'; '.join(check.reasons)}. To score it all the same, say so ('Score it anyway', --any-domain)"
        )
    return replace(check, is_overridden=True)


def _wrong_kind(card: ModelCard, domain: TrainingDomain, volume: Volume) -> Iterator[str]:
    """Yield what of modality, colour, grid and field of view is not the model's."""
    kinds = ", ".join(domain.modalities)
    if volume.modality and volume.modality not in domain.modalities:
        yield f"its modality is {volume.modality}, not {kinds}"
    elif not volume.modality and domain.modalities == ("CT",) and automatic_rule(volume) != "ct-soft-tissue":
        yield "its modality is not known, and its values are not Hounsfield units"
    elif not volume.modality and "CT" not in domain.modalities and automatic_rule(volume) == "ct-soft-tissue":
        yield "its values are Hounsfield units, as of a CT"
    if domain.is_colour is not None and volume.is_colour != domain.is_colour:
        yield "it is in colour" if volume.is_colour else "it is grey, not in colour"
    elif domain.is_warm and not _is_warm(volume):
        yield "its colours are not those of a retina, red before green before blue"
    if domain.is_single and min(volume.geometry.shape_kji) > 1:
        yield f"it is a volume of {min(volume.geometry.shape_kji)} slices, not a single picture"
    if not card.sees_volumes:
        return
    grid = zip(volume.geometry.shape_kji, volume.geometry.spacing_mm[::-1], strict=True)
    lengths = [count * mm for count, mm in grid]
    if volume.in_pixels or volume.sides is not None or min(volume.geometry.shape_kji) < 2:
        yield "it is a single picture, not a volume"
    elif min(lengths) < domain.least_mm:
        yield f"its field of view is {min(lengths):.0f} mm at the narrowest, and {domain.least_mm:.0f} mm are needed"


def _is_warm(volume: Volume) -> bool:
    """True for an image in colour with more red than green, and more green than blue."""
    pixels = volume.array_kji.reshape(-1, 3)
    red, green, blue = pixels[:: max(1, len(pixels) // _SAMPLE_PIXELS)].mean(axis=0)
    return bool(red > _WARM * green and green > blue)


def header_regions(body_part: str) -> set[BodyRegion]:
    """Parts of the body that a DICOM Body Part Examined names; empty where it is none of them."""
    text = body_part.upper()
    return {region for region in BODY_REGIONS if any(word in text for word in _HEADER_WORDS[region])}


def body_regions(volume: Volume, sees_mm: tuple[float, ...] = ()) -> dict[BodyRegion, float]:
    """Measure how much of head, chest and abdomen a CT shows along the body, in mm.

    By sections across the body, on voxels about 6 mm apart: a chest by the share of aerated lung, a head by a small
    section with much bone, an abdomen by a large one without either. Limbs and necks may be taken for an abdomen.

    Args:
        volume: a grey image in Hounsfield units.
        sees_mm: the extent about the middle to the right, front and head that counts; all of it where empty.
    """
    turn = towards_ras(volume.geometry)
    array, spacing_mm = turn.turn(volume.array_kji), turn.geometry(volume.geometry).spacing_mm[::-1]
    if sees_mm:
        array = array[tuple(map(_middle, array.shape, spacing_mm, sees_mm[::-1]))]
    steps = [max(1, round(_SAMPLE_MM / mm)) for mm in spacing_mm]
    sample = array[
        tuple(slice(min(step, count) // 2, None, step) for step, count in zip(steps, array.shape, strict=True))
    ]
    length_mm, row_mm, column_mm = (step * mm for step, mm in zip(steps, spacing_mm, strict=True))
    regions: dict[BodyRegion, float] = dict.fromkeys(BODY_REGIONS, 0.0)
    for section in sample:
        region = _region_of(section, row_mm * column_mm / 100)
        if region is not None:
            regions[region] += length_mm
    return regions


def _middle(count: int, spacing_mm: float, length_mm: float) -> slice:
    kept = min(count, max(1, round(length_mm / spacing_mm)))
    return slice((count - kept) // 2, (count - kept) // 2 + kept)


def _region_of(section: NDArray[np.generic], voxel_cm2: float) -> BodyRegion | None:
    """Tell the part of the body by a section across it."""
    tissue = section > _TISSUE
    aerated = (section > _LUNG[0]) & (section < _LUNG[1])
    lung = aerated & _between(tissue, aerated, 0) & _between(tissue, aerated, 1)
    tissue_cm2, lung_cm2 = (float(np.count_nonzero(part)) * voxel_cm2 for part in (tissue, lung))
    body_cm2 = tissue_cm2 + lung_cm2
    if body_cm2 < _LEAST_BODY_CM2 or not tissue_cm2:
        return None
    if lung_cm2 / body_cm2 > _CHEST_LUNG:
        return "chest"
    bone = float(np.count_nonzero(section > _BONE)) * voxel_cm2 / tissue_cm2
    if body_cm2 < _LARGEST_HEAD_CM2:
        return "head" if bone > _HEAD_BONE else None
    return "abdomen"


def _between(tissue: NDArray[np.bool_], aerated: NDArray[np.bool_], axis: int) -> NDArray[np.bool_]:
    """Mark what has tissue on both sides along an axis, or lung that the image's edge cuts."""
    closed = np.moveaxis(tissue.copy(), axis, 0)
    closed[[0, -1]] |= np.moveaxis(aerated, axis, 0)[[0, -1]]
    after = np.logical_or.accumulate(closed[::-1])[::-1]
    return np.moveaxis(np.logical_or.accumulate(closed) & after, 0, axis)
