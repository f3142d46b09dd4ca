"""For scripts in Slicer: :mod:`.scripting` on nodes. Every function returns when its answer is in the scene."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from .errors import InputError
from .mrml.reference_image import require_own
from .mrml.scene import remove_node
from .mrml.session_prompts import SessionPrompts
from .mrml.session_store import SceneStore
from .mrml.volumes import volume_from_node
from .prompts.kinds import PromptSet
from .prompts.prompts_file import parse_prompts, read_prompts
from .requests.segmentation import Propagation
from .scripting import open_session
from .session.segment_store import Outcome
from .session.segments import SegmentSession, import_prompts
from .session.session import Session
from .session.steps import ModelChoice
from .worker.client import Client


def make_segmentation(volume_node: Any) -> Any:
    """A new segmentation node on a volume's grid, shown like Slicer's own."""
    scene, name = volume_node.GetScene(), f"{volume_node.GetName()} segmentation"
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    return node


class NodeSession:
    """A session on nodes for the length of a ``with`` block: prompts are markups, and every method waits.

    Args:
        volume_node: the image.
        segmentation_node: where the segments are; existing ones are gone on with.
        client: who predicts.
        model: which model (:func:`.scripting.choose`).
        on_outcome: told of everything that happens.
        allow_foreign: go on with a segmentation that belongs to another image; it belongs to this one from then on.

    Raises:
        ForeignSegmentationError: it belongs to another image, and that was not allowed; an InputError.
    """

    def __init__(
        self,
        volume_node: Any,
        segmentation_node: Any,
        client: Client,
        model: ModelChoice,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
        allow_foreign: bool = False,
    ) -> None:
        if not allow_foreign:
            require_own(segmentation_node, volume_node)
        self._client = client
        volume = volume_from_node(volume_node)
        store = SceneStore(segmentation_node, volume_node)
        self._prompts = SessionPrompts(segmentation_node, volume_node)
        try:
            self.session = open_session(volume, client, model, store, self._prompts, on_outcome)
        except BaseException:
            self._prompts.stop()
            raise
        self._prompts.follow(self.session)

    def __enter__(self) -> Session:
        return self.session

    def __exit__(self, *_: object) -> None:
        self.close()

    def segment(self, name: str) -> SegmentSession:
        """The segment of a name.

        Raises:
            InputError: there is none, or more than one.
        """
        found = [key for key in self.session.segment_ids if self.session.segment_name(key) == name]
        if len(found) != 1:
            raise InputError(f"{len(found)} segments are called {name!r}: name one that is there once")
        return SegmentSession(self.session, found[0])

    def close(self) -> None:
        """End the session and let go of the image; segments and prompts stay."""
        self._prompts.stop()
        self._client.remove_volume(self.session.volume.key)


def as_prompts(prompts: PromptSet | dict[str, Any] | Path | str) -> PromptSet:
    """Prompts from a prompts file, from its decoded JSON, or as they are.

    Raises:
        InputError, PromptError: they cannot be read, or make no sense.
    """
    if isinstance(prompts, PromptSet):
        return prompts
    return parse_prompts(prompts) if isinstance(prompts, dict) else read_prompts(Path(prompts))


def segment_node(
    volume_node: Any,
    prompts: PromptSet | dict[str, Any] | Path | str,
    client: Client,
    model: ModelChoice,
    segmentation_node: Any = None,
    allow_foreign: bool = False,
) -> Any:
    """Segment an image by prompts; returns the segmentation node, a new one unless one is given.

    A segmentation of another image is refused, unless ``allow_foreign`` is said (:class:`NodeSession`).

    Raises:
        FoundationSegError: whatever the request failed with; a new node is removed again then.
    """
    wanted = as_prompts(prompts)
    node = segmentation_node or make_segmentation(volume_node)
    try:
        with NodeSession(volume_node, node, client, model, allow_foreign=allow_foreign) as session:
            import_prompts(session, wanted)
    except BaseException:
        if segmentation_node is None:
            remove_node(node)
        raise
    return node


def segment_nodes(
    volume_nodes: Iterable[Any], prompts: PromptSet | dict[str, Any] | Path | str, client: Client, model: ModelChoice
) -> list[Any]:
    """The same prompts on several images, one after the other; one new segmentation node each.

    Raises:
        FoundationSegError: whatever the request of an image failed with; the nodes made before it stay.
    """
    wanted = as_prompts(prompts)
    return [segment_node(node, wanted, client, model) for node in volume_nodes]


def propagate_segment(
    volume_node: Any,
    segmentation_node: Any,
    name: str,
    client: Client,
    model: ModelChoice,
    propagation: Propagation | None = None,
    allow_foreign: bool = False,
) -> None:
    """Carry a segment on through the volume from its prompts, or from the slices that were drawn by hand.

    Raises:
        InputError: there is no such segment, nothing to start from, or the segmentation belongs to another image.
        FoundationSegError: whatever the request failed with.
    """
    opened = NodeSession(volume_node, segmentation_node, client, model, allow_foreign=allow_foreign)
    with opened:
        opened.segment(name).propagate(propagation)
