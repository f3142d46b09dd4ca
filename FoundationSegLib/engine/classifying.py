"""A request to classify, answered: texts and slices encoded, scored, joined, and the reasons shown."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..catalog.label_sets import Label, LabelSet
from ..errors import InputError
from ..imaging.intensity import Look
from ..imaging.volume import Volume
from ..requests.classification import ClassifyRequest
from ..requests.classification_answer import LIMITS, Classification, ConceptScore, EvidenceMap, LabelScore
from ..requests.scoring import LabelVectors, ScoringRule, choose_rule, margins
from .evidence_maps import Question, show_evidence
from .pictures import Pictures, take_pictures
from .vectors import Encoding, TextVector

Floats = NDArray[np.float64]


def classify(request: ClassifyRequest, volume: Volume, looks: Sequence[Look], encoding: Encoding) -> Classification:
    """Answer a request.

    Args:
        request: what is asked.
        volume: the image.
        looks: how it is seen.
        encoding: the model and what it has seen before.

    Raises:
        InputError: the labels, the model and the rule do not fit each other; what is to be classified lies outside of
            the image; or there is nothing to see there.
        Cancelled: the user stopped it.
    """
    head = encoding.model.head
    rule = choose_rule(request.scoring.rule, request.labels, head.is_sigmoid, request.subject.segment is not None)
    pictures = take_pictures(volume, request.subject)
    texts = encoding.texts(_texts(request.labels, rule))
    question = Question(_label_vectors(request.labels, rule, texts), rule, head, request.scoring.temperature)
    seen = encoding.slices(pictures, looks)
    if not seen:
        raise InputError("there is nothing to see on what was chosen: every pixel is the same")
    images = np.stack([seen[index] for index in seen]).astype(np.float64)
    by_slice = question.scores(images)
    found = _scores(request, by_slice, question.wording_scores(images), rule)
    evidence = _evidence(request, encoding, pictures, looks, question, seen, found)
    return Classification(
        request_id=request.request_id,
        scores=found,
        rule=rule,
        temperature=request.scoring.temperature,
        margin=request.scoring.margin,
        aggregation=request.aggregation,
        label_set=request.labels.id,
        axis=request.subject.axis,
        slices=pictures.slices,
        curves=_curves(pictures, seen, by_slice),
        looks=tuple(look.to_document() for look in looks),
        checkpoint=encoding.weights.checkpoint,
        device=encoding.weights.device,
        precision=encoding.weights.precision,
        concepts=_concepts(request.labels, images, texts) if rule == "concepts" else (),
        evidence=evidence,
        notes=_notes(pictures, looks, seen, texts, evidence),
        timings_s={
            "text": encoding.tally.text_s,
            "encode": encoding.tally.encode_s,
            "evidence": encoding.tally.evidence_s,
        },
        counts=encoding.tally.counts,
    )


def _texts(labels: LabelSet, rule: ScoringRule) -> list[str]:
    """Every sentence that a rule needs."""
    positive = [text for label in labels.labels for text in _positive(labels, label, rule)]
    negative = [text for label in labels.labels for text in labels.negative_texts(label)] if rule == "pairs" else []
    return positive + negative


def _positive(labels: LabelSet, label: Label, rule: ScoringRule) -> tuple[str, ...]:
    return label.concepts if rule == "concepts" else labels.texts(label)


def _label_vectors(labels: LabelSet, rule: ScoringRule, texts: Mapping[str, TextVector]) -> LabelVectors:
    def stacked(sentences: Sequence[str]) -> Floats:
        return np.stack([texts[sentence].vector for sentence in sentences]).astype(np.float64)

    positive = tuple(stacked(_positive(labels, label, rule)) for label in labels.labels)
    if rule != "pairs":
        return LabelVectors(positive)
    return LabelVectors(positive, tuple(stacked(labels.negative_texts(label)) for label in labels.labels))


def _scores(
    request: ClassifyRequest, by_slice: Floats, by_wording: Sequence[Floats], rule: ScoringRule
) -> tuple[LabelScore, ...]:
    aggregated = request.aggregation(by_slice)
    leading = margins(aggregated, rule)
    wordings = [request.aggregation(one) for one in by_wording]
    doubt = 2 if rule in ("pairs", "sigmoid") else 1  # the margin to an absence is twice the distance to one half
    return tuple(
        LabelScore(
            name=name,
            score=float(aggregated[n]),
            spread=float(wordings[n].std()),
            low=float(wordings[n].min()),
            high=float(wordings[n].max()),
            margin=float(leading[n]),
            stands_out=bool(leading[n] >= request.scoring.margin and leading[n] > doubt * wordings[n].std()),
        )
        for n, name in enumerate(request.labels.names)
    )


def _curves(pictures: Pictures, seen: Mapping[int, object], found: Floats) -> NDArray[np.float32]:
    curves = np.full((len(pictures.slices), found.shape[1]), np.nan, np.float32)
    curves[[index in seen for index in pictures.slices]] = found
    return curves


def _concepts(labels: LabelSet, images: Floats, texts: Mapping[str, TextVector]) -> tuple[ConceptScore, ...]:
    mean = images.mean(axis=0)
    return tuple(
        ConceptScore(label.name, concept, float(mean @ texts[concept].vector.astype(np.float64)))
        for label in labels.labels
        for concept in label.concepts
    )


def _evidence(
    request: ClassifyRequest,
    encoding: Encoding,
    pictures: Pictures,
    looks: Sequence[Look],
    question: Question,
    seen: Mapping[int, NDArray[np.float32]],
    found: Sequence[LabelScore],
) -> tuple[EvidenceMap, ...]:
    wish = request.evidence
    if wish is None:
        return ()
    name = wish.label or max(found, key=lambda one: one.score).name
    number = request.labels.names.index(request.labels.label(name).name)
    lead = dict(zip(seen, question.lead(list(seen.values()), number), strict=True))
    best = sorted(seen, key=lambda index: -lead[index])[: wish.slices or None]
    return (show_evidence(encoding, pictures, looks, question, wish, (name, number), sorted(best)),)


def _notes(
    pictures: Pictures,
    looks: Sequence[Look],
    seen: Mapping[int, object],
    texts: Mapping[str, TextVector],
    evidence: Sequence[EvidenceMap],
) -> tuple[str, ...]:
    notes = []
    blank = len(pictures.slices) - len(seen)
    if blank:
        notes.append(f"{blank} of {len(pictures.slices)} slices show nothing, every pixel being the same: no evidence")
    if len(looks) > 1:
        notes.append(f"seen {len(looks)} times, the vectors averaged: {', '.join(look.name for look in looks)}")
    for text in (text for text, vector in texts.items() if vector.truncated):
        notes.append(f"longer than the model reads, so that its end was left out: {text[:60]!r}...")
    if evidence:
        notes.append(LIMITS)
    return tuple(notes)
