"""Writing a segment through our one door, against writing it the usual way."""

import numpy as np
import slicer

from FoundationSegLib.imaging.geometry import Box, geometry_from_spacing
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.mrml.segments import SegmentWriter
from FoundationSegLib.mrml.volumes import add_volume_node

from .timing import Comparison, median_s

SHAPE = (300, 512, 512)


def write() -> list[Comparison]:
    """A new mask on one slice of 512 x 512 x 300, beside a neighbour that must keep its voxels."""
    headless = boot_scene()
    volume = Volume(np.zeros(SHAPE, np.int16), geometry_from_spacing(SHAPE))
    volume_node = add_volume_node(headless.scene, volume)
    node = headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    writer = SegmentWriter(node, volume_node)
    organ, neighbour = writer.add_segment("Organ"), writer.add_segment("Neighbour")
    writer.write(neighbour, np.ones((100, 100, 100), bool), Box((100, 100, 100), (200, 200, 200)))
    rng = np.random.default_rng(0)
    masks = iter([rng.random((1, 140, 140)) > 0.5 for _ in range(40)])
    ours = median_s(lambda: writer.write(organ, next(masks), Box((150, 180, 180), (151, 320, 320))))

    def usual() -> None:
        whole = writer.read(organ).astype(np.uint8)
        whole[150, 180:320, 180:320] = next(masks)
        slicer.util.updateSegmentBinaryLabelmapFromArray(whole, node, organ, volume_node)

    return [Comparison("write a slice", ours, "updateSegmentBinaryLabelmapFromArray", median_s(usual))]
