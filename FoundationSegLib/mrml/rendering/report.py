"""The report: a page for a case, with pictures, sizes, codes, prompts, corrections, the model and its licence."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import NDArray

from ...catalog.model_cards import ModelCard
from ...errors import InputError, PromptError
from ...imaging.masks import pack_mask
from ...imaging.volume import Volume
from ...page import Card, html_cards, html_note, html_page, html_picture, html_section, html_table
from ...prompts.prompts_file import prompt_to_document
from ...requests.classification_answer import RESEARCH_USE
from ...session.measures import longest_diameter
from .. import segment_tags
from ..segments import read_segment
from ..terminology import codes_of
from ..volumes import belongs_to, patient_item, reference_image, volume_from_node
from .legend import list_segments
from .overview import overview_pixels
from .stage import Stage, encoded, set_stage

_OVERVIEW_PX, _CLOSE_PX = (1600, 1200), (800, 600)
_QUALITY = 85  # of JPEG
_MOST_PROMPTS = 6  # of a segment are described
_MOST_PICTURES = 8  # of single segments; each takes about a second
_ESTIMATE = (
    "Estimate: what the model itself thinks of its overlap with the object, from 0 to 1. It is no measured accuracy, "
    "and says nothing of what was changed by hand."
)
_DIAMETER = "Longest diameter within one slice."
_CORRECTIONS = {
    "hand": "changed by hand",
    "negative": "negative prompts",
    "prompt-moved": "prompts moved",
    "prompt-removed": "prompts taken back",
    "polarity-changed": "signs changed",
    "reject": "answers rejected",
    "propagate": "carried on to other slices",
    "settings": "asked of another model",
}
_PATIENT = {"PatientName": "Name", "PatientID": "ID", "PatientBirthDate": "Born", "PatientSex": "Sex"}


@dataclass(frozen=True, slots=True)
class ReportCase:
    """A case of a report.

    Attributes:
        name: its heading.
        volume_node: the image; None for a page without pictures and sizes.
        segmentation_node: its segments; None for those of a classification.
        document: the report of the command that made it; empty for a scene.
        patient: the patient's fields by what they are called; empty to leave them out.
        volume: the image, where it is at hand already; that of the node otherwise.
    """

    name: str
    volume_node: Any = None
    segmentation_node: Any = None
    document: Mapping[str, Any] = field(default_factory=dict)
    patient: Mapping[str, str] = field(default_factory=dict)
    volume: Volume | None = None


def scene_cases(segmentation_nodes: Sequence[Any] | None, *, with_patient: bool) -> list[ReportCase]:
    """List segmentations that have an image and a segment as cases.

    An image from DICOM goes by its modality, since Slicer names it after its series, unless the patient may be named.

    Args:
        segmentation_nodes: those to list; all of Slicer's scene unless given.
        with_patient: name the patient, from the subject hierarchy.

    Raises:
        InputError: there is none.
    """
    if segmentation_nodes is None:
        segmentation_nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    cases = []
    for node in segmentation_nodes:
        image = reference_image(node)
        if image is not None and belongs_to(node, image) and node.GetSegmentation().GetNumberOfSegments():
            is_named = with_patient or not image.GetAttribute("DICOM.instanceUIDs")
            name = image.GetName() if is_named else volume_from_node(image).modality or "Image"
            cases.append(ReportCase(name, image, node, patient=_patient(image) if with_patient else {}))
    if not cases:
        raise InputError("there is no segmentation with segments and an image, or frame that is shown, of its own")
    return cases


def _patient(volume_node: Any) -> dict[str, str]:
    """Return the fields of the patient that the subject hierarchy has above an image."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume_node.GetScene())
    patient = patient_item(volume_node)
    values = {title: hierarchy.GetItemAttribute(patient, f"DICOM.{tag}") for tag, title in _PATIENT.items() if patient}
    return {title: value for title, value in values.items() if value}


def patient_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the fields of a patient by their titles, from values by DICOM's keywords."""
    return {title: tags[tag].strip() for tag, title in _PATIENT.items() if tags.get(tag, "").strip()}


