"""What crosses the boundary to classify, as frames: requests and answers. Plain values in both directions."""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from ..core.aggregation import Aggregation
from ..core.classification import Classification, ConceptScore, LabelScore
from ..core.classify_request import ClassifyRequest, EvidenceWish, Subject
from ..core.evidence import EvidenceMap
from ..core.framing import Frame as SliceFrame
from ..core.geometry import Box
from ..core.label_sets import parse_label_set
from ..core.labels import LabelSet
from ..core.mask import PackedMask
from ..core.requests import CheckpointRecord
from ..core.scoring import Scoring
from .frames import Frame

# What of a classification is the same in JSON; the rest is made up of values of our own.
_PLAIN = ("rule", "temperature", "margin", "label_set", "axis", "device", "precision")


def classify_to_frame(request: ClassifyRequest, ticket: int) -> Frame:
    """A request, with the bits of its segment as raw bytes; ``ticket`` is what answers to it will carry."""
    subject = request.subject
    header = {
        "type": "classify",
        "ticket": ticket,
        "id": request.request_id,
        "model": request.model_id,
        "volume": request.volume_key,
        "labels": _labels_to_document(request.labels),
        "subject": {name: getattr(subject, name) for name in ("axis", "start", "stop", "view", "margin")},
        "box": subject.box and asdict(subject.box),
        "segment": subject.segment and asdict(subject.segment.box),
        "intensity": request.intensity,
        "scoring": asdict(request.scoring),
        "aggregation": asdict(request.aggregation),
        "evidence": request.evidence and asdict(request.evidence),
    }
    return Frame(header, b"" if subject.segment is None else subject.segment.bits)


def classify_from_frame(frame: Frame) -> ClassifyRequest:
    """The request.

    Raises:
        GeometryError: there are more or fewer bits than the segment's box has voxels.
        InputError: the labels are none.
    """
    header = frame.header
    segment = header["segment"] and PackedMask(_box(header["segment"]), bytes(frame.payload))
    return ClassifyRequest(
        request_id=header["id"],
        model_id=header["model"],
        volume_key=header["volume"],
        labels=parse_label_set(header["labels"], "labels"),
        subject=Subject(**header["subject"], box=header["box"] and _box(header["box"]), segment=segment),
        intensity=header["intensity"],
        scoring=Scoring(**header["scoring"]),
        aggregation=Aggregation(**header["aggregation"]),
        evidence=header["evidence"] and EvidenceWish(**header["evidence"]),
    )


def _labels_to_document(labels: LabelSet) -> dict[str, Any]:
    """As a TOML file has it: what is not there is left out, there is no None."""
    document = asdict(labels)
    document["labels"] = [
        {name: value for name, value in label.items() if value is not None} for label in document["labels"]
    ]
    return document


def _box(document: Mapping[str, Any]) -> Box:
    (k0, j0, i0), (k1, j1, i1) = document["start_kji"], document["stop_kji"]
    return Box((k0, j0, i0), (k1, j1, i1))


def classification_to_frame(answer: Classification, ticket: int) -> Frame:
    """An answer, with the curve and the evidence as raw bytes, four a number."""
    header = {name: getattr(answer, name) for name in _PLAIN} | {
        "type": "classified",
        "ticket": ticket,
        "id": answer.request_id,
        "scores": [asdict(one) for one in answer.scores],
        "aggregation": asdict(answer.aggregation),
        "slices": answer.slices,
        "looks": [dict(look) for look in answer.looks],
        "checkpoint": asdict(answer.checkpoint),
        "concepts": [asdict(one) for one in answer.concepts],
        "evidence": [_evidence_to_document(one) for one in answer.evidence],
        "notes": answer.notes,
        "timings_s": dict(answer.timings_s),
        "counts": dict(answer.counts),
    }
    arrays = (answer.curves, *(one.values for one in answer.evidence))
    return Frame(header, b"".join(np.ascontiguousarray(array, "<f4").tobytes() for array in arrays))


def _evidence_to_document(one: EvidenceMap) -> dict[str, Any]:
    plain = {field.name: getattr(one, field.name) for field in fields(one) if field.name not in ("frame", "values")}
    return plain | {"rows": one.frame.rows, "columns": one.frame.columns, "shape": one.values.shape}


def classification_from_frame(frame: Frame) -> Classification:
    """The answer.

    Raises:
        InputError, ValueError: the numbers are more or fewer than the header says, or not numbers.
    """
    header, at = frame.header, 0
    shapes = [(len(header["slices"]), len(header["scores"])), *(tuple(one["shape"]) for one in header["evidence"])]
    arrays = []
    for shape in shapes:
        count = math.prod(shape)
        arrays.append(np.frombuffer(frame.payload, "<f4", count, at).astype(np.float32).reshape(shape))
        at += 4 * count
    if at != len(frame.payload):
        raise ValueError("there are more numbers than the answer has places for")
    return Classification(
        **{name: header[name] for name in _PLAIN},
        request_id=header["id"],
        scores=tuple(LabelScore(**one) for one in header["scores"]),
        aggregation=Aggregation(**header["aggregation"]),
        slices=tuple(header["slices"]),
        curves=arrays[0],
        looks=tuple(header["looks"]),
        checkpoint=CheckpointRecord(**header["checkpoint"]),
        concepts=tuple(ConceptScore(**one) for one in header["concepts"]),
        evidence=tuple(
            _evidence_from_document(one, values) for one, values in zip(header["evidence"], arrays[1:], strict=True)
        ),
        notes=tuple(header["notes"]),
        timings_s=header["timings_s"],
        counts=header["counts"],
    )


def _evidence_from_document(one: Mapping[str, Any], values: np.ndarray) -> EvidenceMap:
    (r0, r1), (c0, c1) = one["rows"], one["columns"]
    return EvidenceMap(
        one["label"], one["method"], one["axis"], tuple(one["slices"]), SliceFrame((r0, r1), (c0, c1)), values
    )
