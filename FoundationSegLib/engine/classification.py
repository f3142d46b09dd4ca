"""Classify slices by words: encode texts and pictures, score and join them, and show the evidence for a label."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.label_sets import LabelSet
from ..catalog.model_cards import ModelCard
from ..errors import InputError
from ..imaging.intensity import IntensityView
from ..imaging.volume import Volume
from ..requests import scoring
from ..requests.classification import ClassifyRequest, Embeddings, EmbedRequest, EvidenceWish, Subject, box_of_subject
from ..requests.classification_answer import LIMITS, Classification, ConceptScore, EvidenceMap, LabelScore
from ..requests.domain import DomainCheck, require_domain
from ..requests.heads import COVERAGE, LearnedHead
from .encoding import Encoder, Pictures, TextVector, direction, part_of

Floats = NDArray[np.float64]
Picture = NDArray[np.uint8]


Question = scoring.LabelQuestion | scoring.TrainedLabels


def classify(
    request: ClassifyRequest, volume: Volume, views: Sequence[IntensityView], encoder: Encoder
) -> Classification:
    """Answer a request.

    Args:
        request: the labels, the part of the image and the rules.
        volume: the image.
        views: its intensity views.
        encoder: the model and the vectors that are known.

    Raises:
        InputError: the labels, the model and the rule do not fit each other; what is to be classified lies outside of
            the image; or there is nothing to see there.
        Cancelled: the user stopped it.
    """
    if request.head is not None:
        return _by_head(request, request.head, volume, views, encoder)
    question, texts, wording = _question(request, encoder)
    rule = question.rule
    slices, vectors = _vectors(request.subject, volume, views, encoder)
    images = np.stack(list(vectors.values())).astype(np.float64)
    encoder = _asked_for_region(encoder, images)
    if encoder.sees_volumes:
        images = encoder.volume(volume, request.subject).scored_by(rule).vector[None].astype(np.float64)
    by_slice, by_wording = question.scores(images), question.wording_scores(images)
    label_scores = _label_scores(request, by_slice, by_wording, rule)
    evidence: tuple[EvidenceMap, ...] = ()
    if request.evidence is not None:
        name = request.evidence.label or max(label_scores, key=lambda label: label.score).name
        number = request.labels.names.index(request.labels.label(name).name)
        if encoder.sees_volumes:
            evidence = (_volume_evidence(request, (name, number), encoder, volume, question),)
        else:
            pictures = encoder.pictures(volume, request.subject)
            evidence = (_evidence(request.evidence, (name, number), encoder, pictures, views, question, vectors),)
    return _answer(
        request,
        slices,
        views,
        encoder,
        dict(zip(vectors, by_slice, strict=True)),
        scores=label_scores,
        rule=rule,
        temperature=request.scoring.temperature,
        margin=request.scoring.margin,
        aggregation=request.aggregation,
        concepts=_concepts(request.labels, images, texts) if rule == "concepts" else (),
        evidence=evidence,
        notes=(
            *_notes(slices, views, len(vectors), texts, bool(evidence)),
            *((question.note,) if isinstance(question, scoring.TrainedLabels) else ()),
        ),
        wording=wording,
    )


def _question(
    request: ClassifyRequest, encoder: Encoder
) -> tuple[Question, Mapping[str, TextVector], Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]]:
    """Return what pictures are scored by, the vectors of the texts, and the texts for and against each label."""
    labels, model = request.labels, encoder.loaded.model
    own = getattr(model, "labels", None)
    if own is not None and (labels.id == own.label_set or not hasattr(model, "encode_texts")):
        return own.of(labels.names), {}, {}
    head, is_segment = model.head, request.subject.segment is not None
    rule = scoring.choose_rule(request.scoring.rule, labels, head.is_sigmoid, is_segment)
    positive = [label.concepts if rule == "concepts" else labels.texts(label) for label in labels.labels]
    negative = [labels.negative_texts(label) for label in labels.labels] if rule == "pairs" else []
    texts = encoder.texts(list(itertools.chain(*positive, *negative)))
    label_vectors = scoring.LabelVectors(_stacked(positive, texts), _stacked(negative, texts))
    question = scoring.LabelQuestion(label_vectors, rule, head, request.scoring.temperature)
    wording = dict(zip(labels.names, itertools.zip_longest(positive, negative, fillvalue=()), strict=True))
    return question, texts, wording


def domain_of(request: ClassifyRequest | EmbedRequest, card: ModelCard, volume: Volume) -> DomainCheck | None:
    """Hold the part of an image that is asked about against what a model was trained on, before anything is loaded.

    Raises:
        DomainError: it is outside, and the request does not ask to go on.
        InputError: the subject is not in the image.
    """
    if card.domain is None or isinstance(request, EmbedRequest):
        return None
    subject = request.subject if card.sees_volumes else Subject()
    return require_domain(card, part_of(volume, replace(subject, view="crop")), request.any_domain)


def _vectors(
    subject: Subject, volume: Volume, views: Sequence[IntensityView], encoder: Encoder
) -> tuple[tuple[int, ...], Mapping[int, NDArray[np.float32]]]:
    """Return the slices of a subject and the vectors of those that show something; of a whole volume none and one."""
    if encoder.sees_volumes:
        return (), {0: encoder.volume(volume, subject).vector}
    pictures = encoder.pictures(volume, subject)
    return pictures.slices, encoder.slices(pictures, views)


def _asked_for_region(encoder: Encoder, images: Floats) -> Encoder:
    """Return the encoder with what the model itself finds the image nearest to, of the parts of the body, noted."""
    if encoder.domain is None or not encoder.domain.regions_mm:
        return encoder
    texts = {region: f"CT of the {region}" for region in encoder.domain.regions_mm}
    vectors = encoder.texts(list(texts.values()))
    mean = images.mean(axis=0)
    nearest = max(texts, key=lambda region: float(mean @ vectors[texts[region]].vector))
    return replace(encoder, domain=replace(encoder.domain, nearest=nearest))


def _answer(
    request: ClassifyRequest,
    slices: tuple[int, ...],
    views: Sequence[IntensityView],
    encoder: Encoder,
    by_slice: Mapping[int, Floats],
    **fields: Any,
) -> Classification:
    """Return an answer with what words and heads have in common; ``by_slice`` are the scores of visible slices."""
    blank = np.full(len(request.labels.labels), np.nan, np.float32)
    weights, domain = encoder.loaded.weights, encoder.domain
    curves = np.array([by_slice.get(index, blank) for index in slices], np.float32).reshape(-1, len(blank))
    if domain is not None:
        fields["notes"] = (*domain.notes(weights.checkpoint.model_id), *fields["notes"])
    return Classification(
        request_id=request.request_id,
        label_set=request.labels.id,
        axis=request.subject.axis,
        slices=slices,
        curves=curves,
        looks=tuple(view.to_document() for view in views),
        checkpoint=weights.checkpoint,
        device=weights.device,
        precision=weights.precision,
        timings_s=encoder.timings_s,
        counts=encoder.counts,
        domain=domain,
        **fields,
    )


def embed(request: EmbedRequest, volume: Volume, views: Sequence[IntensityView], encoder: Encoder) -> Embeddings:
    """Encode an image or its slices, and texts. Raises as :func:`classify`."""
    if request.texts and not hasattr(encoder.loaded.model, "encode_texts"):
        raise InputError(f"{request.model_id} does not read: it has no vectors of texts")
    _, vectors = _vectors(request.subject, volume, views, encoder)
    texts = encoder.texts(request.texts) if request.texts else {}
    return Embeddings(
        request_id=request.request_id,
        slices=tuple(vectors),
        vectors=np.stack(list(vectors.values())),
        texts=np.stack([texts[text].vector for text in request.texts]) if texts else np.zeros((0, 0), np.float32),
        checkpoint=encoder.loaded.weights.checkpoint,
    )


def _by_head(
    request: ClassifyRequest,
    head: LearnedHead,
    volume: Volume,
    views: Sequence[IntensityView],
    encoder: Encoder,
) -> Classification:
    """Score an image by a head: the direction of the mean of its slices' vectors, as the head has learned it."""
    head.require_model(encoder.loaded.weights.checkpoint)
    numbers, vectors = _vectors(request.subject, volume, views, encoder)
    slices = np.stack(list(vectors.values()))
    image = scoring.joined(slices.astype(np.float64))[None]
    scores, by_fold = head.scores(image)[0], head.fold_scores(image)[:, 0]
    rule: scoring.ScoringRule = "learned" if head.kind == "exclusive" else "learned-findings"
    knows, holds = head.knows(scores[None])[0], head.remaining(scores[None])[0, :, 1]
    leading = scoring.margins(scores, rule)
    label_scores = tuple(
        LabelScore(
            name,
            float(scores[n]),
            float(by_fold[:, n].std()),
            float(by_fold[:, n].min()),
            float(by_fold[:, n].max()),
            float(leading[n]),
            bool(knows[n] and holds[n]),
        )
        for n, name in enumerate(head.labels)
    )
    notes = _notes(numbers, views, len(vectors), {}, has_evidence=False)
    return _answer(
        request,
        numbers,
        views,
        encoder,
        dict(zip(vectors, head.scores(slices), strict=True)),
        scores=label_scores,
        rule=rule,
        temperature=1.0,
        margin=0.0,
        aggregation=scoring.Aggregation(),
        notes=(*notes, *_doubt(head, knows, holds)),
        head=head.to_document(),
    )


