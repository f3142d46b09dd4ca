import json

import numpy as np
import pytest
import slicer

from FoundationSegLib.errors import InputError, OutputError
from FoundationSegLib.mrml.prompt_nodes import prompt_nodes
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.mrml.scene_recovery import FOLDER_VARIABLE, find_lost_sessions, keep_session, recovery_folder
from FoundationSegLib.mrml.segments import SegmentWriter
from FoundationSegLib.mrml.terminology import find_term
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.session.segments import SegmentSession, add_objects, new_segment
from Testing.mrml.scene_session import SceneSession
from Testing.unit.session.session_cases import mask_of, point, small_volume


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "recovery"))
    return tmp_path / "recovery"


class Kept:
    """A desk that is kept, until it crashes."""

    def __init__(self, every=2):
        self.headless = boot_scene()
        scene = self.headless.scene
        self.volume = add_volume_node(scene, small_volume(), "Jane Doe CT")
        self.segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Jane Doe segmentation")
        self.desk, self.errors = SceneSession(self.segmentation, self.volume), []
        self.recovery = keep_session(self.desk.session, self.segmentation, every, self.errors.append)
        self.desk.session.listeners.append(self.recovery.note)

    def crash(self):
        self.recovery._alive.close()
        self.desk.prompts.stop()


@pytest.fixture
def kept():
    kept = Kept()
    yield kept
    kept.desk.prompts.stop()


def restarted(volume=None):
    """Slicer after the crash, the image loaded again."""
    headless = boot_scene()
    return headless, add_volume_node(headless.scene, volume or small_volume())


def test_everything_comes_back_into_new_nodes(kept, folder):
    assert recovery_folder() == folder
    liver = new_segment(kept.desk.session, "Liver")
    liver.add(point(3), point(5))
    kept.desk.drag(liver, "1", (5.0, 6.0, 1.0))
    add_objects(kept.desk.session, [point(7)], "Nodule")
    kept.recovery.write()
    writer = kept.desk.store
    writer.segment(liver.segment_id).SetColor(0.1, 0.2, 0.3)
    kept.recovery.write()
    assert find_lost_sessions() == (), "it lives"
    kept.crash()
    (lost,) = find_lost_sessions()
    assert lost.segments == ("Liver", "Nodule 1") and lost.geometry == small_volume().geometry
    headless, volume = restarted()
    assert lost.find_volume(headless.scene) is volume and lost.find_segmentation(headless.scene) is None
    node = lost.restore(volume)
    assert headless.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1
    again = SceneSession(node, volume)
    try:
        copy = again.segment(again.store.segment_ids[0])
        assert copy.steps == liver.steps and np.array_equal(mask_of(copy), mask_of(liver))
        assert again.store.provenance(copy.segment_id) == kept.desk.store.provenance(liver.segment_id)
        assert again.place(copy, "1") == (5.0, 6.0, 1.0) and sum(1 for _ in prompt_nodes(node)) == 3
        segments = [again.store.segment(key) for key in again.store.segment_ids]
        assert segments[0].GetColor() == (0.1, 0.2, 0.3)
        assert segments[1].GetTerminology() == find_term("Nodule").serialized
        copy.remove("2")
        assert mask_of(copy).sum() == 25 and not again.errors
    finally:
        again.prompts.stop()
    lost.discard()
    assert not folder.exists() and find_lost_sessions() == ()


def test_no_name_of_image_or_patient_is_kept(kept, folder):
    new_segment(kept.desk.session, "Liver").add(point(3))
    kept.recovery.write()
    (path,) = folder.glob("*.json")
    assert "Jane" not in path.read_text() and folder.stat().st_mode & 0o077 == 0
    assert set(json.loads(path.read_text())["more"]) == {"grid", "modality", "looks"}


def test_a_clean_end_leaves_nothing(kept, folder):
    segment = new_segment(kept.desk.session, "Liver")
    segment.add(point(3))
    assert not folder.exists(), "less than two changes"
    segment.add(point(5))
    assert folder.exists()
    kept.recovery.close()
    assert not folder.exists()
    segment.add(point(1))
    segment.add(point(7))
    assert folder.exists(), "it can go on"
    kept.recovery.close()