def report_page(cases: Sequence[ReportCase], cards: Mapping[str, ModelCard], version: str) -> str:
    """Return the page of one case or several.

    Args:
        cases: at least one.
        cards: the models by their ids, for titles and licences.
        version: of FoundationSeg.

    Raises:
        InputError, GeometryError: an image or a segmentation cannot be drawn.
        OutputError: this machine offers no OpenGL.
    """
    title = f"Report: {cases[0].name}" if len(cases) == 1 else f"Report of {len(cases)} cases"
    bodies = [_case(case, cards, heading=len(cases) > 1) for case in cases]
    return html_page(title, "".join([html_note(RESEARCH_USE), *bodies, html_note(f"FoundationSeg {version}")]))


def _case(case: ReportCase, cards: Mapping[str, ModelCard], heading: bool) -> str:
    facts = html_table((), list(case.patient.items()), "facts")
    parts = [html_section(case.name, facts or " ") if heading else facts]
    segments: list[_ReportedSegment] = []
    if case.volume_node is not None:
        volume = case.volume or volume_from_node(case.volume_node)
        node = case.segmentation_node or slicer.vtkMRMLSegmentationNode()
        stage = set_stage(case.volume_node, node, None, None)
        segments = list(_segments(stage, volume, case.document))
        overview, *others = _pictures(case, stage, volume, segments)
        parts += [html_table((), _image_rows(volume), "facts"), overview, _segments_section(segments), *others]
    parts += [
        _labels_section(case.document),
        _prompts_section(segments),
        _models_section(segments, case.document, cards),
        html_section("Notes", *(html_note(note) for note in case.document.get("notes", ()))),
    ]
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class _ReportedSegment:
    """A segment of the page; ``prompts`` and ``corrections`` are sentences, ``options`` what determined the result."""

    name: str
    colour: str
    code: str
    voxels: int
    volume_ml: float | None
    diameter_mm: float | None
    score: float | None
    origin: Mapping[str, str]
    options: Mapping[str, Any]
    prompts: str
    corrections: str


def _segments(stage: Stage, volume: Volume, document: Mapping[str, Any]) -> Iterator[_ReportedSegment]:
    segmentation = stage.segmentation_node.GetSegmentation()
    rows = {row.get("name"): row for row in document.get("segments", ()) if isinstance(row, Mapping)}
    for segment_id in segmentation.GetSegmentIDs():
        segment = segmentation.GetSegment(segment_id)
        name = segment.GetName() or segment_id
        mask = pack_mask(read_segment(segment, volume.geometry))
        origin, voxels = segment_tags.provenance(segment), mask.voxels
        options = _json(origin.get("Options", ""))
        yield _ReportedSegment(
            name,
            "#" + "".join(f"{round(255 * level):02x}" for level in segment.GetColor()),
            _code_text(segment.GetTerminology()),
            voxels,
            None if volume.voxel_ml is None else voxels * volume.voxel_ml,
            None if volume.in_pixels or not voxels else longest_diameter(mask, volume.geometry)[0],
            rows.get(name, {}).get("score", options.get("score")),
            origin or _origin_of(document),
            options,
            *_record_texts(segment, name, origin, document),
        )


def _code_text(terminology: str) -> str:
    """Return a term as its words and codes; empty for the usual one of a segment without."""
    _, kind, modifier = codes_of(terminology)
    if not kind[1] or kind[2] == "Tissue":
        return ""
    side = f", {modifier[2].lower()}" if modifier[1] else ""
    return f"{kind[2]}{side} ({kind[0]} {kind[1]})"


