import sys

import pytest
import slicer

from Testing.slicer_standin.dialogs import choose_file, enter
from Testing.slicer_standin.proxy import unwrap


def test_opening_starts_nothing(at_panel):
    assert at_panel.widget.logic.client().asked == [] and at_panel.client.prepared == []
    assert not {"torch", "transformers", "huggingface_hub"} & set(sys.modules) or "torch" in sys.modules
    assert at_panel.wanted.volume is at_panel.volume_node and at_panel.wanted.segmentation is None


def test_a_box_becomes_a_segment(at_panel, tmp_path):
    ui = at_panel.ui
    ui.kindBox.setEditText("Liver")
    at_panel.box((5, 6, 4), (14, 20, 4))
    assert at_panel.names() == ["Liver"] and at_panel.voxels() == 10 * 15
    assert "2.40 ml" in ui.segmentLabel.text  # 150 voxels of 16 mm3
    assert "+2.40 ml" in ui.changeLabel.text and ui.undoButton.enabled
    assert "Liver" in at_panel.segmentation.GetNthSegment(0).GetTerminology()
    picture = at_panel.desk.screenshot(tmp_path / "box.png")
    assert picture.stat().st_size > 10_000


def test_the_tab_in_front_alone_says_how_high_the_panel_is(at_panel):
    tabs, heights = at_panel.ui.tabs, []
    for index in (0, 1, 0):
        tabs.setCurrentIndex(index)
        at_panel.let_pass()
        heights.append(tabs.minimumSizeHint.height())
    assert heights[0] == heights[2] != heights[1]


def test_a_picture_is_measured_in_pixels(at_panel):
    storage = at_panel.desk.scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName("/there/polyp.png")
    at_panel.wanted.volume = node = at_panel.add_volume("Polyp", slices=1)
    node.SetAndObserveStorageNodeID(storage.GetID())
    at_panel.desk.show_volume(node)
    at_panel.desk.process_events()
    at_panel.box((5, 6, 0), (14, 20, 0))
    assert at_panel.ui.segmentLabel.text.startswith("<b>150 pixels</b>")
    assert "</b> +150 pixels · " in at_panel.ui.changeLabel.text


@pytest.mark.parametrize(
    ("view", "first", "last"), [("Green", (5, 6, 2), (14, 6, 8)), ("Yellow", (5, 6, 2), (5, 20, 8))]
)
def test_other_views(at_panel, view, first, last):
    at_panel.box(first, last, view)
    extents = [abs(a - b) + 1 for a, b in zip(first, last, strict=True)]
    assert at_panel.voxels() == extents[0] * extents[1] * extents[2]


