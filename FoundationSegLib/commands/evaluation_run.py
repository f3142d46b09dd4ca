"""The work of `evaluate`: every model on every object, each model in a worker process of its own."""

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..catalog.model_cards import ModelCard
from ..errors import Cancelled, FoundationSegError
from ..evaluation.metrics import peak_memory_mb
from ..evaluation.protocol import ModelScores, ObjectScores, ProtocolSettings
from ..evaluation.simulated_user import evaluate_object
from ..progress import ProgressReport
from ..requests.segmentation import Prediction, PredictRequest
from ..worker.client import Client, ask
from ..worker.process_client import ProcessClient
from . import segment
from .checkpoints import announce_missing
from .evaluation_truth import Truth
from .terminal import ProgressLine

_WAIT_S = 0.2
_OWN_STAGES = ("download", "load", "restart", "wait")


@dataclass(slots=True)
class _Watch:
    """Shows how far the whole evaluation is, and keeps the highest peak of memory of the model's process."""

    line: ProgressLine
    total: int
    done: int = 0
    peak_mb: float | None = None

    def show(self, report: ProgressReport) -> None:
        """A report of the work on one request: what takes long beside the steps is shown in their place."""
        self.line.show(report if report.stage in _OWN_STAGES else ProgressReport("evaluate", self.done, self.total))

    def step(self, client: Client) -> None:
        """One step is done."""
        self.done += 1
        self.line.show(ProgressReport("evaluate", self.done, self.total))
        peak_mb = _peak_mb(client)
        if peak_mb is not None:
            self.peak_mb = max(peak_mb, self.peak_mb or 0.0)


def evaluate_models(
    cards: Sequence[ModelCard],
    refusals: Mapping[str, FoundationSegError | None],
    truth: Truth,
    settings: ProtocolSettings,
    options: argparse.Namespace,
) -> list[ModelScores]:
    """What each model reaches; for one that cannot be evaluated, why.

    Args:
        cards: the models.
        refusals: by model, what is known to be in its way before it is tried.
        truth: the image and its objects.
        settings: the protocol.
        options: the command line's, for the device.

    Raises:
        Cancelled: the user stopped it.
    """
    able = [card for card in cards if refusals[card.id] is None]
    watch = _Watch(ProgressLine(), len(able) * len(truth.voxels) * settings.steps)
    try:
        return [
            _evaluate_model(card, truth, settings, options, watch)
            if card in able
            else ModelScores(card.id, {}, error=refusals[card.id])
            for card in cards
        ]
    finally:
        watch.line.clear()


def _evaluate_model(
    card: ModelCard, truth: Truth, settings: ProtocolSettings, options: argparse.Namespace, watch: _Watch
) -> ModelScores:
    watch.peak_mb, before = None, watch.done
    try:
        watch.line.clear()
        announce_missing(card, options.device)
        with contextlib.closing(segment.open_client(options)) as client:
            client.send_volume(truth.volume)
            _wait_until_ready(client)
            objects = dict(_objects(client, card, truth, settings, watch))
    except Cancelled:
        raise
    except FoundationSegError as error:
        watch.done = before + len(truth.voxels) * settings.steps
        return ModelScores(card.id, {}, watch.peak_mb, error)
    scores = ModelScores(card.id, objects, watch.peak_mb)
    return scores if scores.origin is not None else ModelScores(card.id, {}, watch.peak_mb, scores.errors[0])


def _wait_until_ready(client: Client) -> None:
    """Wait for the worker and for the image's way to it, which are no part of the time of an answer."""
    while client.is_busy:
        client.poll()
        client.wait(_WAIT_S)


def _objects(
    client: Client, card: ModelCard, truth: Truth, settings: ProtocolSettings, watch: _Watch
) -> Iterator[tuple[int, ObjectScores]]:
    def answer(request: PredictRequest) -> Prediction:
        return ask(client, request, watch.show)

    for label in truth.voxels:
        truth_kji = truth.labels_kji == label
        yield (
            label,
            evaluate_object(answer, card.id, truth.volume, truth_kji, settings, lambda: watch.step(client)),
        )


def _peak_mb(client: Client) -> float | None:
    """Of the worker's process; of this one where the work is done in line."""
    if not isinstance(client, ProcessClient):
        return peak_memory_mb()
    return None if client.worker_pid is None else peak_memory_mb(client.worker_pid)
