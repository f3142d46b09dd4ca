"""Model cards: their fields, which are the schema of the TOML files, and the rules that hold for them."""

import re
from collections.abc import Mapping
from dataclasses import field, fields, is_dataclass, replace
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from ..codec import frozen
from ..errors import CardError, InputError, UnknownModelError, did_you_mean
from ..folders import is_hub_repository, is_pypi_name, is_safe_name, is_safe_path, is_secure_url
from ..imaging.intensity import check_policy
from .resource_files import check

PromptKind = Literal["point", "box", "scribble", "lasso", "mask", "text", "class"]
BodyRegion = Literal["head", "chest", "abdomen"]  # of the body, as :mod:`~.requests.domain` tells them apart
BODY_REGIONS: tuple[BodyRegion, ...] = get_args(BodyRegion)

# What a card may promise: by kind, the words for it, and the kinds that each word leads to.
TRANSLATIONS: Mapping[str, Mapping[str, tuple[PromptKind, ...]]] = {
    "point": {"box": ("box",)},
    "scribble": {"points": ("point",), "box": ("box",), "box+points": ("box", "point")},
    "lasso": {"box": ("box",), "box+points": ("box", "point")},
    "mask": {"box": ("box",)},
    "text": {"class": ("class",)},
    "class": {"text": ("text",)},
}


