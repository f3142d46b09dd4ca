"""`mcp`: serve agents, which see the images of the named folders, segment, measure, draw and export them."""

import argparse
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..catalog.model_cards import ModelCard
from ..cohorts.cases import files_of, find_cases
from ..errors import Cancelled, InputError, OutputError
from ..folders import check_writable, output_format
from ..hub.store import Store, default_store_folder
from ..requests.agent_calls import SENDS_PICTURES, AgentAnswer, AgentCall, AllowedFolders
from ..requests.maintenance import WorkerSettings
from ..worker.client import Client
from .arguments import number_within, path_argument
from .outputs import interrupts_wait, say, write_together

_WAIT_S = 0.1
_HEADER_BYTES = 2**16
_MOST_IMAGES = 8  # that are kept open, with their segments
# How headers of NRRD and MetaImage name files beside them, in any case.
_DETACHED = re.compile(rb"^(?:data ?file|elementdatafile)\s*[:=]\s*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("--folder", metavar="FOLDER", type=path_argument, action="append", required=True, help="that agents may use")
    add("--http", metavar="PORT", nargs="?", type=number_within(int, 0, 65535), const=0, help="on loopback, by a token")
    add("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    add("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Serve until the caller goes, or the user interrupts.

    Raises:
        PackageMissingError: the SDK is not installed.
        InputError: a folder does not exist.
        InferenceError: the port is taken.
    """
    from ..mcp_server import PATH, import_mcp, make_server, one_thread, serve_loopback, serve_streams

    import_mcp()
    folders = AllowedFolders.of(tuple(options.folder))
    say(SENDS_PICTURES)
    say(f"agents may use: {', '.join(folders.folders)}")
    with one_thread() as executor, FolderCalls(options, folders).closing(executor) as calls:
        server = make_server(calls.perform, executor)
        if options.http is None:
            serve_streams(server)
            return
        token = secrets.token_urlsafe(32)
        serve_loopback(
            server,
            int(options.http),
            token,
            lambda port: say(f"serving on http://127.0.0.1:{port}{PATH} (Authorization: Bearer {token})"),
        )


@dataclass(slots=True)
class FolderCalls:
    """Does calls on the files of folders, in a scene of its own; made and used by one thread.

    Attributes:
        options: those of the command.
        folders: where images are read and results written.
    """

    options: argparse.Namespace
    folders: AllowedFolders
    _over: threading.Event = field(default_factory=threading.Event)
    _stack: ExitStack = field(default_factory=ExitStack)
    _session: Any = None
    _client: Client | None = None

    @contextmanager
    def closing(self, executor: Any) -> Iterator["FolderCalls"]:
        """Yield it; at the end the call under way is stopped, and the worker ends."""
        try:
            yield self
        finally:
            self._over.set()
            executor.submit(self._stack.close).result()

    def perform(self, tool: str, call: AgentCall) -> AgentAnswer:
        """Do a call, and wait for its answer.

        Raises:
            FoundationSegError: it makes no sense, or fails.
        """
        del tool
        session = self._session or self._open()
        answer: AgentAnswer | None = session.begin(call)
        while answer is None:
            assert self._client is not None
            if self._over.is_set():
                session.stop()
                raise Cancelled("agents are served no more")
            self._client.wait(_WAIT_S)
            session.controller.tick()
            answer = session.poll()
        return answer

    def _open(self) -> Any:
        with interrupts_wait():
            from ..agent_session import AgentSession
            from ..controller import SegmentationController
            from ..mrml.scene import boot_scene

        settings = WorkerSettings(self.options.device, default_store_folder(), encode_ahead=False)
        self._client = self.options.connect(settings)
        self._stack.callback(self._client.close)
        controller = SegmentationController(self._client, self.options.catalogue(), _nothing, _nothing)
        self._stack.callback(controller.close)
        images = FolderImages(self.folders, controller, boot_scene())
        self._session = AgentSession(controller, images, Store(default_store_folder()))
        return self._session


def _nothing() -> None:
    """Start no timer: the loop of calls ticks."""


@dataclass(slots=True)
class FolderImages:
    """Images in folders; those that were named are nodes of a scene, with a segmentation each.

    Attributes:
        folders: where they are.
        controller: works on one of them at a time.
        headless: the scene.
    """

    folders: AllowedFolders
    controller: Any
    headless: Any
    _nodes: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    _written: set[Path] = field(default_factory=set)

    def names(self) -> Sequence[str]:
        """List the images of all folders; a DICOM folder goes by its own name."""
        names: dict[str, None] = {}
        for folder in self.folders.folders.values():
            try:
                cases = find_cases([folder])
            except InputError:  # there is none
                continue
            for case in cases:
                if case.image.resolve().is_relative_to(folder):
                    name = self.folders.name(case.image)
                    names[name if case.series is None else f"{name}#{case.series}"] = None
        return list(names)

    def use(self, name: str, card: ModelCard | None, intensity: str) -> None:
        """Have the controller work on an image. Raises as :class:`.agent_session.AgentImages`."""
        from ..session.segment_store import UserOptions
        from ..session.steps import ModelChoice

        if name not in self._nodes:
            if len(self._nodes) >= _MOST_IMAGES:
                raise InputError(f"{_MOST_IMAGES} images are open, with their segments: export, and start a new server")
            self._nodes[name] = self._read(name)
        self.controller.use(*self._nodes[name])
        choice = ModelChoice.of(card, intensity) if card is not None else self.controller.options.choice
        self.controller.options = replace(UserOptions(), choice=choice, ask_above=None)

    def export(self, file: str) -> str:
        """Write the segmentation that is worked on. Raises as :class:`.agent_session.AgentImages`."""
        from ..mrml.segments import SegmentWriter
        from .results import SegmentResult

        path = self.folders.path_to_write(file, self._written)
        if output_format(path) == "dcm":
            raise OutputError("agents write .seg.nrrd, .nii.gz or .nrrd; a DICOM segmentation is made by 'segment'")
        check_writable(path)
        controller = self.controller
        volume, node = controller.open().volume, controller.segmentation_node
        writer = SegmentWriter(node, controller.volume_node)
        rows = [{"name": writer.segment(key).GetName()} for key in writer.segment_ids]
        result = SegmentResult(
            self.headless, controller.volume_node, node, writer, rows, 0, 1, volume.in_pixels, volume.sides, volume.key
        )
        write_together([(path, result.writer(path))])
        self._written.add(path)
        return self.folders.name(path)

    def _read(self, name: str) -> tuple[Any, Any]:
        from ..api_nodes import make_segmentation
        from ..imaging.volume import require_image
        from ..io.images import read_volume
        from ..mrml.volumes import add_volume_node

        base, _, series = name.partition("#")
        path = self.folders.path(base)
        if not path.exists():
            raise InputError(f"{base[:60]!a} does not exist; list_images names the images")
        self._require_files_inside(path)
        volume = read_volume(path, series=series or None)
        require_image(volume)
        volume_node = add_volume_node(self.headless.scene, volume)
        return volume_node, make_segmentation(volume_node)

    def _require_files_inside(self, path: Path) -> None:
        """Make sure that every file of an image is in the folders: links and files named in headers included."""
        from ..cohorts.cases import Case

        beside = list(path.rglob("*")) if path.is_dir() else files_of(Case("", path))
        for file in (path, *beside):
            self.folders.require_inside(file)
        if path.is_dir():
            return
        with path.open("rb") as stream:
            head = stream.read(_HEADER_BYTES)
        for target in _DETACHED.findall(head):
            text = target.decode(errors="replace")
            if text.upper() != "LOCAL" and (re.search(r"[/\\:%]|\.\.", text) or text.upper().startswith("LIST")):
                raise InputError(f"{path.name} names its voxels by {text[:40]!a}; only a file beside it may be named")
            if text.upper() != "LOCAL":
                self.folders.require_inside(path.parent / text)
