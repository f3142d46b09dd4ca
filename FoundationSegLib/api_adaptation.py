"""Learning for scripts: models from corrected segments, which are kept only if they are better, and labels.

::

    volume = read_volume(Path("ct.nii.gz"))
    segments = corrected(volume, {"liver": liver_kji, "spleen": spleen_kji}, patient="A")
    with closing(Installation().open_client()) as client:
        result = adapt([volume], segments, client, "lite-medsam", "abdomen")
    if result.passed:
        keep(result)  # from now on there is a model "lite-medsam+abdomen"

Labels are learned from a table of images by :func:`learn_head`, and used by ``classify(..., "head:NAME")``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from secrets import randbits
from typing import Any

from .catalog.catalogue import adapted_id, read_catalogue
from .catalog.model_cards import ModelCard, find_card
from .errors import InputError
from .hub.exchange import discard_adaptation, keep_adaptation
from .hub.store import Store, default_store_folder
from .imaging.masks import PackedMask, pack_mask
from .imaging.volume import Volume
from .progress import Progress
from .requests.adaptation import (
    Adaptation,
    AdaptRequest,
    CorrectedSegment,
    KindScores,
    SimilarObjects,
    SimilarRequest,
    Training,
)
from .requests.heads import LearnedHead, LearnHeadRequest, require_new, write_head
from .requests.maintenance import WorkerSettings
from .worker.client import Client, OnProgress, ask


def corrected(
    volume: Volume, masks: Mapping[str, Any], patient: str, *, elsewhere: bool = False
) -> list[CorrectedSegment]:
    """List the corrected segments of an image.

    Args:
        volume: the image.
        masks: by name, (K, J, I) arrays whose nonzero voxels are in the segment, or packed masks.
        patient: whom the image shows; images of one patient are never parted into training and test.
        elsewhere: nothing is learned from them: they show what is lost on other images.
    """
    packed = {name: mask if isinstance(mask, PackedMask) else pack_mask(mask) for name, mask in masks.items()}
    return [CorrectedSegment(volume.key, name, patient, mask, elsewhere) for name, mask in packed.items()]


def settings_for(volumes: Iterable[Volume], settings: WorkerSettings | None = None) -> WorkerSettings:
    """Settings of a worker that keeps all these images: the usual ones, with as much memory as they take."""
    settings = settings or WorkerSettings()
    needed = sum({volume.key: volume.array_kji.nbytes for volume in volumes}.values())
    budget = replace(settings.budget, volumes=max(settings.budget.volumes, needed))
    return replace(settings, budget=budget, encode_ahead=False)


def adapt(
    volumes: Iterable[Volume],
    segments: Sequence[CorrectedSegment],
    client: Client,
    model: ModelCard | str,
    name: str,
    *,
    intensity: str = "auto",
    training: Training | None = None,
    on_progress: OnProgress | None = None,
    catalogue: Mapping[str, ModelCard] | None = None,
) -> Adaptation:
    """Adapt a model of SAM's family to corrected segments. The result waits to be kept; its base is never touched.

    Minutes of work. The same call goes on where one was stopped, from the last 50 steps on.

    Args:
        volumes: the images.
        segments: what was corrected in them, by :func:`corrected`.
        client: does the work; a worker's budget has to hold the images, see :func:`settings_for`.
        model: the base.
        name: of the result, whose id is ``<base>+<name>``.
        intensity: the intensity policy.
        training: settings.
        on_progress: called with each report; :func:`~.requests.adaptation.curve_point` reads the curve from it.
        catalogue: the cards; read anew unless given.

    Raises:
        InputError: the model cannot be adapted, the name is taken, or there is too little to learn from and to test on.
        FoundationSegError: whatever the request failed with.
    """
    catalogue = read_catalogue() if catalogue is None else catalogue
    base = model if isinstance(model, ModelCard) else find_card(catalogue, model)
    require_free(adapted_id(base, name), catalogue)
    for volume in volumes:
        client.send_volume(volume)
    request = AdaptRequest(randbits(48), base.id, name, tuple(segments), intensity, training or Training())
    return ask(client, request, on_progress)


def learn_head(
    table: Path,
    client: Client,
    model: str,
    name: str,
    *,
    on_progress: OnProgress | None = None,
    **choices: Any,
) -> LearnedHead:
    """Learn labels from a table of images (``image,label[,patient]``), and keep them as ``head:NAME``.

    ::

        head = learn_head(Path("cases.csv"), client, "lite-medsam", "contrast", kind="findings")
        print(head.origin["measured"]["auc"])  # on held-out patients: value, and 95 % interval

    Args:
        table: its paths are relative to it.
        client: a worker's, whose Python has scikit-learn.
        model: whose vectors.
        name: of the head; there is none of that name yet.
        on_progress: called with each report.
        choices: the other attributes of :class:`~.requests.heads.LearnHeadRequest`.

    Raises:
        InputError: there is too little to learn from, or a head of that name.
        FoundationSegError: whatever the request failed with.
    """
    require_new(name)
    head: LearnedHead = ask(client, LearnHeadRequest(randbits(48), model, table, name, **choices), on_progress)
    write_head(head)
    return head


def find_similar(
    volume: Volume,
    mask: Any,
    client: Client,
    model: ModelCard | str,
    targets: Sequence[Volume] = (),
    *,
    intensity: str = "auto",
    most: int = 12,
    on_progress: OnProgress | None = None,
) -> SimilarObjects:
    """Find more objects like one: proposals, none of which is anything before somebody accepts it.

    ::

        answer = find_similar(volume, session.mask(lesion), client, "lite-medsam", [volume, earlier])
        boxes = [box_prompt(one.box, volume.geometry) for one in answer.proposals if one.volume_key == volume.key]
        add_objects(session, boxes, "Lesion", group="Lesions")

    Every slice of the targets is encoded, once. The evidence page says where this is better than thresholds.

    Args:
        volume: the image of the example.
        mask: its voxels: (K, J, I), nonzero inside, or a packed mask.
        client: does the work; a worker's budget has to hold the images, see :func:`settings_for`.
        model: a model that takes boxes on slices.
        targets: the images to search; that of the example unless given.
        intensity: the intensity policy.
        most: so many proposals of each image at most.
        on_progress: called with each report.

    Raises:
        InputError: the example is empty, or the model takes no boxes on slices.
        FoundationSegError: whatever the request failed with.
    """
    targets = targets or (volume,)
    for image in (volume, *targets):
        client.send_volume(image)
    packed = mask if isinstance(mask, PackedMask) else pack_mask(mask)
    keys = tuple(image.key for image in targets)
    model_id = model.id if isinstance(model, ModelCard) else model
    request = SimilarRequest(randbits(48), model_id, volume.key, packed, keys, intensity, most=most)
    return ask(client, request, on_progress)


def require_free(model_id: str, catalogue: Mapping[str, ModelCard]) -> None:
    """Make sure that no model has an id yet.

    Raises:
        InputError: one has.
    """
    if model_id in catalogue:
        remedy = f"choose another name, or run 'foundationseg models remove {model_id} --yes' first"
        raise InputError(f"there is a {model_id} already; {remedy}")


def keep(result: Adaptation, store: Store | None = None, catalogue: Mapping[str, ModelCard] | None = None) -> ModelCard:
    """Make a result that has passed a model like any other: listed, verified, exported and removed by its id.

    Raises:
        InputError: it is not better than its base beyond chance.
        CheckpointError: it is not there any more, or cannot be stored.
    """
    if not result.passed:
        raise InputError(f"{result.model_id} is not better than {result.base} beyond chance, and is not kept")
    catalogue = read_catalogue() if catalogue is None else catalogue
    return keep_adaptation(store or Store(default_store_folder()), catalogue, result.model_id, Progress())


def discard(result: Adaptation, store: Store | None = None) -> None:
    """Remove a result that waits to be kept; it is no error if it is gone."""
    discard_adaptation(store or Store(default_store_folder()), result.model_id)


def adaptation_document(result: Adaptation) -> dict[str, Any]:
    """A result as JSON values, with the kinds of prompts that passed."""
    document = asdict(replace(result, examples=())) | {"passed": list(result.passed)}
    del document["examples"]
    for kinds in ("kinds", "elsewhere"):
        scores: tuple[KindScores, ...] = getattr(result, kinds)
        document[kinds] = [asdict(score) | {"passed": score.passed} for score in scores]
    return document