@frozen
class CheckpointFile:
    """One file of a checkpoint.

    Attributes:
        path: where the source keeps it, with forward slashes; of a release, the name that it has here.
        bytes: its size; None where the card says ``"unknown"``.
        sha256: 64 hexadecimal digits, or empty where it is not known.
        repository, revision: where it comes from, if not from the source's own repository; both or neither.
        url: of a file of a release, its address: https, or http on this machine itself.
    """

    path: str
    bytes: int | None
    sha256: str = ""
    repository: str = ""
    revision: str = ""
    url: str = ""

    @property
    def name(self) -> str:
        """The file's own name, without folders."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def name_at_source(self) -> str:
        """The name at the address of a file of a release; empty for others."""
        return urlsplit(self.url).path.rpartition("/")[2]


@frozen
class Source:
    """Source of a checkpoint: a Hub repository at a revision, a release, a wheel of the Python Package Index, or an
    adaptation.

    ``revision`` is a commit where one is known, else a branch or tag. ``download_bytes`` is what travels, where that is
    more or less than the files themselves. Of a release, whose files each have an address, ``repository`` is the path
    of its page on the same server, and ``revision`` the release's name. Of an adaptation, which was made on a computer
    of the user, ``repository`` is the id of its base and ``revision`` the day.
    """

    kind: Literal["hub", "release", "pypi-wheel", "adaptation"]
    repository: str
    revision: str
    files: tuple[CheckpointFile, ...]
    download_bytes: int | None = None

    @property
    def bytes(self) -> int:
        """Bytes to download, as far as they are known; see :attr:`bytes_known`."""
        return self.download_bytes or sum(file.bytes or 0 for file in self.files)

    @property
    def bytes_known(self) -> bool:
        """True where no part of :attr:`bytes` is missing."""
        return self.download_bytes is not None or all(file.bytes is not None for file in self.files)

    @property
    def comes_in_files(self) -> bool:
        """True where files are downloaded one by one, so that a download goes on from what has come."""
        return self.kind in ("hub", "release")

    @property
    def host(self) -> str:
        """The server of a release; empty for other sources."""
        return urlsplit(self.files[0].url).hostname or ""

    def origin(self, file: CheckpointFile) -> tuple[str, str]:
        """The repository and the revision that a file comes from."""
        return (file.repository, file.revision) if file.repository else (self.repository, self.revision)

    @property
    def origins(self) -> tuple[tuple[str, str], ...]:
        """Every repository with its revision, each once, in the order of the files."""
        return tuple(dict.fromkeys(self.origin(file) for file in self.files))


@frozen
class License:
    """The licence of the weights.

    Attributes:
        name: short, an SPDX identifier where there is one.
        commercial_use: ``"unclear"`` where the texts conflict; ``note`` then quotes them.
        url: where the text stands.
        note: what a person should know before accepting.
        must_accept: True where the terms restrict or are unclear: they are shown, and accepted once.
        version: which version of the terms the card describes. With another one, acceptance is asked for again.
    """

    name: str
    commercial_use: Literal["yes", "no", "unclear"]
    url: str = ""
    note: str = ""
    must_accept: bool = False
    version: str = "1"


@frozen
class LearnedFrom:
    """The origin of an adapted model.

    Attributes:
        base_sha256: the hash of the first file of its base, without which it means nothing.
        cases, patients, prompts: the numbers of images and patients that it learned from, and of prompts.
        made: the day, as 2026-11-30.
        version: of FoundationSeg.
        scores: a line for each kind of prompt, with the Dice before and after on what was held out.
    """

    base_sha256: str
    cases: int
    patients: int
    prompts: int
    made: str
    version: str
    scores: tuple[str, ...]


@frozen
class TrainingDomain:
    """Images that a model was trained on, beside which its scores mean nothing; see :mod:`~.requests.domain`.

    Attributes:
        modalities: DICOM codes.
        regions: parts of the body of which one has to be seen: head, chest, abdomen; empty for any.
        least_mm: how much of one of them has to be seen along the body, and of the image along each axis.
        sees_mm: the extent to the right, the front and the head about the image's middle that the model sees; empty for
            all of it.
        is_colour: True where images are in colour, False where they are grey; left out where both are taken.
        is_single: True where images are single pictures, as X-rays and photographs are, and no slices of a volume.
        is_warm: True where red outweighs green, and green blue, as in a photograph of the retina.
    """

    modalities: tuple[str, ...]
    regions: tuple[str, ...] = ()
    least_mm: float = 0.0
    sees_mm: tuple[float, ...] = ()
    is_colour: bool | None = None
    is_single: bool = False
    is_warm: bool = False


@frozen
class ModelCard:
    """One model.

    Attributes:
        id: the name used everywhere, e.g. ``"lite-medsam"``.
        family: the adapter, ``models/segmentation/<family>.py`` or ``models/classification/<family>.py`` by the task,
            with dashes as underscores.
        prompts: the kinds it understands; ``negative`` names those that it also understands as "not this".
        translations: kinds that it does not understand but that honestly come to others that it does, and to which, for
            example ``lasso = "box+points"``; see :mod:`.capabilities`.
        dimensions: 2 for slices, 3 for volumes, or both.
        channels: 1 for grey, 3 where colour is understood (grey is then repeated).
        good_at, bad_at: one sentence each.
        modalities: what it was trained on; empty for models that saw no medical images.
        intensity: the policy that fits, :mod:`~FoundationSegLib.imaging.intensity`.
        ct_channels: of a model to classify with that was trained to see CT through three windows, as red, green and
            blue: the lowest and the highest Hounsfield units of each; otherwise empty.
        input_8bit: True where the published recipe has the model see 8 bits.
        resolutions: the sides in pixels of the images that it may be shown, its own first; empty for no choice. At
            another one ``<id>@<side>`` names it: a draft that is faster and less exact.
        resolution: of a card that :func:`find_card` made for such a name, that side.
        light: True for a model made to answer at once on a computer without a graphics card.
        gated: True where the Hub hands the files out only to accounts that accepted its conditions.
        full_pickle: True where the file can only be read by running what is in it, so that it must be trusted.
        memory_mb: what inference takes at the peak, by device kind (cpu, cuda, mps), in MB.
        memory_basis: how each number of ``memory_mb`` is known, by the same device kinds.
        classes: the list of the names that it understands, a file of ``Resources/ClassLists`` without its ending.
        bytes_per_voxel: what a model of volumes takes on the host for each voxel of the image, beside the image; 0
            where it is not known. Where the voxels that it sees are more (``spacing_mm``), for each of those.
        spacing_mm: the voxels, of as many mm along each axis, that a model of volumes brings every image to; 0 where it
            takes images in the voxels that they have.
        can_be_tiled: True for a model of volumes that looks through a window and goes by nothing beyond it, so that
            words may be asked about an image in parts.
        packages: what pip has to install, with version ranges.
        unverified: fields of this card that are from memory, rounded, computed, or seen in one place alone that is not
            their source, e.g. ``source.files[0].bytes`` or ``license``; a field stands for all that is inside it. What
            the source can tell of them is asked before a download.
        replaces: the id of the shipped card in whose place a user's own card of the same id stands.
        figures: published figures of how good its answers are, a sentence for each with its source.
        base: of an adapted model the id of the card whose weights it changes; its own id is ``<base>+<name>``.
        learned_from: of an adapted model, its origin.
        domain: of a model to classify with that was trained on one kind of image, that kind.
        label_set: of a model that was trained to score certain labels, a file of ``Resources/LabelSets`` without its
            ending, or a set of the user's own; one whose ``prompts`` have no text scores no others.
    """

    id: str
    title: str
    task: Literal["segment", "classify"]
    family: str
    prompts: tuple[str, ...]
    dimensions: tuple[int, ...]
    channels: tuple[int, ...]
    source: Source
    license: License
    good_at: str
    bad_at: str
    citation: str
    negative: tuple[str, ...] = ()
    translations: Mapping[str, str] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    intensity: str = "auto"
    ct_channels: tuple[tuple[int, ...], ...] = ()
    input_8bit: bool = False
    resolutions: tuple[int, ...] = ()
    resolution: int = 0
    light: bool = False
    gated: bool = False
    full_pickle: bool = False
    memory_mb: Mapping[str, int] | None = None
    memory_basis: Mapping[str, Literal["measured", "published", "estimated"]] | None = None
    classes: str = ""
    bytes_per_voxel: int = 0
    spacing_mm: float = 0.0
    can_be_tiled: bool = False
    packages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    replaces: str = ""
    figures: tuple[str, ...] = ()
    base: str = ""
    learned_from: LearnedFrom | None = None
    domain: TrainingDomain | None = None
    label_set: str = ""

    @property
    def sees_volumes(self) -> bool:
        """True for a model that looks at whole volumes and never at slices."""
        return 2 not in self.dimensions

    def takes(self, kind: PromptKind) -> bool:
        """True where prompts of this kind can be given, be it that they are translated."""
        return kind in self.prompts or kind in self.translations

    @property
    def bytes_certain(self) -> bool:
        """True where the source's :attr:`~Source.bytes` is the whole of the download, and not in doubt."""
        doubtful = [self.is_unverified(f"source.files[{n}].bytes") for n in range(len(self.source.files))]
        return self.source.download_bytes is not None or (self.source.bytes_known and not any(doubtful))

    def is_unverified(self, field: str) -> bool:
        """True where a field, or one that it is inside of, stands in :attr:`unverified`."""
        return any(field == doubt or field.startswith((f"{doubt}.", f"{doubt}[")) for doubt in self.unverified)


