"""The scene: one without Slicer's application, observers that are removed together, nodes taken out again."""

import shutil
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from pathlib import Path
from typing import Any
from weakref import WeakMethod

import slicer
import vtk

from ..codec import frozen, mutable
from ..errors import InputError, counted
from ..folders import archive_errors, require_utf8
from ..progress import bytes_text

# The terminologies' logic gets no scene: a scene makes it look for term files that the wheel does not carry, and it
# prints six errors when it finds none. It parses and serialises terms without one.
_WITHOUT_SCENE = "Terminologies"

_MOST_FILES, _MOST_BYTES = 20_000, 2**36  # in a scene's archive: a small one can hold terabytes

_MODULE_LOGICS = {
    "Volumes": "vtkSlicerVolumesLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Sequences": "vtkSlicerSequencesLogic",  # without it, scenes with sequences cannot be read
}


@frozen
class HeadlessScene:
    """A booted scene. Keep it as long as nodes are used: the scene and its logics live as long as this does.

    Attributes:
        scene: the ``vtkMRMLScene``; also ``slicer.mrmlScene`` from now on.
        application_logic: the ``vtkSlicerApplicationLogic``.
        module_logics: the logics of Slicer's modules by module name; also behind ``slicer.modules``.
    """

    scene: Any
    application_logic: Any
    module_logics: dict[str, Any] = field(default_factory=dict)


def boot_scene() -> HeadlessScene:
    """A new scene with the logics of Volumes, Segmentations, Markups, Terminologies, Sequences and subject hierarchy.

    Makes it ``slicer.mrmlScene`` and fills ``slicer.modules``, because `slicer.util` looks there. Prints nothing.
    """
    scene = slicer.vtkMRMLScene()
    application_logic = slicer.vtkSlicerApplicationLogic()
    application_logic.SetMRMLScene(scene)
    slicer.mrmlScene = scene
    # Without its colour tables, every label map would print a warning.
    application_logic.GetColorLogic().SetMRMLScene(scene)
    application_logic.GetColorLogic().AddDefaultColorNodes()
    application_logic.SetModuleLogic("Colors", application_logic.GetColorLogic())
    factory = slicer.vtkSegmentationConverterFactory.GetInstance()
    rules = factory.converter_rules
    logics = {name: _add_logic(name, application_logic, scene) for name in _MODULE_LOGICS}
    for rule in factory.converter_rules[len(rules) :] if rules else ():
        factory.UnregisterConverterRule(rule)  # each logic brings the same ones, and every copy goes through them all
    slicer.modules = types.SimpleNamespace(
        **{name.lower(): types.SimpleNamespace(logic=lambda logic=logic: logic) for name, logic in logics.items()}
    )
    return HeadlessScene(scene, application_logic, logics)


def _add_logic(name: str, application_logic: Any, scene: Any) -> Any:
    logic = getattr(slicer, _MODULE_LOGICS[name])()
    logic.SetMRMLApplicationLogic(application_logic)
    application_logic.SetModuleLogic(name, logic)
    if name != _WITHOUT_SCENE:
        logic.SetMRMLScene(scene)
    return logic


@contextmanager
def read_scene(path: Path) -> Iterator[HeadlessScene]:
    """Yield a booted scene with what a ``.mrb`` or ``.mrml`` file holds.

    Raises:
        InputError: there is no such file, it is no scene, or more than the disk has room for.
    """
    require_utf8(path, InputError)
    if not path.is_file():
        raise InputError(f"there is no file '{path.name}'")
    headless = boot_scene()
    with tempfile.TemporaryDirectory(prefix="foundationseg-") as folder:
        cache, manager = slicer.vtkCacheManager(), slicer.vtkDataIOManager()  # a scene needs both to read files
        cache.SetRemoteCacheDirectory(folder)
        headless.scene.SetCacheManager(cache)
        manager.SetCacheManager(cache)
        headless.scene.SetDataIOManager(manager)
        try:
            file = _unpack(path, Path(folder)) if path.suffix.lower() == ".mrb" else path
        except (OSError, *archive_errors()) as error:
            raise InputError(f"'{path.name}' is no scene that Slicer can read") from error
        headless.scene.SetURL(str(file))
        if not headless.scene.Import():
            raise InputError(f"'{path.name}' is no scene that Slicer can read")
        yield headless


def _unpack(bundle: Path, folder: Path) -> Path:
    """Unpack a ``.mrb``, whose lengths are checked before, and return its scene file."""
    import zipfile

    with zipfile.ZipFile(bundle) as archive:
        entries = archive.infolist()
        size, room = sum(entry.file_size for entry in entries), shutil.disk_usage(folder).free
        if len(entries) > _MOST_FILES or size > min(_MOST_BYTES, room):
            amount = f"{counted(len(entries), 'file')} of {bytes_text(size)}"
            raise InputError(f"'{bundle.name}' holds {amount}, more than a scene has or the disk has room for")
        archive.extractall(folder)
    (file,) = folder.glob("*/*.mrml")
    return file


@mutable(eq=False)
class Observers:
    """Calls methods when VTK objects report events.

    The methods' owner is not kept alive: who is dropped without :meth:`remove` is not called any more. Observers that
    did keep it would be called on an object that Python's garbage collector has already emptied.
    """

    _tags: list[tuple[Any, int]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self._tags)

    def add(self, observed: Any, event: int | str, method: Callable[..., Any], *arguments: Any) -> None:
        """Call a method with these arguments at every such event."""
        weak = WeakMethod(method)

        def call(*_: Any) -> None:
            if (alive := weak()) is not None:
                alive(*arguments)

        self._tags.append((observed, observed.AddObserver(event, call)))

    def add_for_nodes(self, scene: Any, event: int, method: Callable[[Any], Any]) -> None:
        """Call a method with the node that an event of a scene is about."""
        weak = WeakMethod(method)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def call(_scene: Any, _event: str, node: Any) -> None:
            if (alive := weak()) is not None:
                alive(node)

        self._tags.append((scene, scene.AddObserver(event, call)))

    def add_first(self, interactor: Any, event: str, method: Callable[..., bool], *arguments: Any) -> None:
        """Call a method before Slicer acts on an event of a view; where it returns True, Slicer does not act at all."""
        weak = WeakMethod(method)

        def call(*_: Any) -> None:
            command = interactor.GetCommand(tag)  # now, because the method may remove the observer
            if (alive := weak()) is not None and alive(*arguments):
                command.SetAbortFlag(1)

        # Slicer's own reactions have priority 0 (vtkMRMLViewInteractorStyle::SetInteractor).
        tag = interactor.AddObserver(event, call, 10.0)
        self._tags.append((interactor, tag))

    def remove(self) -> None:
        """Remove them all."""
        for observed, tag in self._tags:
            observed.RemoveObserver(tag)
        self._tags = []


def remove_node(node: Any) -> None:
    """Remove a node with its display and storage nodes, which Slicer's scene would leave behind."""
    scene, own_nodes = node.GetScene(), [node]
    if node.IsA("vtkMRMLStorableNode"):
        own_nodes += [node.GetNthStorageNode(n) for n in range(node.GetNumberOfStorageNodes())]
    if node.IsA("vtkMRMLDisplayableNode"):
        own_nodes += [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
    for own_node in own_nodes if scene is not None else ():
        if own_node is not None and own_node.GetScene() is scene:
            scene.RemoveNode(own_node)
