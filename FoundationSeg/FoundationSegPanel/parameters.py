"""The choices of the panel, kept in the scene: a parameter node, saved and reopened with it."""

from typing import Annotated

from slicer import vtkMRMLMarkupsROINode, vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper

TOOLS = ("", "point", "box", "scribble", "lasso")
OVERLAPS = ("protect", "protect-locked", "allow", "overwrite")
DIRECTIONS = ("both", "up", "down")
REGIONS = ("none", "around", "slices", "roi")
SUBJECTS = ("slice", "range", "volume", "roi", "segment")


@parameterNodeWrapper
class Parameters:
    """What the user has chosen.

    Attributes:
        volume, segmentation, segmentId: what is worked on.
        modelId: the model; empty for the one that suits this computer.
        intensity: the policy; see :mod:`FoundationSegLib.imaging.intensity`.
        tool: what the mouse draws; empty for nothing.
        isNegative: prompts say what is not the object.
        kind: what new segments are called.
        manyObjects: each prompt makes a segment of its own.
        direction, rangeLimited, rangeFrom, rangeTo: of propagation; the last slice is included.
        region: what changes are limited to; regionRadius in mm, regionFrom, regionTo (included) and roi are for it.
        seesRegionOnly: the model sees nothing else of the image.
        overlap: who keeps voxels that two segments want.
        sameAsSegmentEditor: the Segment Editor's editable area is kept to.
        askAbovePercent: of a segment that a prompt may delete without being asked for; 100: never ask.
        scribbleRadius: half the width of scribbles in mm; 0 for the rule of the prompts file.
        showSurfaces: segments have surfaces in the 3-D views.
        classifyModelId, labelSet, ownLabels, subject, classifyFrom, classifyTo, looks, aggregation, evidence: what is
            classified, and how; own labels are one to a line, and the last slice is included.
    """

    volume: vtkMRMLScalarVolumeNode
    segmentation: vtkMRMLSegmentationNode
    segmentId: str
    modelId: str
    intensity: Annotated[str, Default("auto")]
    tool: Annotated[str, Choice(TOOLS), Default("")]
    isNegative: bool
    kind: Annotated[str, Default("Segment")]
    manyObjects: bool
    direction: Annotated[str, Choice(DIRECTIONS), Default("both")]
    rangeLimited: bool
    # The wrapper gives a spin box the range of its parameter, and that of all integers where it has none.
    rangeFrom: Annotated[int, WithinRange(0, 99999), Default(0)]
    rangeTo: Annotated[int, WithinRange(0, 99999), Default(0)]
    region: Annotated[str, Choice(REGIONS), Default("none")]
    regionRadius: Annotated[float, WithinRange(1, 500), Default(20.0)]
    regionFrom: Annotated[int, WithinRange(0, 99999), Default(0)]
    regionTo: Annotated[int, WithinRange(0, 99999), Default(0)]
    roi: vtkMRMLMarkupsROINode
    seesRegionOnly: bool
    overlap: Annotated[str, Choice(OVERLAPS), Default("protect")]
    sameAsSegmentEditor: bool
    askAbovePercent: Annotated[int, WithinRange(0, 100), Default(50)]
    scribbleRadius: Annotated[float, WithinRange(0, 50), Default(0.0)]
    showSurfaces: bool
    classifyModelId: str
    labelSet: Annotated[str, Default("modality")]
    ownLabels: str
    subject: Annotated[str, Choice(SUBJECTS), Default("slice")]
    classifyFrom: Annotated[int, WithinRange(0, 99999), Default(0)]
    classifyTo: Annotated[int, WithinRange(0, 99999), Default(0)]
    looks: Annotated[str, Default("auto")]
    aggregation: Annotated[str, Default("mean")]
    evidence: Annotated[str, Choice(("similarity", "occlusion")), Default("similarity")]