def find_card(catalogue: Mapping[str, ModelCard], model_id: str) -> ModelCard:
    """The card of a model id, or of a model at one of its resolutions, such as ``edgetam@512``.

    Raises:
        UnknownModelError: there is none; the message names those there are.
    """
    name, _, side = model_id.partition("@")
    if side and name in catalogue:
        card, sides = catalogue[name], [str(size) for size in catalogue[name].resolutions]
        if side not in sides:
            known = f"it sees images of {' or '.join(sides)} pixels" if sides else "it has one resolution only"
            raise UnknownModelError(f"{card.title} cannot be shown images of {side[:20]!r} pixels; {known}")
        if side == sides[0]:
            return card
        return replace(card, id=model_id, title=f"{card.title}, draft ({side} pixels)", resolution=int(side))
    if model_id not in catalogue:
        near = did_you_mean(model_id, catalogue)
        known = f"{near and f'{near} '}there are: {', '.join(catalogue)}"
        raise UnknownModelError(f"no model is called {model_id!r}; {known}")
    return catalogue[model_id]


_ID = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
_ADAPTED_ID = re.compile(rf"({_ID.pattern})\+{_ID.pattern}")
_FAMILY = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SHA256 = re.compile(r"([0-9a-f]{64})?")
# A name, extras and a version range of PEP 508: no address and no option, since it is handed to pip.
_PACKAGE = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[a-z0-9,._-]+\])?"
    r"((===?|!=|<=|>=|<|>|~=)[0-9][A-Za-z0-9.*+!]*(,(===?|!=|<=|>=|<|>|~=)[0-9][A-Za-z0-9.*+!]*)*)?"
)
_FIELD_STEP = re.compile(r"(?:^|\.)([a-z0-9_]+)|\[([0-9]{1,4})\]")
_LONGEST_ID = 64
_DEVICES = {"cpu", "cuda", "mps"}


