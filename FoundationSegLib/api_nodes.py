"""Segmentation for scripts in Slicer, on nodes of the scene. Every function returns when its answer is in the scene."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .api import Model, Prompts, find_segment, ignore, load_prompts, open_session, propagate
from .errors import OutputError
from .mrml.scene import remove_node
from .mrml.scene_prompts import SessionPrompts
from .mrml.segment_store import SceneStore
from .mrml.volumes import require_own, volume_from_node
from .requests.segmentation import Propagation
from .session.segment_store import Outcome
from .session.segments import SegmentSession, import_prompts
from .session.session import Session
from .worker.client import Client


def make_segmentation(volume_node: Any) -> Any:
    """Add a segmentation node on a volume's grid, shown like Slicer's own.

    Example::

        segmentation_node = make_segmentation(slicer.util.getNode("CTChest"))
    """
    scene, name = volume_node.GetScene(), f"{volume_node.GetName()} segmentation"
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    return node


class NodeSession:
    """A session on nodes for the length of a ``with`` block: prompts are markups, and every method waits.

    Example::

        with NodeSession(volume_node, segmentation_node, client, "lite-medsam") as session:
            new_segment(session, "Liver").add(PointPrompt((5.0, 4.0, 3.0)))

    Args:
        volume_node: the image.
        segmentation_node: the segments; existing ones are gone on with.
        client: answers the requests.
        model: a model's id, its card, or a choice by :func:`choose`.
        on_outcome: called with everything that happens.
        allow_foreign: go on with a segmentation that belongs to another image; it belongs to this one from then on.

    Raises:
        ForeignSegmentationError: it belongs to another image, and that was not allowed; an InputError.
    """

    def __init__(
        self,
        volume_node: Any,
        segmentation_node: Any,
        client: Client,
        model: Model,
        on_outcome: Callable[[Outcome], None] = ignore,
        allow_foreign: bool = False,
    ) -> None:
        if not allow_foreign:
            require_own(segmentation_node, volume_node)
        self._client = client
        store = SceneStore(segmentation_node, volume_node)
        self._prompts = SessionPrompts(segmentation_node, volume_node)
        try:
            volume = volume_from_node(volume_node)
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
        """Find the segment of a name, as :func:`find_segment`."""
        return find_segment(self.session, name)

    def close(self) -> None:
        """End the session and drop the image; segments and prompts stay."""
        self._prompts.stop()
        self._client.remove_volume(self.session.volume.key)


def segment_node(
    volume_node: Any,
    prompts: Prompts,
    client: Client,
    model: Model,
    segmentation_node: Any = None,
    allow_foreign: bool = False,
) -> Any:
    """Segment an image by prompts. Returns the segmentation node, a new one unless one is given.

    Example::

        segmentation_node = segment_node(volume_node, "prompts.json", client, "lite-medsam")

    Raises:
        ForeignSegmentationError: the segmentation belongs to another image (:class:`NodeSession`).
        FoundationSegError: whatever the request failed with; a new node is removed again then.
    """
    prompt_set = load_prompts(prompts)
    node = segmentation_node or make_segmentation(volume_node)
    try:
        with NodeSession(volume_node, node, client, model, allow_foreign=allow_foreign) as session:
            import_prompts(session, prompt_set)
    except BaseException:
        if segmentation_node is None:
            remove_node(node)
        raise
    return node


def propagate_node(
    volume_node: Any,
    segmentation_node: Any,
    name: str,
    client: Client,
    model: Model,
    propagation: Propagation | None = None,
    allow_foreign: bool = False,
) -> None:
    """Carry a segment of a node on through the volume, as :func:`propagate`.

    Example::

        propagate_node(volume_node, segmentation_node, "Liver", client, "lite-medsam", Propagation(10, 40))
    """
    with NodeSession(volume_node, segmentation_node, client, model, allow_foreign=allow_foreign) as session:
        propagate(session, name, propagation)


def report_nodes(
    path: Path | str, segmentation_nodes: Sequence[Any] | None = None, *, with_patient: bool = False
) -> None:
    """Write a page about segmentations: pictures, sizes, codes, prompts, corrections, model and licence.

    Example::

        report_nodes("report.html", [segmentation_node])

    Args:
        path: of the page; one that is there is replaced.
        segmentation_nodes: the segmentations; all of Slicer's scene that have an image unless given.
        with_patient: name the patient, where the subject hierarchy does.

    Raises:
        InputError, GeometryError: there is nothing to report, or it cannot be drawn.
        OutputError: the page cannot be written.
    """
    from .catalog.catalogue import read_catalogue
    from .folders import replace_text
    from .mrml.rendering.report import report_page, scene_cases

    path = Path(path)
    if not path.parent.is_dir():
        raise OutputError(f"{path.name} cannot be written: make the folder first")
    cases = scene_cases(segmentation_nodes, with_patient=with_patient)
    replace_text(path, report_page(cases, read_catalogue(), __version__))