def test_a_segmentation_that_was_saved_before_is_gone_on_with(kept):
    session = kept.desk.session
    liver = new_segment(session, "Liver")
    liver.add(point(3))
    headless, volume = restarted()
    saved = slicer.vtkMRMLSegmentationNode()
    saved.GetSegmentation().DeepCopy(kept.segmentation.GetSegmentation())
    headless.scene.AddNode(saved)
    before = mask_of(liver)
    other = new_segment(session, "Spleen")
    other.add(point(6))
    kept.recovery.write()
    kept.crash()
    (lost,) = find_lost_sessions()
    assert lost.find_segmentation(headless.scene) is saved and lost.restore(volume) is saved
    reader = SegmentWriter(saved, volume)
    names = [reader.segment(key).GetName() for key in reader.segment_ids]
    assert names == ["Liver", "Spleen"], "what is there already is not made again"
    assert np.array_equal(reader.read(liver.segment_id), before)
    assert lost.restore(volume) is saved and len(reader.segment_ids) == 2


def test_segments_that_were_changed_after_saving_come_beside(kept):
    liver = new_segment(kept.desk.session, "Liver")
    liver.add(point(3))
    headless, volume = restarted()
    saved = slicer.vtkMRMLSegmentationNode()
    saved.GetSegmentation().DeepCopy(kept.segmentation.GetSegmentation())
    headless.scene.AddNode(saved)
    liver.add(point(5))
    kept.recovery.write()
    kept.crash()
    (lost,) = find_lost_sessions()
    lost.restore(volume)
    reader = SegmentWriter(saved, volume)
    assert [reader.segment(key).GetName() for key in reader.segment_ids] == ["Liver", "Liver"]
    old, new = (reader.read(key) for key in reader.segment_ids)
    assert old.sum() == 25 and new.sum() == 25 and not (old & new).any(), "no voxel of a neighbour is taken"


def test_other_images_are_told_apart(kept):
    new_segment(kept.desk.session, "Liver").add(point(3))
    kept.recovery.write()
    kept.crash()
    (lost,) = find_lost_sessions()
    shifted = small_volume()
    other = small_volume().__class__(shifted.array_kji + 1, shifted.geometry)
    headless, volume = restarted(other)
    assert lost.find_volume(headless.scene) is None
    with pytest.raises(InputError, match="another image"):
        lost.restore(volume)
    assert headless.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_a_damaged_file_leaves_no_node(kept, folder):
    new_segment(kept.desk.session, "Liver").add(point(3))
    kept.recovery.write()
    kept.crash()
    (lost,) = find_lost_sessions()
    document = json.loads(lost.recovery.path.read_text())
    document["segments"][next(iter(document["segments"]))]["mask"] = "other"
    lost.recovery.path.write_text(json.dumps(document))
    headless, volume = restarted()
    with pytest.raises(InputError, match="missing"):
        lost.restore(volume)
    assert headless.scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_segments_that_nothing_was_done_to_are_not_lost(kept):
    new_segment(kept.desk.session, "Liver")
    kept.recovery.write()
    kept.crash()
    assert find_lost_sessions() == ()


def test_a_folder_that_cannot_be_written_is_told_once(kept, folder):
    folder.write_text("in the way")
    segment = new_segment(kept.desk.session, "Liver")
    for k in range(6):
        segment.add(point(k))
    (error,) = kept.errors
    assert isinstance(error, OutputError) and str(folder) not in str(error)
    folder.unlink()
    segment.add(point(6))
    kept.recovery.write()
    assert folder.is_dir() and len(kept.errors) == 1
    kept.recovery.close()


def test_a_closed_scene_writes_nothing(kept, folder):
    segment = new_segment(kept.desk.session, "Liver")
    segment.add(point(3))
    kept.headless.scene.Clear(False)
    kept.recovery.write()
    assert not folder.exists() and not kept.errors


def test_a_session_goes_on_from_what_was_recovered(kept):
    """Recovered twice: the second crash loses nothing of the first session."""
    new_segment(kept.desk.session, "Liver").add(point(3))
    kept.recovery.write()
    kept.crash()
    (lost,) = find_lost_sessions()
    headless, volume = restarted()
    node = lost.restore(volume)
    lost.discard()
    second = SceneSession(node, volume)
    keeper = keep_session(second.session, node, 1)
    second.session.listeners.append(keeper.note)
    copy = SegmentSession(second.session, second.store.segment_ids[0])
    copy.add(point(6))
    keeper._alive.close()
    second.prompts.stop()
    (lost,) = find_lost_sessions()
    headless, volume = restarted()
    node = lost.restore(volume)
    reader = SegmentWriter(node, volume)
    assert reader.read(reader.segment_ids[0]).sum() == 50
    assert headless.scene.GetNumberOfNodesByClass("vtkMRMLMarkupsNode") == 2
