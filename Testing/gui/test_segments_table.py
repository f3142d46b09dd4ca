import numpy as np
import pytest
import slicer

from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.volumes import add_volume_node
from Testing.slicer_standin.dialogs import choose_file, pick
from Testing.slicer_standin.proxy import unwrap


@pytest.fixture
def two(at_panel):
    """Two segments that overlap: of 150 voxels of 16 mm3, and of 75 beside what the first one kept."""
    at_panel.box((5, 6, 4), (14, 20, 4))
    at_panel.desk.click(at_panel.ui.addButton)
    at_panel.box((10, 6, 4), (19, 20, 4))
    return at_panel


def menu(at_panel, entry):
    """Click with the right button on the table, and choose an entry."""
    at_panel.desk.answer_dialogs(pick(entry))
    table = unwrap(at_panel.ui.segmentsTable)
    table.customContextMenuRequested.emit(table.rect().center())
    at_panel.let_pass()


def column(at_panel, title):
    """The texts of a column as they are shown, from top to bottom."""
    model = at_panel.ui.segmentsTable.sortFilterProxyModel()
    titles = [at_panel.ui.segmentsTable.model().horizontalHeaderItem(n).text() for n in range(model.columnCount())]
    return [model.data(model.index(row, titles.index(title))) for row in range(model.rowCount())]


@pytest.mark.parametrize("entry", ["Clear (undo brings it back)", "Delete (undo brings it back)"])
def test_the_table_clears_and_deletes_through_the_history(two, entry):
    ui, desk = two.ui, two.desk
    key, names = two.work.segment_id, two.names()
    menu(two, entry)
    assert two.voxels(names[1]) == 0 and (len(two.names()) == 1) == entry.startswith("Delete")
    assert desk.scene.GetNumberOfNodesByClass("vtkMRMLMarkupsNode") == 1 and ui.undoButton.enabled
    desk.click(ui.undoButton)
    two.let_pass()
    assert two.names() == names and two.voxels(names[1]) == 75 and two.work.segment_id == key
    assert desk.scene.GetNumberOfNodesByClass("vtkMRMLMarkupsNode") == 2 and "prompts: 1" in ui.segmentLabel.text


def test_the_link_to_what_neighbours_kept_can_be_clicked(two, qt):
    label = two.ui.changeLabel
    assert "stayed with 'Segment'" in label.text and '<a href="take">' in label.text
    assert int(label.textInteractionFlags) & int(qt.Qt.LinksAccessibleByMouse)


def test_several_rows_stay_selected_and_are_deleted_together(two):
    ui, desk = two.ui, two.desk
    keys = list(two.segmentation.GetSegmentIDs())
    ui.segmentsTable.setSelectedSegmentIDs(keys)
    two.let_pass()
    two.panel.follow()
    assert list(ui.segmentsTable.selectedSegmentIDs()) == keys
    desk.click(ui.deleteButton)
    two.let_pass()
    assert two.names() == [] and not ui.deleteButton.enabled
    desk.click(ui.undoButton)
    two.let_pass()
    assert list(two.segmentation.GetSegmentIDs()) == keys and two.voxels("Segment") == 150


def test_a_group_is_selected_by_its_name_and_its_measures_saved(two, tmp_path):
    ui, desk, path = two.ui, two.desk, tmp_path / "measures.csv"
    ui.kindBox.setEditText("Liver")
    desk.click(ui.addButton)
    ui.segmentsTable.setSelectedSegmentIDs([two.segmentation.GetNthSegmentID(0)])
    two.let_pass()
    menu(two, "Select its group (the same name, numbered)")
    assert list(ui.segmentsTable.selectedSegmentIDs()) == list(two.segmentation.GetSegmentIDs())[:2]
    desk.answer_dialogs(pick("Save their measures as a table…"), choose_file(str(path)))
    table = unwrap(ui.segmentsTable)
    table.customContextMenuRequested.emit(table.rect().center())
    lines = [line.split(",")[:3] for line in path.read_text("utf-8").splitlines()]
    assert lines[1:] == [["Segment", "Segment", "2.4"], ["Segment 1", "Segment", "1.2"]]


def test_measures_are_shown_and_sort(two, qt):
    ui, desk = two.ui, two.desk
    desk.wait_until(lambda: column(two, "ml") == [2.4, 1.2])
    assert column(two, "Name") == ["Segment", "Segment 1"] and column(two, "Slice") == [4, 4]
    # Voxels of 2 mm: from edge to edge along the longer side, and a voxel across.
    assert column(two, "mm") == [pytest.approx(np.hypot(30, 18), abs=0.1), pytest.approx(np.hypot(30, 8), abs=0.1)]
    ui.segmentsTable.tableWidget().sortByColumn(6, qt.Qt.AscendingOrder)
    assert column(two, "ml") == [1.2, 2.4]
    two.box((21, 9, 4), (28, 30, 4))
    desk.wait_until(lambda: len(column(two, "ml")) == 2 and 4.02 in column(two, "ml"))
    assert column(two, "Name") == ["Segment", "Segment 1"]


