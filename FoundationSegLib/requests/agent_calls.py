"""Calls of agents: the tools that a program with a language model may use, their arguments, and their answers.

:data:`TOOLS` is the table. A call is read by :func:`parse_call`, done by :class:`FoundationSegLib.agent_session`, and
offered by :mod:`FoundationSegLib.mcp_server`. None of them runs code, downloads, or deletes a file.
Standard library alone.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from ..codec import Format, from_document, frozen
from ..errors import DocumentError, InputError, OutputError

Rows = tuple[Mapping[str, Any], ...]

SENDS_PICTURES = (
    "An agent may send pictures, names and measurements of your images to a remote model. "
    "Allow it only for images that may leave this computer."
)
_STRICT = Format(longest_text=2000)
_MOST_ITEMS = 1000  # of a list in a call
_LONGEST_PATH = 1000
_UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')  # control characters, drives, wildcards, Windows' separators


@frozen
class ListImages:
    """List the images that can be named in other calls."""


@frozen
class ListModels:
    """List the models, with their task, the prompts that they take, and whether each is ready to be used."""

    task: Literal["segment", "classify", "any"] = "any"


@frozen
class ShowModel:
    """Show the card of a model: training, strengths, weaknesses, classes, licence, and citation."""

    model: str


@frozen
class SegmentByPrompts:
    """Segment by points, boxes, scribbles and outlines.

    Each segment is an object {"name", "prompts"}, in the format of prompts.json, for example {"name": "Liver",
    "prompts": [{"type": "box", "corners": [[53, 30, 5], [111, 90, 25]]}]}. The space "ijk" counts voxels from 0,
    "ras" are millimetres to the right, front and top. A segment that has the name already gets the prompts in addition.
    """

    image: str
    model: str
    segments: Rows
    space: Literal["ras", "ijk"] = "ras"
    intensity: str = "auto"


@frozen
class SegmentByWords:
    """Segment what phrases name, a segment for each, with a model that takes text."""

    image: str
    model: str
    phrases: tuple[str, ...]
    intensity: str = "auto"


@frozen
class SegmentByClasses:
    """Segment classes that the model knows, by name or number, a segment for each. show_model lists them."""

    image: str
    model: str
    classes: tuple[str, ...]
    intensity: str = "auto"


@frozen
class ClassifyImage:
    """Score labels in words on an image. Research use: scores are no probabilities, and the answer is no diagnosis."""

    image: str
    model: str
    labels: tuple[str, ...]
    intensity: str = "auto"


@frozen
class UndoChange:
    """Take back the last change of a segment; of the segment that was changed last where the name is empty."""

    image: str
    segment: str = ""


@frozen
class MeasureSegments:
    """Measure every segment of an image: voxels, volume in ml, longest diameter within a slice in mm."""

    image: str


@frozen
class RenderPicture:
    """Draw three slice views and the surfaces of the segments, or the slice of a flat image, as a PNG picture."""

    image: str
    width: int = 900
    height: int = 675


@frozen
class ExportSegments:
    """Write the segments of an image to a file: .seg.nrrd, or a label map as .nii.gz or .nrrd."""

    image: str
    file: str


AgentCall = (
    ListImages
    | ListModels
    | ShowModel
    | SegmentByPrompts
    | SegmentByWords
    | SegmentByClasses
    | ClassifyImage
    | UndoChange
    | MeasureSegments
    | RenderPicture
    | ExportSegments
)
# By the name that an agent calls it.
TOOLS: Mapping[str, type] = {
    "list_images": ListImages,
    "list_models": ListModels,
    "show_model": ShowModel,
    "segment_by_prompts": SegmentByPrompts,
    "segment_by_words": SegmentByWords,
    "segment_by_classes": SegmentByClasses,
    "classify": ClassifyImage,
    "undo": UndoChange,
    "measure": MeasureSegments,
    "render": RenderPicture,
    "export": ExportSegments,
}


@frozen
class AgentAnswer:
    """Answer to a call: JSON values, and a PNG picture where one was asked for."""

    document: Mapping[str, Any] = field(default_factory=dict)
    picture: bytes = b""


@frozen
class ServeRequest:
    """Serve agents on the loopback interface until cancelled; each call comes as a part, and is replied to.

    Answered by None at the end. ``port`` 0 takes a free one; who does not know ``token`` is refused.
    """

    request_id: int
    port: int
    token: str


@frozen
class ServedCall:
    """A call on its way to Slicer, by the name of its tool; ``port`` alone says that agents are served there now."""

    call_id: int
    tool: str = ""
    call: AgentCall | None = None
    port: int = 0


def parse_call(tool: str, arguments: object) -> AgentCall:
    """Read a call.

    Raises:
        InputError: there is no such tool.
        DocumentError: an argument is missing, unknown, of another type, or too long.
    """
    kind = TOOLS.get(tool)
    if kind is None:
        raise InputError(f"there is no tool {tool[:60]!a}; there are: {', '.join(TOOLS)}")
    call: AgentCall = from_document(kind, {} if arguments is None else arguments, tool, _STRICT)
    for name in ("segments", "phrases", "classes", "labels"):
        items = getattr(call, name, None)
        if items is not None and not 0 < len(items) <= _MOST_ITEMS:
            raise DocumentError(f"{tool}: {name} must have 1 to {_MOST_ITEMS} entries, not {len(items)}")
    return call


@frozen
class AllowedFolders:
    """The folders whose files an agent may name, by labels: ``scans/ct.nii.gz`` is in the folder labelled ``scans``.

    Nothing else is reached: no other folder, drive or computer, whatever a name or a link says.
    """

    folders: Mapping[str, Path]

    @staticmethod
    def of(paths: tuple[Path, ...]) -> "AllowedFolders":
        """Label folders by their names; of equal names, the later get a number.

        Raises:
            InputError: a folder does not exist.
        """
        folders: dict[str, Path] = {}
        for path in paths:
            if not path.is_dir():
                raise InputError(f"the folder {path.name or path} does not exist; name one that does")
            base = _UNSAFE.sub("_", path.resolve().name) or "folder"
            label = next(n for n in (base, *(f"{base}-{k}" for k in range(2, 1000))) if n not in folders)
            folders[label] = path.resolve()
        return AllowedFolders(folders)

    def path(self, name: str) -> Path:
        """Return the file or folder of a name, with links followed; it need not exist.

        Raises:
            InputError: the name leads out of the folders, or is no name of a file.
        """
        label, *parts = name.split("/")
        folder = self.folders.get(label)
        if folder is None or _UNSAFE.search(name) or len(name) > _LONGEST_PATH or not name.isprintable():
            raise InputError(f"{name[:60]!a} is in none of the folders that may be used: {self._labels()}")
        if any(part in ("", ".", "..") or part.endswith((" ", ".")) for part in parts):
            raise InputError(f"{name[:60]!a} is no plain path below {label!r}")
        try:
            whole = folder.joinpath(*parts).resolve()
            whole.exists()
            self.require_inside(whole)
        except (OSError, RuntimeError, ValueError) as error:  # too long a name, a loop of links
            raise InputError(f"{name[:60]!a} cannot be a file") from error
        return whole

    def path_to_write(self, name: str, written: Collection[Path]) -> Path:
        """Return the file of a name that a result may be written to.

        Args:
            name: that of the file.
            written: what was written before, which may be replaced.

        Raises:
            InputError: as :meth:`path`.
            OutputError: there is a file that agents did not write.
        """
        path = self.path(name)
        if path.exists() and path not in written:
            raise OutputError(f"{path.name} exists, and agents replace only what they wrote; choose another name")
        return path

    def require_inside(self, path: Path) -> None:
        """Make sure that a path is in one of the folders once all links are followed.

        Raises:
            InputError: it is not.
        """
        whole = path.resolve()
        if not any(whole.is_relative_to(folder) for folder in self.folders.values()):
            raise InputError(f"{path.name[:60]!a} leads out of the folders that may be used: {self._labels()}")

    def name(self, path: Path) -> str:
        """Return the name of a file or folder in one of the folders."""
        label, folder = next(item for item in self.folders.items() if path.is_relative_to(item[1]))
        return PurePosixPath(label, *path.relative_to(folder).parts).as_posix()

    def _labels(self) -> str:
        return ", ".join(self.folders)