def check_card(card: ModelCard, origin: str) -> None:
    """Hold a card against the rules.

    Raises:
        CardError: one is broken; the message names the field.
    """
    _check_identity(card, origin)
    _check_abilities(card, origin)
    _check_memory(card, origin)
    for n, package in enumerate(card.packages):
        check(_PACKAGE.fullmatch(package), f"{origin}: packages[{n}]: {package!r} is no name with a version range")
    _check_source(card.source, f"{origin}: source")
    _check_license(card.license, f"{origin}: license")
    for n, name in enumerate(card.unverified):
        check(_has_field(card, name), f"{origin}: unverified[{n}]: the card has no field {name!r}")


def _check_identity(card: ModelCard, origin: str) -> None:
    is_id = (
        (_ADAPTED_ID if card.base else _ID).fullmatch(card.id) and is_safe_name(card.id) and len(card.id) <= _LONGEST_ID
    )
    check(is_id, f"{origin}: id: {card.id!r} needs small letters, digits, dots and dashes, and no name of a device")
    is_family = _FAMILY.fullmatch(card.family) and is_safe_name(card.family)
    check(is_family, f"{origin}: family: {card.family!r} is not a name")
    is_adapted = bool(card.base) == (card.learned_from is not None) == (card.source.kind == "adaptation")
    check(is_adapted, f"{origin}: base: goes with learned_from and a source of the kind adaptation")
    fits = not card.base or (card.id.startswith(f"{card.base}+") and card.source.repository == card.base)
    check(fits, f"{origin}: base: {card.base!r} is not what the id and the source begin with")
    check(card.replaces in ("", card.id), f"{origin}: replaces: must be the card's own id, {card.id!r}, or empty")


def _check_abilities(card: ModelCard, origin: str) -> None:
    unknown = set(card.prompts) - set(get_args(PromptKind))
    check(not unknown, f"{origin}: prompts: unknown kinds {sorted(unknown)}")
    check(card.prompts or card.task == "classify", f"{origin}: prompts: a model to segment with needs one")
    check(set(card.negative) <= set(card.prompts), f"{origin}: negative: names kinds that prompts does not")
    _check_translations(card, origin)
    if card.domain is not None:
        check(card.task == "classify", f"{origin}: domain: is for models to classify with")
        check(card.domain.modalities, f"{origin}: domain.modalities: is empty")
        regions = ", ".join(sorted(BODY_REGIONS))
        check(set(card.domain.regions) <= set(BODY_REGIONS), f"{origin}: domain.regions: must be of {regions}")
        check(len(card.domain.sees_mm) in (0, 3), f"{origin}: domain.sees_mm: must be to the right, front and head")
        check(0 <= card.domain.least_mm < 2000, f"{origin}: domain.least_mm: must be 0 or above, and below 2 m")
    is_list = not card.classes or (_FAMILY.fullmatch(card.classes) and "class" in card.prompts)
    check(is_list, f"{origin}: classes: {card.classes!r} is no name, or the model understands no class names")
    is_trained = not card.label_set or (_FAMILY.fullmatch(card.label_set) and card.task == "classify")
    check(is_trained, f"{origin}: label_set: {card.label_set!r} is no name, or the model is not one to classify with")
    check(card.dimensions and set(card.dimensions) <= {2, 3}, f"{origin}: dimensions: must be 2, 3 or both")
    check(card.channels and set(card.channels) <= {1, 3}, f"{origin}: channels: must be 1, 3 or both")
    check(all(64 <= side <= 2048 for side in card.resolutions), f"{origin}: resolutions: must be within 64 and 2048")
    check(not card.resolution, f"{origin}: resolution: is not for files; name the choices in resolutions")
    lists = ("prompts", "negative", "dimensions", "channels", "modalities", "packages", "unverified", "resolutions")
    for name in lists:
        check(len(set(getattr(card, name))) == len(getattr(card, name)), f"{origin}: {name}: names something twice")
    are_windows = all(len(window) == 2 and window[0] < window[1] for window in card.ct_channels)
    fits = not card.ct_channels or (len(card.ct_channels) == 3 and card.task == "classify" and 3 in card.channels)
    check(are_windows and fits, f"{origin}: ct_channels: needs the lowest and highest value of red, green and blue")
    try:
        check_policy(card.intensity)
    except InputError as error:
        raise CardError(f"{origin}: intensity: {error}") from error


def _check_translations(card: ModelCard, origin: str) -> None:
    for kind, target in card.translations.items():
        location = f"{origin}: translations.{kind}"
        check(kind not in card.prompts, f"{location}: is a kind that prompts names")
        targets = TRANSLATIONS.get(kind, {})
        check(target in targets, f"{location}: must be one of {', '.join(targets) or 'nothing at all'}, not {target!a}")
        named = set(targets.get(target, ())) <= set(card.prompts)
        check(named, f"{location}: leads to kinds that prompts does not name")


