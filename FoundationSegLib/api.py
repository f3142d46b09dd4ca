"""Segmentation, classification and models for scripts. Every function returns when its answer is there.

Images and segments are plain values here; :mod:`.api_nodes` does the same on nodes of Slicer's scene. A script that
predicts opens a worker first, and closes it at the end::

    from contextlib import closing
    from FoundationSegLib.api import Installation, segment
    from FoundationSegLib.io.images import read_volume

    volume = read_volume(Path("ct.nii.gz"))
    with closing(Installation().open_client()) as client:
        session = segment(volume, "prompts.json", client, "lite-medsam")
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from secrets import randbits
from typing import Any

from . import __version__
from .catalog.catalogue import read_catalogue
from .catalog.label_sets import LabelSet, find_label_set, label_set_of, read_label_sets
from .catalog.model_cards import ModelCard, find_card
from .codec import frozen, to_document
from .errors import FoundationSegError, InputError
from .hub.fetch import has_login, is_accepted, must_accept, require_fetchable
from .hub.store import Store, default_store_folder, describe, free_bytes
from .hub.store import model_document as model_document
from .imaging.volume import Volume
from .installation.inspection import DeviceReport as DeviceReport  # "as": also for the panel, which imports no package
from .installation.inspection import PythonReport, inspect_python, without_paths
from .installation.inspection import has_nvidia_driver as has_nvidia_driver
from .installation.packages import FROM_EXTENSION as FROM_EXTENSION
from .installation.packages import PackagePlan as PackagePlan
from .installation.packages import canonical as canonical
from .installation.packages import requirement_name, requirements_of
from .installation.private_environment import private_root as private_root
from .installation.private_environment import room_and_minutes as room_and_minutes
from .installation.readiness import MissingRequirement as MissingRequirement
from .installation.readiness import Readiness, Stored, assess
from .installation.readiness import Step as Step
from .installation.readiness import next_step as next_step
from .progress import ProgressReport
from .prompts.kinds import PromptSet
from .prompts.prompts_file import parse_prompts, read_prompts
from .prompts.regions import Region
from .requests.classification import ClassifyRequest, EvidenceWish, Subject
from .requests.classification_answer import Classification
from .requests.heads import PREFIX, LearnedHead, read_head
from .requests.maintenance import DownloadRequest, InspectRequest, WorkerSettings
from .requests.scoring import Aggregation, Scoring
from .requests.segmentation import Propagation
from .requests.uncertainty import ANSWERS, UncertaintyMap, uncertainty, uncertainty_request
from .session.measures import repeated_request
from .session.segment_store import ArrayStore, Options, Outcome, PromptStore, SegmentStore
from .session.segments import SegmentSession, import_prompts
from .session.session import Session
from .session.steps import ModelChoice
from .worker.client import Client, OnProgress, ask, finish
from .worker.process import Timeouts, wants_offline, worker_command
from .worker.process_client import ProcessClient

Model = ModelChoice | ModelCard | str
Prompts = PromptSet | dict[str, Any] | Path | str
_DIAGNOSED = ("torchvision", "SimpleITK", "safetensors", "pip")  # beside the packages that some model needs


def __getattr__(name: str) -> Any:
    """Load :func:`.api_adaptation.adapt` with its first use: the panel opens sooner without it."""
    if name != "adapt":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .api_adaptation import adapt

    return adapt


def ignore(_: object) -> None:
    """Let an outcome pass."""


# Segmentation


def choose(model: Model, intensity: str = "auto", region: Region | None = None) -> ModelChoice:
    """Choose a model by its id or card, with the intensity policy and the region of the image that it sees.

    Example::

        model = choose("lite-medsam", intensity="ct-lung")

    Raises:
        UnknownModelError: no card has that id.
    """
    if isinstance(model, ModelChoice):
        return model
    return ModelChoice.of(_card(model), intensity, region)


def load_prompts(prompts: Prompts) -> PromptSet:
    """Read prompts from a ``prompts.json`` file, or from its decoded content; a prompt set is returned as it is.

    Raises:
        InputError, PromptError: they cannot be read, or make no sense.
    """
    if isinstance(prompts, PromptSet):
        return prompts
    return parse_prompts(prompts) if isinstance(prompts, dict) else read_prompts(Path(prompts))


def open_session(
    volume: Volume,
    client: Client,
    model: Model,
    store: SegmentStore | None = None,
    prompt_store: PromptStore | None = None,
    on_outcome: Callable[[Outcome], None] = ignore,
) -> Session:
    """Open a session: prompt by prompt, with undo. Its methods wait, and raise what the request failed with.

    Much may be deleted without being asked for: a script means what it says (``session.options.ask_above``).

    Example::

        session = open_session(volume, client, "lite-medsam")
        liver = new_segment(session, "Liver")
        liver.add(BoxPrompt(((-53.0, -30.0, 5.0), (-111.0, -90.0, 25.0))))
        session.undo(liver.segment_id)

    Args:
        volume: the image.
        client: answers the requests; it is sent the image.
        model: a model's id, its card, or a choice by :func:`choose`.
        store: keeps the segments; plain arrays unless given.
        prompt_store: keeps the steps with them.
        on_outcome: called with everything that happens.
    """
    store = store or ArrayStore(volume.geometry)
    session = Session(
        volume,
        store,
        client,
        Options(choose(model), ask_above=None),
        on_outcome,
        partial(finish, client=client),
        prompt_store=prompt_store,
        version=__version__,
    )
    session.listeners += [store.describe] if prompt_store is None else [store.describe, session.history.keep_steps]
    return session


def segment(volume: Volume, prompts: Prompts, client: Client, model: Model) -> Session:
    """Segment an image by prompts. Returns the session, in which the segments are.

    Example::

        session = segment(volume, "prompts.json", client, "lite-medsam")

    Raises:
        FoundationSegError: the prompts make no sense, or whatever the request failed with.
    """
    prompt_set = load_prompts(prompts)
    session = open_session(volume, client, model)
    import_prompts(session, prompt_set)
    return session


def segment_volumes(volumes: Iterable[tuple[Volume, Prompts]], client: Client, model: Model) -> Iterator[Session]:
    """Segment several images, one after the other; the client drops an image when the next one is asked for.

    Example::

        images = ((read_volume(path), "prompts.json") for path in Path("scans").glob("*.nii.gz"))
        for session in segment_volumes(images, client, "lite-medsam"):
            print(session.volume.name)

    Raises:
        FoundationSegError: whatever the request of an image failed with; the images before it are finished.
    """
    for volume, prompts in volumes:
        try:
            yield segment(volume, prompts, client, model)
        finally:
            client.remove_volume(volume.key)


def find_segment(session: Session, name: str) -> SegmentSession:
    """Find the segment of a name.

    Raises:
        InputError: there is none, or more than one.
    """
    keys = [key for key in session.segment_ids if session.segment_name(key) == name]
    if len(keys) != 1:
        raise InputError(f"{len(keys)} segments are called {name!r}: name one that is there once")
    return SegmentSession(session, keys[0])


def propagate(session: Session, name: str, propagation: Propagation | None = None) -> None:
    """Carry a segment on through the volume from its prompts, or from the slices that were drawn by hand.

    Example::

        propagate(session, "Liver", Propagation(start=10, stop=40, direction="up"))

    Raises:
        InputError: there is no such segment, or nothing to start from.
        FoundationSegError: whatever the request failed with.
    """
    find_segment(session, name).propagate(propagation)


def map_uncertainty(session: Session, name: str, client: Client, answers: int = ANSWERS) -> UncertaintyMap:
    """Map how far the answers to jittered prompts of a segment disagree; nothing is changed.

    Example::

        uncertain = map_uncertainty(session, "Liver", client)
        print(uncertain.slices.doubtful)

    Raises as :func:`~.requests.uncertainty.uncertainty_request`, :func:`propagate` and the request itself.
    """
    request = repeated_request(session, find_segment(session, name).segment_id)
    request = uncertainty_request(request, session.volume.geometry, answers)
    return uncertainty(ask(client, replace(request, request_id=next(session.numbers))), answers)


# Classification


def classify(
    volume: Volume,
    client: Client,
    model: ModelCard | str,
    labels: LabelSet | LearnedHead | str | Sequence[str],
    *,
    subject: Subject | None = None,
    intensity: str = "auto",
    scoring: Scoring | None = None,
    aggregation: Aggregation | None = None,
    evidence: EvidenceWish | None = None,
    any_domain: bool = False,
    on_progress: OnProgress | None = None,
) -> Classification:
    """Score labels in words on a volume, some of its slices, a region or a segment.

    Research use, not a diagnosis; scores are not calibrated probabilities. The client keeps the image: another question
    about it does not encode it again. Drop it by ``client.remove_volume(volume.key)``.

    Example::

        answer = classify(volume, client, "biomedclip", ["liver", "kidney"])
        print(answer.verdict)

    Args:
        volume, client: the image, and what answers the request.
        model: the model's id or card; a head has its own.
        labels: a set of labels, its id, a learned head, ``head:NAME``, or own words, of which one holds at most.
        subject: the part of the image; all slices across k, unless given.
        intensity, evidence: the intensity policy, and the label to show evidence for, if any.
        scoring, aggregation: how scores are made, and those of several slices joined.
        any_domain: score an image of a kind that the model was not trained on, too; the answer says so.
        on_progress: called with each report.

    Raises:
        FoundationSegError: whatever the request failed with.
    """
    client.send_volume(volume)
    chosen = choose_labels(labels)
    head = chosen if isinstance(chosen, LearnedHead) else None
    request = ClassifyRequest(
        request_id=randbits(48),
        model_id=head.checkpoint.model_id if head else _card(model).id,
        volume_key=volume.key,
        labels=head.label_set() if head else chosen,
        subject=subject or Subject(head.axis if head else "k"),
        intensity=head.intensity if head and intensity == "auto" else intensity,
        scoring=scoring or Scoring(),
        aggregation=aggregation or Aggregation(),
        evidence=evidence,
        head=head,
        any_domain=any_domain,
    )
    return ask(client, request, on_progress)


def choose_labels(labels: LabelSet | LearnedHead | str | Sequence[str]) -> Any:
    """Choose a label set by its id or a head as ``head:NAME``, or make a set of own words; raises an InputError."""
    if isinstance(labels, LabelSet | LearnedHead):
        return labels
    if isinstance(labels, str) and labels.startswith(PREFIX):
        return read_head(labels.removeprefix(PREFIX))
    return find_label_set(read_label_sets(), labels) if isinstance(labels, str) else label_set_of(labels)


# Models


def models() -> list[dict[str, Any]]:
    """List every model as ``models list --json`` does, with ``ready`` and what it ``lacks``, on this Python.

    Example::

        ready = [model["id"] for model in models() if model["ready"]]
    """
    return Installation().models()


def download(
    model_id: str, *, accept_license: bool = False, on_progress: Callable[[ProgressReport], None] | None = None
) -> None:
    """Download a model's checkpoint into the user's store; one that is there is left alone.

    Example::

        download("lite-medsam")

    Raises: as :meth:`Installation.download`.
    """
    Installation().download(model_id, accept_license=accept_license, on_progress=on_progress)


def package_names(catalogue: Mapping[str, ModelCard]) -> tuple[str, ...]:
    """Name every package that some model needs, and some that a diagnosis names; each once."""
    requirements = (text for card in catalogue.values() for text in requirements_of(card, to_download=True))
    return tuple(dict.fromkeys([*map(requirement_name, requirements), *_DIAGNOSED]))


@frozen
class Installation:
    """The checkpoints on this computer, and the Python that runs the models.

    Example::

        installation = Installation(WorkerSettings(device="cpu"), python="/opt/torch/bin/python")
        print(installation.model_state("medsam")["lacks"])

    Attributes:
        settings: device, memory, and the folder of the checkpoints.
        python: the program; empty for the running Python.
        inherited: the environment that the worker starts with, where a login may be; this process's own for None.
    """

    settings: WorkerSettings = field(default_factory=WorkerSettings)
    python: str = ""
    inherited: Mapping[str, str] | None = None

    @property
    def store(self) -> Store:
        """The store of checkpoints, in the user's usual folder unless the settings name another."""
        return Store(self.settings.store_folder or default_store_folder())

    def open_client(self, timeouts: Timeouts | None = None) -> ProcessClient:
        """Open a client. Its worker starts with the first request; close the client at the end."""
        return ProcessClient(self.settings, worker_command(self.python), timeouts or Timeouts(), self.inherited)

    def inspect(self, *, devices: bool = False) -> PythonReport:
        """Look up the packages of this Python: about 0.1 s where that is not the running one.

        With ``devices`` also what PyTorch can compute on, for which it is imported there: seconds.

        Raises:
            InputError: there is no such Python, or it is none.
        """
        names = package_names(read_catalogue())
        if not self.python and not devices:
            return inspect_python(names, self.settings.packages_folder)
        with closing(self.open_client()) as client:
            report: PythonReport = ask(client, InspectRequest(1, names, devices))
        return report

    def readiness(self, card: ModelCard, report: PythonReport | None) -> Readiness:
        """Assess what is missing before a model can be used; nothing of packages without a report on the Python."""
        store = self.store
        stored = Stored(
            store.status(card),
            store.bytes_here(card),
            free_bytes(store.folder),
            must_accept(card),
            is_accepted(store, card),
            has_login(self.inherited),
        )
        return assess(card, report, stored, self.settings.device)

    def models(self) -> list[dict[str, Any]]:
        """List every model as :func:`models` does, on this Python.

        Raises:
            InputError: this Python gives no answer.
        """
        report = self.inspect()
        return [self._state(card, report) for card in read_catalogue().values()]

    def model_state(self, model_id: str) -> dict[str, Any]:
        """Describe one model, as :meth:`models` does.

        Raises:
            UnknownModelError: no card has that id.
            InputError: this Python gives no answer.
        """
        return self._state(_card(model_id), self.inspect())

    def _state(self, card: ModelCard, report: PythonReport) -> dict[str, Any]:
        readiness = self.readiness(card, report)
        lacks = [to_document(requirement) for requirement in readiness.missing]
        return describe(card, self.store) | {"ready": readiness.is_ready, "lacks": lacks}

    def download(
        self,
        model_id: str,
        *,
        accept_license: bool = False,
        on_progress: Callable[[ProgressReport], None] | None = None,
    ) -> None:
        """Download a model's checkpoint, by a worker of its own.

        Args:
            model_id: the card's id.
            accept_license: the user accepts the model's terms now.
            on_progress: called with each report.

        Raises:
            UnknownModelError: no card has that id.
            CheckpointError: its terms have to be accepted first, or the download fails; what has arrived is kept.
        """
        card = _card(model_id)
        require_fetchable(card, accept_license=accept_license, store=self.store)
        with closing(self.open_client()) as client:
            ask(client, DownloadRequest(1, card.id, accept_license), on_progress)

    def remove(self, model_id: str) -> int:
        """Remove everything that is stored of a model. Returns the room that this frees, in bytes.

        Raises:
            UnknownModelError: no card has that id.
            CheckpointError: another program is downloading it right now, or a folder cannot be removed.
        """
        from .hub import plan as hub_plan  # with all that downloads need, which a panel does not wait for

        card, store = _card(model_id), self.store
        plan = hub_plan.plan_removal(store, card)
        if plan.folders:
            hub_plan.remove(store, card, plan)
        return plan.bytes_freed

    def removable(self, cards: Iterable[ModelCard]) -> list[tuple[ModelCard, int]]:
        """List the models of which anything is stored, with what each takes, in bytes."""
        from .hub.plan import plan_removal

        plans = [(card, plan_removal(self.store, card)) for card in cards]
        return [(card, plan.bytes_freed + plan.bytes_shared) for card, plan in plans if plan.folders]

    def diagnosis(
        self, software: Sequence[tuple[str, str]] = (), report: PythonReport | FoundationSegError | None = None
    ) -> dict[str, Any]:
        """Describe this computer as JSON values for somebody who helps. Names no folder and no person.

        Args:
            software: names and versions of what runs this.
            report: the answer of the Python, or why there is none; asked for unless given, which takes seconds.
        """
        if report is None:
            try:
                report = self.inspect(devices=True)
            except FoundationSegError as error:
                report = error
        python, problem = None, ""
        if isinstance(report, FoundationSegError):
            problem = without_paths(str(report))
        else:
            python = to_document(report)
            if python["devices"] is not None:  # texts of other programs
                python["devices"]["problem"] = without_paths(python["devices"]["problem"])
        store = self.store
        stored = self.removable(read_catalogue().values())
        return {
            "software": dict([("FoundationSeg", __version__), *software]),
            "python": python,
            "problem": problem,
            "is_own_python": not self.python,
            "store_bytes": sum(size for _, size in stored),
            "free_bytes": free_bytes(store.folder),
            "store_is_usual": store.folder == default_store_folder(),
            "models": {card.id: store.status(card) for card, _ in stored},
            "is_offline": wants_offline(self.inherited),
        }


def _card(model: ModelCard | str) -> ModelCard:
    return model if isinstance(model, ModelCard) else find_card(read_catalogue(), model)