def _doubt(head: LearnedHead, knows: NDArray[np.bool_], holds: NDArray[np.bool_]) -> Iterator[str]:
    """Say what the head does not know, and if its scores can be read as shares."""
    if not head.is_calibrated:
        yield "not calibrated: there were too few examples for its scores to be read as shares"
    if head.kind == "findings":
        unsure = [name for name, is_known in zip(head.labels, knows, strict=True) if not is_known]
        if unsure:
            yield f"the head does not know, at {COVERAGE:.0%} coverage: {', '.join(unsure)}"
    elif not knows.all():
        remain = [name for name, is_left in zip(head.labels, holds, strict=True) if is_left]
        yield (
            f"the head does not know: at {COVERAGE:.0%} coverage there remain {', '.join(remain)}"
            if remain
            else "the head does not know: the image is like none of its examples"
        )


def _stacked(sentences: Sequence[Sequence[str]], texts: Mapping[str, TextVector]) -> tuple[Floats, ...]:
    """Return the vectors of each label's sentences, (sentences, D)."""
    return tuple(np.stack([texts[text].vector for text in of_label]).astype(np.float64) for of_label in sentences)


def _label_scores(
    request: ClassifyRequest, by_slice: Floats, by_wording: Sequence[Floats], rule: scoring.ScoringRule
) -> tuple[LabelScore, ...]:
    aggregated = request.aggregation(by_slice)
    leading = scoring.margins(aggregated, rule)
    doubt = 2 if rule in ("pairs", "sigmoid") else 1  # the margin to an absence is twice the distance to one half
    label_scores = []
    for name, score, lead, wordings in zip(request.labels.names, aggregated, leading, by_wording, strict=True):
        wording = request.aggregation(wordings)
        spread, low, high = float(wording.std()), float(wording.min()), float(wording.max())
        stands_out = bool(lead >= request.scoring.margin and lead > doubt * spread)
        label_scores.append(LabelScore(name, float(score), spread, low, high, float(lead), stands_out))
    return tuple(label_scores)


