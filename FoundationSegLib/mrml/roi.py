"""A region of interest of the scene in the voxels of a volume."""

import itertools
from typing import Any

import numpy as np
import slicer

from ..core.errors import InputError
from ..core.geometry import Box
from .volumes import geometry_from_node, parent_to_world


def box_of_roi(roi_node: Any, volume_node: Any) -> Box:
    """The voxels whose centres lie in a `vtkMRMLMarkupsROINode`; where it is turned, those in the box around it.

    Raises:
        InputError: it holds no voxel of the image, or was not placed yet.
        GeometryError: a parent transform is not linear.
    """
    size = np.array(roi_node.GetSize())
    if not (size > 0).all():
        raise InputError(f"the region of interest '{roi_node.GetName()}' has no size yet: place it in a view")
    object_to_world = slicer.util.arrayFromVTKMatrix(roi_node.GetObjectToWorldMatrix())
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=3))) * size
    world = corners @ object_to_world[:3, :3].T + object_to_world[:3, 3]
    to_ras = np.linalg.inv(parent_to_world(volume_node))
    geometry = geometry_from_node(volume_node)
    index_kji = geometry.to_ijk(world @ to_ras[:3, :3].T + to_ras[:3, 3])[:, ::-1]
    tolerance = 1e-6  # of a voxel; a box drawn exactly onto centres has them
    start = np.ceil(index_kji.min(axis=0) - tolerance).astype(int).tolist()
    stop = (np.floor(index_kji.max(axis=0) + tolerance).astype(int) + 1).tolist()
    box = Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).intersection(geometry.box)
    if box.is_empty:
        raise InputError(f"the region of interest '{roi_node.GetName()}' holds no voxel of '{volume_node.GetName()}'")
    return box
