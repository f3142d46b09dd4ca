"""Recovery of sessions in scenes: what a crash would lose is kept in a folder of the user's, and put back into nodes.

What is kept has no name of the image or of the segmentation: these often are, or hold, a patient's. It is found again
by the image's fingerprint and by the ids of the segments; for people there are the grid, the modality, the names of
the segments and the time.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer.util

from ..errors import FoundationSegError, GeometryError, InputError
from ..folders import user_folder
from ..imaging.geometry import Geometry
from ..session.recovery import Recovery, RecoveryFile, discard, find_recoveries, restore
from ..session.segment_history import SegmentHistory
from ..session.segment_store import OverlapPolicy
from ..session.session import Session
from .scene import remove_node
from .scene_prompts import SessionPrompts
from .segment_store import SceneStore
from .volumes import geometry_from_node, require_own, volume_from_node

FOLDER_VARIABLE = "FOUNDATIONSEG_RECOVERY"


def recovery_folder() -> Path:
    """The folder of recoveries, which need not exist; the variable ``FOUNDATIONSEG_RECOVERY`` names another."""
    return user_folder("cache", FOLDER_VARIABLE, "FoundationSeg/recovery")


def keep_session(
    session: Session,
    segmentation_node: Any,
    every: int = 5,
    on_error: Callable[[FoundationSegError], None] = lambda error: None,
) -> RecoveryFile:
    """Keep a session in a scene against crashes: a file that listens to its edits, and is to be closed at the end.

    Args:
        session: what is kept.
        segmentation_node: where its segments are.
        every: how many changes may be lost.
        on_error: told once when the folder cannot be written, and again only after it could.
    """

    def appearance() -> dict[str, Any]:
        """Colours and terms of the segments, and the grid and modality by which people know the image."""
        volume, looks = session.volume, {}
        for key in session.known_ids:
            segment = segmentation_node.GetSegmentation().GetSegment(key)
            if segment is not None:
                looks[key] = {"colour": segment.GetColor(), "terminology": segment.GetTerminology()}
        grid = {"shape_kji": volume.geometry.shape_kji, "ijk_to_ras": volume.geometry.ijk_to_ras.tolist()}
        return {"grid": grid, "modality": volume.modality, "looks": looks}

    return RecoveryFile(session, recovery_folder(), every, appearance, on_error)


@dataclass(frozen=True, slots=True)
class LostSession:
    """A session that did not end as it should.

    Attributes:
        recovery: what it left behind.
        geometry: the grid of its image.
        modality: of its image, if that was known.
    """

    recovery: Recovery
    geometry: Geometry
    modality: str | None

    @property
    def segments(self) -> tuple[str, ...]:
        """The names of its segments."""
        return tuple(self.recovery.segments.values())

    def is_of(self, volume_node: Any) -> bool:
        """True where a volume node holds its image; only one on the same grid is looked at, 0.2 s for 157 MB."""
        try:
            if geometry_from_node(volume_node) != self.geometry:
                return False
            return volume_from_node(volume_node).key == self.recovery.volume_key
        except FoundationSegError:
            return False

    def find_volume(self, scene: Any) -> Any:
        """The volume node of the scene that holds its image, voxel for voxel; None while there is none.

        Only images on the same grid are looked at, about 0.2 s for 157 MB each.
        """
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", scene)  # those of colour images are among them
        images = (node for node in nodes if not node.IsA("vtkMRMLLabelMapVolumeNode"))
        return next((node for node in images if self.is_of(node)), None)

    def find_segmentation(self, scene: Any) -> Any:
        """The segmentation node of the scene that has one of its segments; None where it was not saved before."""
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode", scene)
        ids = set(self.recovery.segments)
        return next((node for node in nodes if ids.intersection(node.GetSegmentation().GetSegmentIDs())), None)

    def restore(self, volume_node: Any, segmentation_node: Any = None) -> Any:
        """Put segments, steps and prompts back, and return their segmentation node; the recovery stays.

        They go into the segmentation that is given, else into the one that has such segments and can be written, else
        into a new one. Nothing that is there changes
        (:func:`FoundationSegLib.session.recovery.restore`). A session that is open on these nodes is to be opened
        anew.

        Raises:
            InputError, GeometryError: it is of another image, damaged, or the segmentation does not fit the image.
        """
        key = volume_from_node(volume_node).key
        if key != self.recovery.volume_key:
            raise InputError("this recovery is of another image: load the image that it belongs to")
        scene = volume_node.GetScene()
        node, store = _store(segmentation_node or self.find_segmentation(scene), volume_node, segmentation_node is None)
        prompts = SessionPrompts(node, volume_node)
        before = set(store.segment_ids)
        try:
            history = SegmentHistory(store, prompts)
            ids = restore(history, key, OverlapPolicy.PROTECT, self.recovery)
            restored = history.take_untold()
            store.describe(restored)
            history.keep_steps(restored)
        except FoundationSegError:
            if segmentation_node is None and not store.segment_ids:
                remove_node(node)
            raise
        finally:
            prompts.stop()
        self._give_appearance(node, zip(self.recovery.segments, ids, strict=True), before)
        return node

    def discard(self) -> None:
        """Delete what was left behind."""
        discard(self.recovery)

    def _give_appearance(self, node: Any, ids: Iterable[tuple[str, str]], before: set[str]) -> None:
        looks, segmentation = self.recovery.more.get("looks", {}), node.GetSegmentation()
        for saved_id, segment_id in ids:
            if segment_id not in before and saved_id in looks:
                segment = segmentation.GetSegment(segment_id)
                segment.SetColor(*looks[saved_id]["colour"])
                segment.SetTerminology(looks[saved_id]["terminology"])


def find_lost_sessions(folder: Path | None = None) -> tuple[LostSession, ...]:
    """Find sessions that did not end as they should, the newest first; those that live are none."""
    lost = []
    for recovery in find_recoveries(folder or recovery_folder()):
        if not recovery.segments:
            continue  # nothing was done
        try:
            grid = recovery.more["grid"]
            geometry = Geometry(grid["ijk_to_ras"], grid["shape_kji"])
            lost.append(LostSession(recovery, geometry, recovery.more.get("modality")))
        except (KeyError, TypeError, ValueError, GeometryError):
            continue  # of a session without a scene
    return tuple(lost)


def _store(segmentation_node: Any, volume_node: Any, may_be_new: bool) -> tuple[Any, SceneStore]:
    """A segmentation that can be written, and its segments; a new one where it may be and none is given or fits."""
    if segmentation_node is not None:
        try:
            require_own(segmentation_node, volume_node)
            return segmentation_node, SceneStore(segmentation_node, volume_node)
        except (InputError, GeometryError):
            if not may_be_new:
                raise
    node = volume_node.GetScene().AddNewNodeByClass("vtkMRMLSegmentationNode", "Recovered segmentation")
    node.CreateDefaultDisplayNodes()
    return node, SceneStore(node, volume_node)
