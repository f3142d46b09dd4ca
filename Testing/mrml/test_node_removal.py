"""Nothing of a node of ours stays in the scene."""

from FoundationSegLib.mrml.scene import remove_node


def test_display_nodes_go_with_their_node(scene):
    before = scene.GetNumberOfNodes()
    for kind in ("vtkMRMLMarkupsFiducialNode", "vtkMRMLSegmentationNode"):
        node = scene.AddNewNodeByClass(kind)
        node.CreateDefaultDisplayNodes()
        assert scene.GetNumberOfNodes() >= before + 2
        remove_node(node)
        assert scene.GetNumberOfNodes() == before
        remove_node(node)  # that it has gone already is no error