def _check_memory(card: ModelCard, origin: str) -> None:
    memory, basis = card.memory_mb or {}, card.memory_basis or {}
    check(set(memory) <= _DEVICES, f"{origin}: memory_mb: must be of cpu, cuda or mps")
    for device, amount in memory.items():
        check(0 < amount < 10**7, f"{origin}: memory_mb.{device}: must be above 0 and below 10 TB")
    check(0 <= card.bytes_per_voxel < 10**4, f"{origin}: bytes_per_voxel: must be 0 or above, and below 10 kB")
    check(
        card.sees_volumes or not (card.bytes_per_voxel or card.can_be_tiled or card.spacing_mm),
        f"{origin}: bytes_per_voxel, can_be_tiled, spacing_mm: say something of models of whole volumes only",
    )
    check(0 <= card.spacing_mm < 100, f"{origin}: spacing_mm: must be 0 or above, and below 100 mm")
    check(set(basis) == set(memory), f"{origin}: memory_basis: must say of every number of memory_mb how it is known")


def _check_source(source: Source, location: str) -> None:
    _check_origin(source.kind, source.repository, source.revision, location)
    check(source.download_bytes is None or source.download_bytes > 0, f"{location}: download_bytes must be above 0")
    check(source.files, f"{location}: files: is empty")
    for n, file in enumerate(source.files):
        _check_file(file, source, f"{location}: files[{n}]")
        # The store keeps a model's files side by side, and some systems do not tell case apart.
        earlier = {other.name.casefold() for other in source.files[:n]}
        check(file.name.casefold() not in earlier, f"{location}: files[{n}]: path: the name stands twice")


def _check_file(file: CheckpointFile, source: Source, location: str) -> None:
    check(_SHA256.fullmatch(file.sha256), f"{location}: sha256: must be 64 hexadecimal digits or empty")
    check(file.bytes is None or file.bytes > 0, f"{location}: bytes: must be above 0")
    check(is_safe_path(file.path), f"{location}: path: {file.path!r} leaves its folder or names no file")
    if source.kind == "release":
        check(is_secure_url(file.url), f"{location}: url: must be the https address of the file")
        check(file.sha256 and file.bytes, f"{location}: sha256: a file of a release needs its hash and its bytes")
    check(source.kind == "release" or not file.url, f"{location}: url: only files of a release have one")
    are_both = bool(file.repository) == bool(file.revision)
    check(are_both, f"{location}: revision: goes with a repository of the file's own")
    if file.repository:
        check(source.kind == "hub", f"{location}: repository: only files from the Hub have one of their own")
        _check_origin(source.kind, file.repository, file.revision, location)


def _check_origin(kind: str, repository: str, revision: str, location: str) -> None:
    has_owner = kind in ("hub", "release")
    is_name = is_hub_repository(repository) if has_owner else is_pypi_name(repository)
    form = "owner/name" if has_owner else "a project's name"
    check(is_name, f"{location}: repository: {repository!r} is not {form}")
    # The revision names a folder of the store.
    is_revision = is_safe_name(revision) and " " not in revision
    check(is_revision, f"{location}: revision: {revision!r} is no commit, tag or branch")


def _check_license(terms: License, location: str) -> None:
    check(not terms.url or re.fullmatch(r"https://\S+", terms.url), f"{location}: url: must begin with https://")
    check(terms.version, f"{location}: version: is empty")
    is_clear = terms.commercial_use != "unclear"
    check(is_clear or terms.note, f"{location}: note: must quote the texts that leave commercial use unclear")


def _has_field(card: ModelCard, field: str) -> bool:
    """True where a path such as ``source.files[0].bytes`` leads to something in the card."""
    steps = _FIELD_STEP.findall(field)
    if not steps or "".join(f".{name}" if name else f"[{index}]" for name, index in steps) != f".{field}":
        return False
    value: Any = card
    for name, index in steps:
        if is_dataclass(value):
            inner: Mapping[Any, Any] = {item.name: getattr(value, item.name) for item in fields(value)}
        else:
            inner = dict(enumerate(value)) if isinstance(value, tuple) else value if isinstance(value, dict) else {}
        key = int(index) if index else name
        if key not in inner:
            return False
        value = inner[key]
    return True