def _origin_of(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the model of a report by the names of a segment's tags."""
    names = {"id": "Model", "source": "Repository", "revision": "Revision", "sha256": "SHA256"}
    return {tag: str(document["model"][key]) for key, tag in names.items() if key in document.get("model", ())}


def _record_texts(segment: Any, name: str, origin: Mapping[str, str], document: Mapping[str, Any]) -> tuple[str, str]:
    """Return what was prompted and what was corrected, as sentences."""
    try:
        record = segment_tags.read_record(segment)
    except PromptError as error:
        return str(error), ""
    prompts, space = [prompt_to_document(kept.prompt) for kept in record.prompts], "ras"
    if not prompts:
        kept = _json(origin.get("Prompts", "")) or document.get("prompts", {})
        space = kept.get("space", "ras")
        prompts = [prompt for row in kept.get("segments", ()) if row["name"] == name for prompt in row["prompts"]]
    counts: Counter[str] = Counter(prompt.get("polarity") for prompt in prompts)
    for step in _json(record.steps).get("steps", ()):
        counts[step.get("reason") or step.get("step", "")] += step.get("steps", 1) if step["step"] == "reject" else 1
    texts = [f"{text}: {counts[key]}" for key, text in _CORRECTIONS.items() if counts[key] > (key == "settings")]
    described = [_prompt_text(prompt, space) for prompt in prompts[:_MOST_PROMPTS]]
    if len(prompts) > _MOST_PROMPTS:
        described.append(f"and {len(prompts) - _MOST_PROMPTS} more")
    return "; ".join(described), "; ".join(texts)


def _json(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text or "{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _prompt_text(prompt: Mapping[str, Any], space: str) -> str:
    """Describe a prompt: its kind, its sign where that is negative, and where it lies or what it says."""
    kind = ("not: " if prompt.get("polarity") == "negative" else "") + prompt["type"]
    unit = "mm" if space == "ras" else "voxels"
    if words := prompt.get("text") or prompt.get("name") or prompt.get("segment"):
        return f"{kind} '{words}'"
    points = prompt.get("corners") or prompt.get("points") or [prompt.get("position") or ()]
    if len(points) > 2:
        return f"{kind} of {len(points)} points"
    return f"{kind} {' to '.join(', '.join(f'{round(number, 1):g}' for number in point) for point in points)} {unit}"


def _image_rows(volume: Volume) -> list[tuple[str, str]]:
    k, j, i = volume.geometry.shape_kji
    rows = [("Image", " ".join(filter(None, (volume.modality, f"{i} x {j} x {k} voxels"))))]
    if not volume.in_pixels:
        rows.append(("Voxel size", " x ".join(f"{size:.4g}" for size in volume.geometry.spacing_mm) + " mm"))
    return rows


def _pictures(case: ReportCase, stage: Stage, volume: Volume, segments: Sequence[_ReportedSegment]) -> Iterator[str]:
    """Draw all segments, and each of several by itself, in the intensities that the model saw."""
    seen = case.document.get("intensity") or next(
        filter(None, (_json(s.origin.get("Intensity", "")) for s in segments)), {}
    )
    low, high = (seen.get(end) if isinstance(seen.get(end), int | float) else None for end in ("low", "high"))
    options = {"low": low, "high": high, "in_pixels": volume.in_pixels, "sides": volume.sides}
    nodes = (case.volume_node, case.segmentation_node or stage.segmentation_node)
    yield html_picture(_picture(nodes, _OVERVIEW_PX, options), case.name)
    drawn = list_segments(stage.segmentation_node)
    if not 1 < len(drawn) <= _MOST_PICTURES or 1 in volume.geometry.shape_kji:
        return
    rows = {segment.name: segment for segment in segments}
    cards = []
    for segment in drawn:
        centre = _nearest(segment.points_ras, segment.points_ras.mean(axis=0))
        picture = _picture(nodes, _CLOSE_PX, {**options, "centre_ras": centre})
        cards.append(Card(segment.name, [("Volume", _size(rows[segment.name]))], picture))
    yield html_section("Each segment", html_cards(cards))


def _nearest(points_ras: NDArray[np.float64], centre_ras: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the point of a segment nearest to a centre, which may lie outside of it."""
    x, y, z = points_ras[((points_ras - centre_ras) ** 2).sum(axis=1).argmin()].tolist()
    return x, y, z


def _picture(nodes: tuple[Any, Any], size: tuple[int, int], options: Mapping[str, Any]) -> bytes:
    """Draw an overview as a JPEG, which takes a fifth of the room of a PNG."""
    writer = vtk.vtkJPEGWriter()
    writer.SetQuality(_QUALITY)
    return encoded(overview_pixels(*nodes, size=size, **options), writer)


def _size(segment: _ReportedSegment) -> str:
    return f"{segment.voxels} voxels" if segment.volume_ml is None else f"{segment.volume_ml:.2f} ml"


def _segments_section(segments: Sequence[_ReportedSegment]) -> str:
    head = ("Segment", "Size", "Diameter", "Estimate", "Voxels", "Code")
    rows = [
        (
            segment.name,
            _size(segment),
            "" if segment.diameter_mm is None else f"{segment.diameter_mm:.1f} mm",
            "" if segment.score is None else f"{float(segment.score):.2f}",
            str(segment.voxels),
            segment.code,
        )
        for segment in segments
    ]
    is_estimated = any(segment.score is not None for segment in segments)
    notes = [_DIAMETER, _ESTIMATE] if is_estimated else [_DIAMETER]
    table = html_table(head, rows, colours=[segment.colour for segment in segments])
    return html_section("Segments", table, *map(html_note, notes)) if rows else ""


def _labels_section(document: Mapping[str, Any]) -> str:
    """Show the answer of a classifier, with how much the wording moves each score."""
    if "labels" not in document:
        return ""
    rows = [
        (label["name"], f"{label['score']:.3f}", f"{label['low']:.3f} to {label['high']:.3f}", f"{label['margin']:.3f}")
        for label in document["labels"]
    ]
    verdict = document["verdict"] if isinstance(document["verdict"], str) else ", ".join(document["verdict"])
    table = html_table(("Label", "Score", "By wording", "Lead"), rows)
    notes = ["A score that moves with the wording is uncertain."]
    notes += [] if document.get("calibrated") else ["The scores are not calibrated: they rank, and are no shares."]
    return html_section(f"Labels: {verdict}", table, *map(html_note, notes))


def _prompts_section(segments: Sequence[_ReportedSegment]) -> str:
    rows = [(segment.name, segment.prompts, segment.corrections or "nothing") for segment in segments]
    return html_section("Prompts and corrections", html_table(("Segment", "Prompts", "Corrected"), rows, "facts"))


def _models_section(
    segments: Sequence[_ReportedSegment], document: Mapping[str, Any], cards: Mapping[str, ModelCard]
) -> str:
    """Show each model that made a segment: origin, licence, and the options that determined the result."""
    origins = {_key(segment.origin): segment for segment in segments if segment.origin.get("Model")}
    pairs = [(segment.origin, segment.options) for segment in origins.values()]
    if not pairs and "model" in document:
        pairs = [(_origin_of(document), {})]
    return html_section("Model", *(html_table((), _model_rows(*pair, document, cards), "facts") for pair in pairs))


def _key(origin: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(origin.get(name, "") for name in ("Model", "Revision", "SHA256", "Intensity"))


def _model_rows(
    origin: Mapping[str, str], options: Mapping[str, Any], document: Mapping[str, Any], cards: Mapping[str, ModelCard]
) -> list[tuple[str, str]]:
    card = cards.get(origin["Model"])
    intensity = document.get("intensity") or _json(origin.get("Intensity", ""))
    window = f"{intensity.get('low'):g} to {intensity.get('high'):g}" if "low" in intensity else ""
    licence = [card.license.name, f"commercial use: {card.license.commercial_use}", card.license.url] if card else []
    rows = [
        ("Model", f"{card.title} ({card.id})" if card else origin["Model"]),
        ("Checkpoint", ", ".join(filter(None, (origin.get("Repository"), origin.get("Revision"))))),
        ("sha256", origin.get("SHA256", "")),
        ("Licence", ", ".join(filter(None, licence)) or "not known here"),
        ("About the licence", card.license.note if card else ""),
        ("Citation", card.citation if card else ""),
        ("Intensities", ", ".join(filter(None, (intensity.get("rule") or intensity.get("policy"), window)))),
        *((name.capitalize(), str(document.get(name) or options.get(name) or "")) for name in ("device", "precision")),
        ("Software", f"FoundationSeg {origin['Version']}" if origin.get("Version") else ""),
    ]
    return [row for row in rows if row[1]]
