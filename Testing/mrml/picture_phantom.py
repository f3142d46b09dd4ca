"""A grey volume with a bright blob at the patient's left, anterior, superior, and a segment on it."""

import numpy as np
import slicer

from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.volumes import add_volume_node

MAGENTA, YELLOW = (1.0, 0.0, 1.0), (1.0, 1.0, 0.0)
# From the middle of the volume to the middle of the bright blob: left, anterior, superior.
BLOB_RAS = np.array([-20.0, 14.0, 10.0])
RADIUS_MM = 7.0


def turn(axis, degrees):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    a, b = [n for n in range(3) if n != axis]
    matrix = np.eye(4)
    matrix[[a, a, b, b], [a, b, a, b]] = cos, -sin, sin, cos
    return matrix


SHEAR = np.eye(4)
SHEAR[1, 2] = 0.3
SHAPE = (24, 80, 72)
MATRICES = {
    "along RAS": np.diag([1, 1, 3, 1.0]),
    "along LPS": np.diag([-1, -1, 3, 1.0]),
    "upside down": np.diag([1, -1, -3, 1.0]),
    "permuted": np.array([[0, 0, 3, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]]),
    "oblique": turn(0, 20) @ turn(2, 25) @ np.diag([-1, -1, 3, 1.0]),
    "sheared": SHEAR @ np.diag([-1, -1, 3, 1.0]),
}


def centred(matrix, shape_kji, at=(30.0, -40.0, 500.0)):
    """The matrix with the middle of the grid at a point far from the origin."""
    moved = matrix.copy()
    moved[:3, 3] = np.array(at) - matrix[:3, :3] @ ((np.array(shape_kji[::-1]) - 1) / 2)
    return moved


def ball(matrix, shape_kji, centre_ras, radius_mm=RADIUS_MM):
    k, j, i = np.indices(shape_kji)
    ras = np.stack([i, j, k], axis=-1) @ matrix[:3, :3].T + matrix[:3, 3]
    return np.linalg.norm(ras - centre_ras, axis=-1) <= radius_mm


def add_volume(array, matrix):
    volume = Volume(np.asarray(array).astype(np.uint8), Geometry(matrix, array.shape[:3]))
    return add_volume_node(slicer.mrmlScene, volume)


def add_segmentation(volume, masks):
    """``masks``: name to (mask_kji, colour)."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name, (mask, colour) in masks.items():
        segment_id = node.GetSegmentation().AddEmptySegment("", name, colour)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), node, segment_id, volume)
    return node


def phantom(matrix, shape_kji=SHAPE):
    """Volume and segmentation: grey, with a bright blob at left, anterior, superior and a segment on it."""
    moved = centred(matrix, shape_kji)
    middle = moved[:3, :3] @ ((np.array(shape_kji[::-1]) - 1) / 2) + moved[:3, 3]
    blob = ball(moved, shape_kji, middle + BLOB_RAS)
    volume = add_volume(np.where(blob, 255, 64), moved)
    return volume, add_segmentation(volume, {"blob": (blob, MAGENTA)})
