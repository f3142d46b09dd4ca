"""Taking nodes of ours out of a scene, with what belongs to them alone."""

from typing import Any


def remove_node(node: Any) -> None:
    """Remove a displayable node and its display nodes, which Slicer's scene would leave behind."""
    scene = node.GetScene()
    if scene is None:
        return
    own = [node.GetNthDisplayNode(n) for n in range(node.GetNumberOfDisplayNodes())]
    scene.RemoveNode(node)
    for display_node in own:
        if display_node is not None and display_node.GetScene() is scene:
            scene.RemoveNode(display_node)