def test_undo_and_redo_by_buttons_and_keys(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    at_panel.box((20, 6, 4), (25, 20, 4))
    both = at_panel.voxels()
    desk.click(ui.undoButton)
    at_panel.let_pass()
    assert at_panel.voxels() == 150
    view = desk.slice_widget("Red").sliceView()
    desk.press_key(view, "Ctrl+Z")
    at_panel.let_pass()
    assert at_panel.voxels() == 0 and not ui.undoButton.enabled
    desk.press_key(view, "Ctrl+Y")
    desk.click(ui.redoButton)
    at_panel.let_pass()
    assert at_panel.voxels() == both and not ui.redoButton.enabled


def test_keys_work_wherever_the_focus_is_but_in_text_fields(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    ui.propagateSection.collapsed = False
    for field, key in ((ui.kindBox, "Ctrl+Z"), (ui.kindBox, "3"), (ui.rangeFromBox, "Return"), (ui.kindBox, "Return")):
        desk.press_key(field, key)
        at_panel.let_pass()
        assert at_panel.voxels() == 150 and at_panel.wanted.tool == "box" and ui.acceptButton.enabled
    for focus, key, tool in (("Green", "3", "scribble"), (ui.segmentsTable, "2", "box"), (ui.undoButton, "4", "lasso")):
        view = desk.slice_widget(focus).sliceView() if isinstance(focus, str) else focus
        desk.press_key(view, key)
        assert at_panel.wanted.tool == tool
    at_panel.widget.exit()
    desk.press_key(ui.undoButton, "2")
    assert at_panel.wanted.tool == "lasso" and not at_panel.panel.tools.tool.is_enabled
    at_panel.widget.enter()
    assert at_panel.panel.tools.tool.is_enabled
    desk.press_key(ui.undoButton, "Ctrl+Z")
    at_panel.let_pass()
    assert at_panel.voxels() == 0


def test_keys_are_changed_in_one_place(at_panel, qt):
    ui, desk = at_panel.ui, at_panel.desk
    ui.aboutSection.collapsed = False
    desk.click(ui.keysButton)
    dialog = at_panel.panel.keys._dialog
    edits = [dialog.ui.keysTable.cellWidget(row, 1) for row in range(4)]
    edits[1].setKeySequence(qt.QKeySequence("1"))
    desk.click(dialog.ui.saveButton)
    assert "1 stands for several actions" in dialog.ui.messageLabel.text
    edits[0].setKeySequence(qt.QKeySequence("2"))
    desk.click(dialog.ui.saveButton)
    assert not dialog.dialog.visible and "<b>1</b> box" in ui.keysLabel.text
    desk.press_key(ui.undoButton, "1")
    assert at_panel.wanted.tool == "box"
    desk.click(ui.keysButton)
    desk.click(dialog.ui.usualButton)
    desk.click(dialog.ui.saveButton)
    desk.press_key(ui.undoButton, "3")
    assert at_panel.wanted.tool == "scribble" and "<b>2</b> box" in ui.keysLabel.text
    assert not any(str(key).startswith("FoundationSeg/keys") for key in qt.QSettings().allKeys())


def test_a_parameter_node_deleted_by_hand_is_made_anew(at_panel):
    at_panel.box((5, 6, 4), (14, 20, 4))
    at_panel.desk.scene.RemoveNode(at_panel.wanted.parameterNode)
    at_panel.let_pass()
    assert at_panel.wanted is not None and at_panel.wanted.volume is at_panel.volume_node
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert at_panel.voxels() == 90


def test_a_model_of_boxes_takes_two_clicks(at_panel):
    ui = at_panel.ui
    at_panel.model("LiteMedSAM")
    assert ui.pointButton.text == "Two clicks" and not ui.polarityButton.enabled
    at_panel.tool(ui.pointButton)
    assert "one corner" in ui.hintLabel.text
    at_panel.click(5, 6, 4)
    assert at_panel.wanted.segmentation is None
    at_panel.click(14, 20, 4)
    assert at_panel.voxels() == 150


def test_a_model_of_points_takes_clicks_of_both_signs(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.model("SlimSAM-77")
    assert ui.pointButton.text == "Point"
    at_panel.tool(ui.pointButton)
    at_panel.click(10, 10, 4)
    assert at_panel.voxels() == 25
    desk.click(ui.polarityButton)
    assert at_panel.wanted.isNegative and ui.polarityButton.text == "Negative"
    at_panel.click(13, 10, 4)
    at_panel.click(18, 10, 4, ctrl=True)  # Ctrl turns it round: positive
    prompts = [one.polarity.value for one in at_panel.client.asked[-1].segments[0].prompts]
    assert prompts == ["positive", "negative", "positive"]


def test_segments_are_added_numbered_and_selected(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    ui.kindBox.setEditText("Nodule")
    desk.click(ui.addButton)
    desk.click(ui.addButton)
    at_panel.let_pass()
    assert at_panel.names() == ["Nodule", "Nodule 1"]
    at_panel.box((5, 6, 4), (14, 20, 4))
    assert at_panel.voxels("Nodule 1") == 150 and at_panel.voxels("Nodule") == 0
    ui.segmentsTable.setSelectedSegmentIDs([at_panel.segmentation.GetNthSegmentID(0)])
    at_panel.let_pass()
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert at_panel.voxels("Nodule") == 90 and at_panel.voxels("Nodule 1") == 150
    assert at_panel.wanted.segmentId == at_panel.segmentation.GetNthSegmentID(0)


def test_neighbours_keep_their_voxels_unless_said_otherwise(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    desk.click(ui.addButton)
    at_panel.box((10, 6, 4), (19, 20, 4))
    assert at_panel.voxels("Segment") == 150 and at_panel.voxels("Segment 1") == 75
    ui.advancedSection.collapsed = False
    desk.choose(ui.overlapBox, "Are overwritten")
    desk.click(ui.addButton)
    at_panel.box((5, 6, 4), (19, 20, 4))
    assert at_panel.voxels("Segment") == 0 and at_panel.voxels("Segment 2") == 225
    desk.click(ui.undoButton)
    at_panel.let_pass()
    assert at_panel.voxels("Segment") == 150 and at_panel.voxels("Segment 1") == 75


def test_a_locked_segment_says_so(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    desk.click(ui.lockButton)
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert at_panel.voxels() == 150 and ui.messageFrame.visible and "locked" in ui.messageLabel.text
    desk.click(ui.messageYesButton)
    assert not ui.messageFrame.visible


def test_many_objects(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    ui.kindBox.setEditText("Lesion")
    desk.click(ui.objectsBox)
    at_panel.box((5, 6, 4), (8, 9, 4))
    at_panel.box((20, 6, 4), (23, 9, 4))
    assert at_panel.names() == ["Lesion 1", "Lesion 2"]
    assert at_panel.voxels("Lesion 1") == at_panel.voxels("Lesion 2") == 16


def test_what_would_delete_much_is_asked_for_first(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.model("SlimSAM-77")
    at_panel.box((5, 6, 4), (8, 9, 4))
    at_panel.tool(ui.pointButton)
    at_panel.click(6, 7, 4, ctrl=True)
    assert at_panel.voxels() == 16 and ui.messageFrame.visible and "delete 100 % of 'Segment'" in ui.messageLabel.text
    desk.click(ui.messageNoButton)
    assert not ui.messageFrame.visible and at_panel.voxels() == 16
    at_panel.click(6, 7, 4, ctrl=True)
    desk.click(ui.messageYesButton)
    at_panel.let_pass()
    assert at_panel.voxels() == 0


def test_a_failure_can_be_tried_again_or_discarded(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.client.fails = True
    at_panel.box((5, 6, 4), (14, 20, 4))
    assert "no memory" in ui.messageLabel.text and ui.messageYesButton.text == "Try again"
    at_panel.client.fails = False
    desk.click(ui.messageYesButton)
    at_panel.settle()
    assert at_panel.voxels() == 150 and not ui.messageFrame.visible
    at_panel.client.fails = True
    at_panel.box((20, 6, 4), (25, 20, 4))
    desk.click(ui.messageNoButton)
    assert not ui.messageFrame.visible
    ui.promptsSection.collapsed = False
    at_panel.let_pass()
    assert at_panel.voxels() == 150 and ui.promptsTable.rowCount == 1


def test_progress_and_cancel(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.client.is_slow = True
    at_panel.box((5, 6, 4), (14, 20, 4))
    desk.wait_until(lambda: ui.progressBar.maximum == 3)
    assert ui.progressRow.visible and ui.progressBar.value == 1 and "1 of 3" in ui.progressBar.format
    assert "left" in ui.progressBar.format
    desk.wait_until(lambda: "left" in unwrap(slicer.util.mainWindow()).statusBar().currentMessage())
    desk.click(ui.cancelButton)
    at_panel.desk.wait_until(lambda: not at_panel.client.is_busy)
    at_panel.let_pass()
    assert not ui.progressRow.visible and not ui.messageFrame.visible and at_panel.voxels() == 0


def test_an_accepted_segment_is_completed(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    assert "confidence" in ui.changeLabel.text
    desk.click(ui.acceptButton)
    at_panel.let_pass()
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    assert ui.changeLabel.text == "<b>Accepted</b>"
    segment = at_panel.segmentation.GetNthSegment(0)
    statuses = [logic.GetSegmentStatus(segment)]
    at_panel.box((20, 6, 4), (25, 20, 4))
    statuses.append(logic.GetSegmentStatus(segment))
    for _undone in range(2):  # the prompt, and that it was accepted
        desk.click(ui.undoButton)
        at_panel.let_pass()
        statuses.append(logic.GetSegmentStatus(segment))
    assert statuses == [logic.Completed, logic.InProgress, logic.Completed, logic.InProgress]


def test_a_light_model_is_offered_once_to_who_wants_to_click_and_chosen_by_the_user_alone(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.model("LiteMedSAM")
    at_panel.tool(ui.pointButton)
    assert "EdgeTAM (about 56 MB) understands clicks" in ui.messageLabel.text and "not run here" in ui.messageLabel.text
    desk.click(ui.messageNoButton)
    assert not ui.messageFrame.visible and at_panel.panel.state.card.id == "lite-medsam"
    at_panel.tool(ui.boxButton)
    at_panel.tool(ui.pointButton)
    assert not ui.messageFrame.visible
    at_panel.model("MedSAM")
    at_panel.tool(ui.boxButton)
    at_panel.tool(ui.pointButton)
    desk.click(ui.messageYesButton)
    assert at_panel.panel.state.card.id == "edgetam" and ui.pointButton.text == "Point" and not at_panel.client.asked


def test_prompts_are_listed_removed_and_turned(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.model("SlimSAM-77")
    at_panel.tool(ui.pointButton)
    at_panel.click(10, 10, 4)
    at_panel.click(20, 10, 4)
    ui.promptsSection.collapsed = False
    at_panel.let_pass()
    assert ui.promptsTable.rowCount == 2 and ui.promptsTable.item(0, 0).text() == "point"
    desk.click(ui.removePromptButton)
    assert "select prompts" in ui.messageLabel.text
    ui.promptsTable.selectRow(0)
    desk.click(ui.removePromptButton)
    at_panel.settle()
    assert ui.promptsTable.rowCount == 1 and at_panel.voxels() == 25
    ui.promptsTable.selectRow(0)
    desk.click(ui.flipPromptButton)
    at_panel.settle()
    assert ui.promptsTable.item(0, 1).text() == "-"


def test_prompts_go_to_a_file_and_come_back(at_panel, tmp_path):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    ui.promptsSection.collapsed = False
    path = tmp_path / "prompts.json"
    desk.answer_dialogs(choose_file(str(path)))
    desk.click(ui.exportPromptsButton)
    assert '"box"' in path.read_text()
    desk.choose(ui.segmentationSelector, None)
    desk.answer_dialogs(choose_file(str(path)))
    desk.click(ui.importPromptsButton)
    at_panel.settle()
    assert at_panel.names() == ["Segment"] and at_panel.voxels("Segment") == 150


def test_propagation_keeps_to_its_range(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    ui.propagateSection.collapsed = False
    ui.rangeBox.checked = True
    ui.rangeFromBox.value, ui.rangeToBox.value = 3, 6
    at_panel.let_pass()
    desk.click(ui.propagateButton)
    at_panel.settle()
    assert ui.propagateButton.text == "Propagate"
    assert at_panel.client.asked[-1].propagation.start == 3 and at_panel.client.asked[-1].propagation.stop == 7
    assert at_panel.voxels() == 4 * 150


def test_a_range_of_slices_limits_what_comes(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    ui.advancedSection.collapsed = False
    desk.choose(ui.regionBox, "In a range of slices only")
    assert ui.regionFromBox.visible and not ui.regionRadiusBox.visible
    ui.regionFromBox.value, ui.regionToBox.value = 4, 5
    at_panel.let_pass()
    at_panel.box((5, 6, 2), (14, 6, 8), "Green")
    assert at_panel.voxels() == 10 * 2


def test_two_segmentations_each_keep_their_own(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    first, key = at_panel.wanted.segmentation, at_panel.work.segment_id
    second = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Second")
    second.CreateDefaultDisplayNodes()
    desk.choose(ui.segmentationSelector, second)
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert second.GetSegmentation().GetNumberOfSegments() == 1
    desk.choose(ui.segmentationSelector, first)
    ui.segmentsTable.setSelectedSegmentIDs([key])
    at_panel.let_pass()
    ui.promptsSection.collapsed = False
    at_panel.box((5, 25, 4), (14, 26, 4))
    assert at_panel.voxels() == 170 and ui.promptsTable.rowCount == 2, "the prompts of before are there again"


@pytest.mark.parametrize("what", ["volume", "segmentation", "segment", "scene"])
def test_what_is_deleted_while_a_request_is_out(at_panel, what):
    ui, desk = at_panel.ui, at_panel.desk
    at_panel.box((5, 6, 4), (14, 20, 4))
    at_panel.client.is_slow = True
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert at_panel.work.is_busy
    if what == "scene":
        desk.scene.Clear(0)
    elif what == "segment":
        at_panel.segmentation.RemoveSegment(at_panel.work.segment_id)
    else:
        desk.scene.RemoveNode(at_panel.volume_node if what == "volume" else at_panel.wanted.segmentation)
    at_panel.let_pass()
    before = desk.scene.GetNumberOfNodes()
    if at_panel.client._open is not None:
        at_panel.client.reply()
    desk.wait_until(lambda: not at_panel.client.is_busy)
    at_panel.let_pass()
    assert not ui.messageFrame.visible and not ui.progressRow.visible and desk.scene.GetNumberOfNodes() == before
    if what == "segment":
        assert at_panel.names() == []
    if what == "volume":
        assert not ui.boxButton.enabled


def test_choices_survive_in_the_scene(at_panel, tmp_path):
    ui = at_panel.ui
    at_panel.model("SlimSAM-77")
    at_panel.desk.choose(ui.intensityBox, "CT lung, W1500 L-600")
    ui.askBox.value = 30
    at_panel.let_pass()
    node = at_panel.wanted.parameterNode
    again = type(at_panel.wanted)(node)
    assert (again.modelId, again.intensity, again.askAbovePercent) == ("slimsam-77", "ct-lung", 30)


def test_a_window_of_ones_own(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    assert not ui.windowEdit.visible
    desk.choose(ui.intensityBox, "Width, level:")
    desk.type(ui.windowEdit, "350, 50", enter=True)
    assert at_panel.wanted.intensity == "350,50" and ui.windowEdit.visible
    at_panel.box((5, 6, 4), (14, 20, 4))
    assert at_panel.client.asked[-1].intensity == "350,50"
    assert "350,50" in ui.inputsButton.toolTip and "percentiles" in ui.intensityBox.itemText(0)


def test_without_a_main_window_and_image(make_desk):
    from Testing.gui.panel_desk import MODULE

    desk = make_desk(main_window=False, testing=True)
    widget = desk.open_module(MODULE)
    assert not widget.ui.boxButton.enabled and "image" in widget.ui.hintLabel.text
    for name in [name for name in sys.modules if name.split(".")[0] == "FoundationSegPanel"]:
        del sys.modules[name]


def test_the_daily_path_fits_and_nothing_moves_when_a_message_comes(at_panel):
    """At 400 x 700 pixels all of it is in sight, whatever the message; choices fold into a line once they are made."""
    ui, desk = at_panel.ui, at_panel.desk
    desk.click(ui.inputsButton)
    assert not ui.inputsFrame.visible and "CT · LiteMedSAM" in ui.inputsButton.text
    panel = desk.main_window.panel.takeWidget()
    panel.resize(400, 700)
    panel.show()
    for n in range(6):
        ui.kindBox.setEditText(f"Node {n}")
        desk.click(ui.addButton)
    at_panel.box((5, 6, 4), (14, 20, 4))

    def rows():
        tops = [ui.boxButton, ui.statusStack, ui.undoButton, ui.acceptButton, ui.addButton, ui.segmentsTable]
        return [unwrap(one).geometry().getRect() for one in tops]

    before = rows()
    assert (panel.width(), panel.height()) == (400, 700) and ui.segmentsTable.height >= 130
    assert not unwrap(ui.segmentsArea).verticalScrollBar().isVisible()
    at_panel.client.fails = True
    at_panel.box((20, 6, 4), (25, 20, 4))
    assert ui.messageFrame.visible and rows() == before
    at_panel.client.fails, at_panel.client.is_slow = False, True
    desk.click(ui.messageYesButton)
    desk.wait_until(lambda: ui.progressRow.visible)
    assert rows() == before


def test_templates_come_with_codes_and_colours_and_are_saved(at_panel, tmp_path, monkeypatch):
    ui, desk, menu = at_panel.ui, at_panel.desk, at_panel.panel.templates.menu
    monkeypatch.setenv("FOUNDATIONSEG_SEGMENT_TEMPLATES", str(tmp_path))

    def use(text):
        at_panel.panel.templates.fill()
        unwrap(next(action for action in menu.actions() if action.text == text)).trigger()
        at_panel.let_pass()

    use("Pelvis")
    assert at_panel.names()[:3] == ["Bladder", "Prostate", "Uterus"]
    assert "SCT" in at_panel.segmentation.GetNthSegment(0).GetTerminology()
    at_panel.segmentation.GetNthSegment(0).SetColor(0.2, 0.4, 0.6)
    desk.answer_dialogs(enter("My pelvis"))
    use("Save these segments as a template…")
    use("Pelvis")
    assert "there already" in ui.messageLabel.text
    desk.choose(ui.segmentationSelector, None)
    use("My pelvis")
    assert at_panel.names()[0] == "Bladder" and len(at_panel.names()) == 7
    assert at_panel.segmentation.GetNthSegment(0).GetColor() == pytest.approx((0.2, 0.4, 0.6))
    (tmp_path / "bad.toml").write_text("id = 'bad'\ntitle = 'Bad'\nsegments = [{ name = '', color = [300] }]")
    unwrap(menu).aboutToShow.emit()
    assert "bad" in ui.messageLabel.text


def test_the_tour_goes_on_with_what_the_user_does(at_panel):
    ui, desk = at_panel.ui, at_panel.desk
    desk.click(ui.tourButton)
    assert ui.tourFrame.visible and "Step 1 of 5" in ui.tourLabel.text
    for _step in range(3):
        desk.click(ui.tourNextButton)
    assert "Step 4 of 5" in ui.tourLabel.text
    at_panel.box((5, 6, 4), (14, 20, 4))
    assert "Step 5 of 5" in ui.tourLabel.text and ui.tourNextButton.text == "Done"
    desk.click(ui.tourNextButton)
    assert not ui.tourFrame.visible
