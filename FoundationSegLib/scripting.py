"""For scripts: a session that waits for its answers, with or without Slicer. All objects are those of the panel."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from secrets import randbits

from . import __version__
from .catalog.catalogue import find_card, read_catalogue
from .catalog.label_sets import LabelSet, find_label_set, label_set_of, read_label_sets
from .imaging.volume import Volume
from .prompts.kinds import PromptSet
from .prompts.regions import Region
from .requests.classification import ClassifyRequest, EvidenceWish, Subject
from .requests.classification_answer import Classification
from .requests.scoring import Aggregation, Scoring
from .session.segment_store import ArrayStore, Options, Outcome, PromptStore, SegmentStore
from .session.segments import import_prompts
from .session.session import Session
from .session.steps import ModelChoice
from .worker.client import Client, OnProgress, ask, finish


def choose(model_id: str, intensity: str = "auto", region: Region | None = None) -> ModelChoice:
    """The choice of a model by its id, and of the region of the image that it is to see, if not all of it.

    Raises:
        UnknownModelError: no card has that id.
    """
    return ModelChoice.of(find_card(read_catalogue(), model_id), intensity, region)


def open_session(
    volume: Volume,
    client: Client,
    model: ModelChoice,
    store: SegmentStore | None = None,
    prompt_store: PromptStore | None = None,
    on_outcome: Callable[[Outcome], None] = lambda _: None,
) -> Session:
    """A session that returns from every method when its answer is written, and raises what the request failed with.

    Nothing is asked before much is deleted: a script means what it says (``session.options.ask_above``).

    Args:
        volume: the image; an image of Slicer's by :func:`FoundationSegLib.mrml.volumes.volume_from_node`.
        client: who predicts; it gets the image.
        model: which model (:func:`choose`).
        store: where the segments are, such as :class:`FoundationSegLib.mrml.session_store.SceneStore`; plain arrays
            unless given.
        prompt_store: where the steps are kept with them.
        on_outcome: told of everything that happens.
    """
    options = Options(model, ask_above=None)
    return Session(
        volume,
        store or ArrayStore(volume.geometry),
        client,
        options,
        on_outcome,
        partial(finish, client=client),
        prompt_store=prompt_store,
        version=__version__,
    )


def segment_volumes(
    volumes: Iterable[tuple[Volume, PromptSet]], client: Client, model: ModelChoice
) -> Iterator[Session]:
    """One session for each image, its prompts answered; the image is let go when the next one is asked for.

    Raises:
        FoundationSegError: whatever the request of an image failed with; those before it are not touched.
    """
    for volume, prompts in volumes:
        session = open_session(volume, client, model)
        try:
            import_prompts(session, prompts)
            yield session
        finally:
            client.remove_volume(volume.key)


def classify_volume(
    volume: Volume,
    client: Client,
    model_id: str,
    labels: LabelSet | str | Sequence[str],
    *,
    subject: Subject | None = None,
    intensity: str = "auto",
    scoring: Scoring | None = None,
    aggregation: Aggregation | None = None,
    evidence: EvidenceWish | None = None,
    on_progress: OnProgress | None = None,
) -> Classification:
    """What a volume, some of its slices, a region or a segment shows, by words; returns when it is answered.

    Research use, not a diagnosis; scores are not calibrated probabilities. The client keeps the image: another question
    about it does not encode it again. Let go of it by ``client.remove_volume(volume.key)``.

    Args:
        volume: the image; an image of Slicer's by :func:`FoundationSegLib.mrml.volumes.volume_from_node`.
        client: who answers.
        model_id: the model's card.
        labels: a set of labels, the id of one, or the user's own words, of which one holds at most.
        subject: which part of the image; all slices across k, unless given.
        intensity: how it is seen.
        scoring, aggregation: how scores are made, and those of several slices joined.
        evidence: what to show of why, if anything.
        on_progress: told how far it is.

    Raises:
        FoundationSegError: whatever the request failed with.
    """
    client.send_volume(volume)
    request = ClassifyRequest(
        request_id=randbits(48),
        model_id=find_card(read_catalogue(), model_id).id,
        volume_key=volume.key,
        labels=choose_labels(labels),
        subject=subject or Subject(),
        intensity=intensity,
        scoring=scoring or Scoring(),
        aggregation=aggregation or Aggregation(),
        evidence=evidence,
    )
    return ask(client, request, on_progress)


def choose_labels(labels: LabelSet | str | Sequence[str]) -> LabelSet:
    """A set of labels by its id, or of the user's own words; a set is itself.

    Raises:
        InputError: no set has that id, or the words are no labels.
    """
    if isinstance(labels, LabelSet):
        return labels
    return find_label_set(read_label_sets(), labels) if isinstance(labels, str) else label_set_of(labels)
