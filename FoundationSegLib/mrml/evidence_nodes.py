"""Evidence in the scene: a volume to lay over the image, and a segment of where it is strongest."""

import json
from typing import Any

import numpy as np

from .. import __version__
from ..core.classification import RESEARCH_USE, Classification
from ..core.evidence import LIMITS, EvidenceMap
from ..core.geometry import Geometry
from ..core.overlap import OverlapPolicy
from ..core.volume import Volume
from . import segment_tags
from .classification_nodes import REPORT
from .segments import SegmentWriter
from .volumes import add_volume_node, geometry_from_node, share_parent_transform

_COLOURS = "vtkMRMLColorTableNodeIron"


def show_evidence(scene: Any, evidence: EvidenceMap, answer: Classification, volume_node: Any) -> Any:
    """A new volume node with the evidence, voxel on voxel with the image, cut to the slices that have it.

    What is below the middle of all values is not shown.
    """
    geometry = geometry_from_node(volume_node)
    box, painted = evidence.paint(geometry)
    k, j, i = box.start_kji
    matrix = np.array(geometry.ijk_to_ras)
    matrix[:3, 3] = geometry.to_ras((i, j, k))
    name = f"{volume_node.GetName()}: evidence for {evidence.label} ({evidence.method})"
    node = add_volume_node(scene, Volume(painted, Geometry(matrix, box.shape_kji), name=name))
    share_parent_transform(volume_node, node)
    node.SetDescription(f"{RESEARCH_USE} {LIMITS}")
    node.SetAttribute(REPORT, json.dumps(answer.to_document(), ensure_ascii=False))
    low, high = evidence.threshold(0.0), evidence.threshold(1.0)
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(_COLOURS)
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(low, high if high > low else low + 1.0)
    display.AutoThresholdOff()
    display.SetThreshold(float(np.nextafter(np.float32(low), np.float32(np.inf))), max(high, low + 1.0))
    display.SetApplyThreshold(True)
    return node


def add_evidence_segment(
    segmentation_node: Any, evidence: EvidenceMap, answer: Classification, volume_node: Any, share: float = 0.5
) -> str:
    """Add a segment of where the evidence is above :meth:`~.EvidenceMap.threshold`; returns its id.

    Other segments keep their voxels, and the new one may overlap them.

    Raises:
        InputError, GeometryError: the segmentation cannot be written on the image's grid.
    """
    writer = SegmentWriter(segmentation_node, volume_node)
    segment_id = writer.add_segment(f"Evidence: {evidence.label}")
    box, mask = evidence.mask(writer.geometry, share)
    writer.write(segment_id, mask, box, policy=OverlapPolicy.ALLOW)
    asked = {"label": evidence.label, "method": evidence.method, "share": share, "research_use": RESEARCH_USE}
    segment_tags.set_provenance(writer.segment(segment_id), provenance(answer, asked))
    return segment_id


def provenance(answer: Classification, asked: dict[str, Any]) -> dict[str, str]:
    """Where a segment came from that a classifier had a part in, as :mod:`.segment_tags` keeps it."""
    checkpoint = answer.checkpoint
    return {
        "Model": checkpoint.model_id,
        "Repository": checkpoint.source,
        "Revision": checkpoint.revision,
        "SHA256": checkpoint.sha256,
        "Prompts": json.dumps(asked, ensure_ascii=False),
        "Intensity": json.dumps([dict(look) for look in answer.looks]),
        "Version": __version__,
    }
