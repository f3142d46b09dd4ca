"""The image that a segmentation belongs to: its reference image, by Slicer's own node reference.

Two images on the same lattice are two images. A segmentation without a reference image is free: it belongs to the first
image that it is worked on with. Masks and prompts of other images are hidden while an image is worked on.
"""

from collections.abc import Iterator
from typing import Any

import slicer
import slicer.util

from ..errors import InputError
from .prompt_nodes import prompt_nodes

HIDDEN_ATTRIBUTE = "FoundationSeg.Hidden"  # on what was visible, and is hidden while another image is worked on


class ForeignSegmentationError(InputError):
    """The segmentation belongs to another image than the one that is worked on; nothing has happened then."""


def reference_image(segmentation_node: Any) -> Any:
    """The volume node that a segmentation belongs to; None where it is free, or the image was deleted."""
    return segmentation_node.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())


def belongs_to(segmentation_node: Any, volume_node: Any) -> bool:
    """True for a segmentation of this image, and for a free one."""
    image = reference_image(segmentation_node)
    return image is None or image is volume_node


def own_segmentation(volume_node: Any, preferred_id: str = "") -> Any:
    """The segmentation of an image: the one with the preferred node id, else the newest of the scene; None for none."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode", volume_node.GetScene())
    own = [node for node in nodes if reference_image(node) is volume_node]
    return next((node for node in own if node.GetID() == preferred_id), own[-1] if own else None)


def require_own(segmentation_node: Any, volume_node: Any) -> None:
    """Refuse to work on an image in another image's segmentation.

    Raises:
        ForeignSegmentationError: it belongs to another image. The message says what to do.
    """
    if not belongs_to(segmentation_node, volume_node):
        image = reference_image(segmentation_node)
        raise ForeignSegmentationError(
            f"'{segmentation_node.GetName()}' belongs to the image '{image.GetName()}', not to "
            f"'{volume_node.GetName()}': choose a segmentation of this image or a new one, or allow it explicitly"
        )


def hide_other_images(volume_node: Any, segmentation_node: Any = None) -> None:
    """Hide masks and prompts of other images than this one, and show again those of its own that were hidden so.

    Args:
        volume_node: the image that is worked on.
        segmentation_node: the segmentation that is worked on, shown whosever it is; None for none.
    """
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", volume_node.GetScene()):
        is_shown = node is segmentation_node or belongs_to(node, volume_node)
        for drawn_node in _drawn_nodes(node):
            _show_again(drawn_node) if is_shown else _hide(drawn_node)


def show_all_images(scene: Any) -> None:
    """Show again what :func:`hide_other_images` has hidden."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", scene):
        for drawn_node in _drawn_nodes(node):
            _show_again(drawn_node)


def _drawn_nodes(segmentation_node: Any) -> Iterator[Any]:
    """A segmentation and the markups of its prompts."""
    yield segmentation_node
    for _, node in prompt_nodes(segmentation_node):
        yield node


def _hide(node: Any) -> None:
    if node.GetDisplayNode() is not None and node.GetDisplayVisibility():
        node.SetDisplayVisibility(False)
        node.SetAttribute(HIDDEN_ATTRIBUTE, "1")


def _show_again(node: Any) -> None:
    if node.GetAttribute(HIDDEN_ATTRIBUTE):
        node.RemoveAttribute(HIDDEN_ATTRIBUTE)
        node.SetDisplayVisibility(True)