def test_neighbours_that_kept_voxels_are_named_and_give_them_up(two):
    ui = two.ui
    assert "1.20 ml stayed with 'Segment'" in ui.changeLabel.text
    unwrap(ui.changeLabel).linkActivated.emit("take")
    two.let_pass()
    assert two.voxels("Segment") == 75 and two.voxels("Segment 1") == 150 and "Taken" in ui.changeLabel.text
    two.desk.click(ui.undoButton)
    assert two.voxels("Segment") == 150 and two.voxels("Segment 1") == 75


def test_the_last_answer_stands_under_its_segment_alone(two):
    ui = two.ui
    assert ui.changeLabel.visible
    ui.segmentsTable.setSelectedSegmentIDs([two.segmentation.GetNthSegmentID(0)])
    two.let_pass()
    assert not ui.changeLabel.visible


def test_a_flat_image_has_neither_millilitres_nor_other_slices(at_panel):
    geometry = Geometry(np.diag([0.2, 0.2, 1.0, 1.0]), (1, 40, 32))
    voxels = np.arange(40 * 32, dtype=np.int16).reshape(geometry.shape_kji)
    flat = add_volume_node(at_panel.desk.scene, Volume(voxels, geometry, name="X-ray"))
    at_panel.desk.choose(at_panel.ui.volumeSelector, flat)
    at_panel.desk.show_volume(flat, "Red")
    at_panel.let_pass()
    at_panel.tool(at_panel.ui.boxButton)
    first, last = (tuple(geometry.to_ras(at).tolist()) for at in ((5, 6, 0), (14, 20, 0)))
    at_panel.desk.mouse("Red").drag(first, last)
    at_panel.settle()
    assert at_panel.names() == ["Segment"]
    assert "ml" not in at_panel.ui.segmentLabel.text + at_panel.ui.changeLabel.text
    assert not at_panel.ui.propagateButton.enabled and "is flat" in at_panel.ui.propagateButton.toolTip


def test_a_propagation_is_seen_as_it_goes_and_what_waits_says_so(at_panel):
    ui, desk, client = at_panel.ui, at_panel.desk, at_panel.client
    at_panel.model("SlimSAM-77")
    at_panel.box((5, 6, 4), (14, 20, 4))
    client.is_slow = True
    ui.propagateSection.collapsed = False
    desk.click(ui.propagateButton)
    at_panel.let_pass()
    assert not ui.propagateButton.enabled and ui.cancelButton.text == "Cancel"
    client.find(pack_mask(np.ones((2, 3, 4), bool), (5, 6, 5)))
    desk.wait_until(lambda: at_panel.work.preview.node is not None)
    shown = at_panel.work.preview.node.GetSegmentation().GetNthSegment(0)
    assert shown.GetColor() == at_panel.segmentation.GetNthSegment(0).GetColor() and at_panel.voxels() == 150
    at_panel.let_pass()
    assert ui.cancelButton.text == "Stop and keep"
    at_panel.box((20, 22, 4), (25, 30, 4))
    assert "queued behind it: 1" in ui.progressBar.format
    desk.click(ui.cancelButton)
    desk.wait_until(lambda: at_panel.voxels() == 12 * 150)
    assert at_panel.work.preview.node is None
    at_panel.reply()
    assert at_panel.voxels() > 12 * 150
    for expected in (12 * 150, 150):
        desk.click(ui.undoButton)
        at_panel.let_pass()
        assert at_panel.voxels() == expected


def test_changes_that_wait_to_be_confirmed_are_shown(at_panel):
    at_panel.box((5, 6, 4), (14, 20, 4))
    at_panel.segmentation.GetNthSegment(0)
    at_panel.model("SlimSAM-77")
    at_panel.box((4, 5, 4), (15, 21, 4), ctrl=True)
    node = at_panel.work.preview.node
    assert at_panel.ui.messageFrame.visible and node.GetSegmentation().GetSegmentIDs() == ("lost",)
    at_panel.desk.click(at_panel.ui.messageNoButton)
    at_panel.let_pass()
    assert at_panel.work.preview.node is None and at_panel.voxels() == 150


def test_a_report_of_the_segments_is_written(at_panel, tmp_path):
    ui, desk = at_panel.ui, at_panel.desk
    assert not ui.reportButton.enabled
    at_panel.box((5, 6, 4), (14, 20, 4))
    path = tmp_path / "report.html"
    desk.answer_dialogs(choose_file(str(path)))
    desk.click(ui.reportButton)
    page = path.read_text(encoding="utf-8")
    assert "data:image/jpeg;base64," in page and "2.40 ml" in page and "Research use" in page


@pytest.mark.parametrize("height", [560, 700, 1000])
def test_the_buttons_below_the_table_are_in_sight(at_panel, height):
    """With Slicer's Data Probe open at 800 pixels, the panel has 460 of them."""
    at_panel.box((5, 6, 4), (14, 20, 4))
    unwrap(slicer.util.mainWindow()).resize(1400, height)
    at_panel.let_pass()
    ui = at_panel.ui
    assert ui.propagateButton.y + ui.propagateButton.height <= ui.segmentsArea.viewport().height
    assert ui.segmentsTable.height >= 92