def _concepts(labels: LabelSet, images: Floats, texts: Mapping[str, TextVector]) -> tuple[ConceptScore, ...]:
    mean = images.mean(axis=0)
    return tuple(
        ConceptScore(label.name, concept, float(mean @ texts[concept].vector.astype(np.float64)))
        for label in labels.labels
        for concept in label.concepts
    )


def _notes(
    numbers: Sequence[int],
    views: Sequence[IntensityView],
    visible: int,
    texts: Mapping[str, TextVector],
    has_evidence: bool,
) -> tuple[str, ...]:
    notes = []
    slices = len(numbers)
    if visible < slices:
        notes.append(f"{slices - visible} of {slices} slices show nothing, every pixel being the same: no evidence")
    if len(views) > 1:
        notes.append(f"seen {len(views)} times, the vectors averaged: {', '.join(view.name for view in views)}")
    for text, vector in texts.items():
        if vector.truncated:
            notes.append(f"longer than the model reads, so that its end was left out: {text[:60]!r}...")
    return (*notes, LIMITS) if has_evidence else tuple(notes)


def _evidence(
    options: EvidenceWish,
    label: tuple[str, int],
    encoder: Encoder,
    pictures: Pictures,
    views: Sequence[IntensityView],
    question: Question,
    vectors: Mapping[int, NDArray[np.float32]],
) -> EvidenceMap:
    """Return the evidence for a label, given by name and number, on the slices where it leads the most.

    It is measured by the similarity of a picture's parts, or by covering one part after another.
    """
    begin, (name, number) = time.perf_counter(), label
    leads = question.leads(np.stack(list(vectors.values())).astype(np.float64))
    lead = dict(zip(vectors, leads[:, number], strict=True))
    slices = tuple(sorted(sorted(vectors, key=lambda index: -lead[index])[: options.slices or None]))
    grids = []
    for done, index in enumerate(slices):
        encoder.progress.step("evidence", done, len(slices))
        slice_pictures = [picture for view in views if not pictures.is_blank(picture := pictures.picture(index, view))]
        if options.method == "similarity":
            grid = _similarity(encoder, slice_pictures, question, number)
        else:
            grid = _occlusion(encoder, slice_pictures, pictures.image_area(), question, number, options.parts)
        grids.append(pictures.key.orientation.turn_back(grid))
    encoder.progress.step("evidence", len(slices), len(slices))
    encoder.timings_s["evidence"] += time.perf_counter() - begin
    values = np.stack(grids).astype(np.float32)
    return EvidenceMap(name, options.method, pictures.key.axis, slices, pictures.key.frame, values)


