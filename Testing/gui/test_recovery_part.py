import shutil

from FoundationSegLib.mrml.scene_recovery import recovery_folder


def crash(at_panel, folder):
    """What a Slicer leaves behind that ends now: its recovery, and nothing else."""
    at_panel.work._recovery.write()
    kept = folder / "kept"
    shutil.copytree(recovery_folder(), kept)
    node = at_panel.wanted.segmentation
    at_panel.desk.choose(at_panel.ui.segmentationSelector, None)
    at_panel.desk.scene.RemoveNode(node)
    shutil.rmtree(recovery_folder(), ignore_errors=True)
    shutil.copytree(kept, recovery_folder())


def look_again(at_panel):
    at_panel.desk.choose(at_panel.ui.volumeSelector, None)
    at_panel.desk.choose(at_panel.ui.volumeSelector, at_panel.volume_node)
    at_panel.let_pass()


def test_without_a_crash_nothing_is_offered(at_panel):
    at_panel.box((5, 6, 4), (14, 20, 4))
    at_panel.desk.choose(at_panel.ui.segmentationSelector, None)
    look_again(at_panel)
    assert not at_panel.ui.recoveryFrame.visible


def test_lost_work_is_put_back(at_panel, tmp_path):
    at_panel.ui.kindBox.setEditText("Liver")
    at_panel.box((5, 6, 4), (14, 20, 4))
    crash(at_panel, tmp_path)
    look_again(at_panel)
    assert at_panel.ui.recoveryFrame.visible and "Liver" in at_panel.ui.recoveryLabel.text
    at_panel.desk.click(at_panel.ui.restoreButton)
    at_panel.let_pass()
    assert at_panel.names() == ["Liver"] and at_panel.voxels("Liver") == 150 and not at_panel.ui.recoveryFrame.visible
    at_panel.ui.segmentsTable.setSelectedSegmentIDs([at_panel.segmentation.GetNthSegmentID(0)])
    at_panel.let_pass()
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert at_panel.voxels() == 240


def test_lost_work_can_be_deleted(at_panel, tmp_path):
    at_panel.box((5, 6, 4), (14, 20, 4))
    crash(at_panel, tmp_path)
    look_again(at_panel)
    at_panel.desk.click(at_panel.ui.forgetButton)
    look_again(at_panel)
    assert not at_panel.ui.recoveryFrame.visible and at_panel.wanted.segmentation is None