def _volume_evidence(
    request: ClassifyRequest, label: tuple[str, int], encoder: Encoder, volume: Volume, question: Question
) -> EvidenceMap:
    """Return the evidence of a model of whole volumes for a label, given by name and number, by its parts' similarity.

    Raises:
        InputError: occlusion is asked for, which would take a run for each part.
    """
    if request.evidence is not None and request.evidence.method != "similarity":
        raise InputError("a model of whole volumes shows evidence by similarity alone: covering parts would take hours")
    encoded, (name, number) = encoder.volume(volume, request.subject).scored_by(question.rule), label
    width = encoded.cells_kji.shape[-1]
    cells = encoded.cells_kji.reshape(-1, width).astype(np.float64)
    values = question.contrast(cells, number).reshape(encoded.cells_kji.shape[:3])
    first = box_of_subject(request.subject, volume.geometry).start_kji
    spans = [(start + n, stop + n) for (start, stop), n in zip(encoded.spans_kji, first, strict=True)]
    return EvidenceMap.of_cells(name, request.subject.axis, values, spans, volume.geometry)


def _similarity(encoder: Encoder, slice_pictures: Sequence[Picture], question: Question, label: int) -> Floats:
    """Return (rows, columns): how much more like the label than like what is against it each part of a picture is."""
    encoder.count_batch("image", len(slice_pictures))
    parts = encoder.loaded.model.encode_parts(slice_pictures, encoder.progress.check).mean(axis=0)
    rows, columns, width = parts.shape
    flat = parts.reshape(-1, width).astype(np.float64)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return question.contrast(flat, label).reshape(rows, columns)


def _occlusion(
    encoder: Encoder,
    slice_pictures: Sequence[Picture],
    is_image: NDArray[np.bool_],
    question: Question,
    label: int,
    parts: int,
) -> Floats:
    """Return (rows, columns): what the label's lead loses, in logits, where a part of the picture is made grey."""
    rows, columns = (min(parts, side) for side in is_image.shape)
    cells = {n: cell for n, cell in enumerate(_cells(is_image.shape, rows, columns)) if is_image[cell].any()}

    def pictures() -> Iterator[Picture]:
        yield from slice_pictures
        for cell in cells.values():
            for picture in slice_pictures:
                yield _covered(picture, cell, is_image)

    vectors = list(encoder.batches(pictures()))
    joined = [direction(vectors[n : n + len(slice_pictures)]) for n in range(0, len(vectors), len(slice_pictures))]
    lead = question.leads(np.stack(joined).astype(np.float64))[:, label]
    loss = np.zeros((rows, columns))
    loss.flat[list(cells)] = lead[0] - lead[1:]
    return loss


def _cells(shape: tuple[int, ...], rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Yield the parts of a picture, row by row."""
    lines, pillars = (
        np.linspace(0, side, count + 1).round().astype(int) for side, count in zip(shape, (rows, columns), strict=True)
    )
    for r0, r1 in itertools.pairwise(lines):
        for c0, c1 in itertools.pairwise(pillars):
            yield slice(r0, r1), slice(c0, c1)


def _covered(picture: Picture, cell: tuple[slice, slice], is_image: NDArray[np.bool_]) -> Picture:
    """Return the picture with a part of it at the mean level of the whole; padding stays black."""
    covered = picture.copy()
    covered[cell][is_image[cell]] = picture[is_image].mean(axis=0).round().astype(np.uint8)
    return covered
