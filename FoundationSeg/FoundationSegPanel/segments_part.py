"""The segments and the templates of their names, the prompts of the selected one, propagation, and prompts files."""

import re
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.catalog import label_sets
from FoundationSegLib.errors import InputError
from FoundationSegLib.mrml.classification import show_uncertainty
from FoundationSegLib.mrml.segment_tags import group as tagged_group
from FoundationSegLib.mrml.terminology import known_names
from FoundationSegLib.prompts.kinds import Polarity, Prompt
from FoundationSegLib.prompts.placement import prompt_positions
from FoundationSegLib.prompts.prompts_file import read_prompts, write_prompts
from FoundationSegLib.requests.segmentation import HandOver, Propagation
from FoundationSegLib.requests.uncertainty import uncertainty, uncertainty_request
from FoundationSegLib.session.measures import MeasuresTable, measures_csv, repeated_request
from FoundationSegLib.session.segment_store import NewSegment
from FoundationSegLib.session.segments import export_prompts
from FoundationSegLib.worker.protocol import Answered, Event, Failed

from .parameters import PanelState
from .slices import jump_to, prompt_text, range_text, slice_in_view
from .widgets import Part, Report, fill_table, offer, save_table, selected_rows, set_up_table, slot

_FILTER = "prompts.json (*.json)"
_NUMBER = re.compile(r"[\s_-]*\d+$")
_LOWEST, _HIGHEST = 92, 192  # of the table in pixels: three rows, and eight
_IDLE_MS = 300  # after the last change; a segment is measured in up to a tenth of a second


class SegmentsPart(Part):
    """Slicer's own table of segments, new ones, the lock, and what is known of the selected one.

    Attributes:
        has_moved_rows: Slicer's table has to make its rows anew, since those that were moved have lost their icons.
    """

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        super().__init__(ui, state, report)
        self._is_showing = self.has_moved_rows = False
        ui.kindBox.addItems(["Segment", *known_names()])
        self._measures = MeasuresTable()
        self._measuring = qt.QTimer()
        self._measuring.setSingleShot(True)
        self._measuring.connect("timeout()", self._measure)
        self._set_up_table()
        self._connect(ui.segmentsTable, self._selected, "selectionChanged(QItemSelection,QItemSelection)")
        self._connect(ui.segmentsTable, self._open_menu, "customContextMenuRequested(QPoint)")
        self._connect(ui.kindBox, self._kind_edited, "editTextChanged(QString)")
        self._connect(ui.addButton, lambda: state.add_segment())
        self._connect(ui.lockButton, self._lock, "clicked(bool)")
        self._connect(ui.deleteButton, lambda: self._clear(removes=True))
        self._connect(ui.reportButton, self._write_report)

    def _lock(self, is_locked: bool) -> None:
        try:
            self._controller.lock(is_locked)
        finally:
            self._show_summary()  # where it was refused, the button is as it was

    def _write_report(self) -> None:
        from FoundationSegLib.api_nodes import report_nodes

        path = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Write a report"), "report.html", _("Page (*.html)")
        )
        if path:
            report_nodes(path, [self._controller.segmentation_node])
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(path))

    def _set_up_table(self) -> None:
        """Give Slicer's table columns for measures, let it sort, and put our menu in the place of its own."""
        table, model = self._ui.segmentsTable, self._ui.segmentsTable.model()
        self._first_measure = model.columnCount()
        titles = (
            (_("ml"), _("Volume in millilitres")),
            (_("mm"), _("Longest diameter within one slice, in mm")),
            (_("Slice"), _("The slice with the longest diameter, from 0")),
        )
        model.setColumnCount(self._first_measure + len(titles))
        for column, (text, explanation) in enumerate(titles, start=self._first_measure):
            item = qt.QStandardItem(text)
            item.setToolTip(explanation)
            model.setHorizontalHeaderItem(column, item)
        view = table.tableWidget()
        view.horizontalHeader().setSortIndicator(-1, qt.Qt.AscendingOrder)  # in the order of the segmentation
        view.setSortingEnabled(True)
        table.setContextMenuPolicy(qt.Qt.CustomContextMenu)
        bar = self._ui.segmentsArea.verticalScrollBar()  # its range changes with the height of the panel
        self._connect(bar, self._fit_table, "rangeChanged(int,int)")

    def _fit_table(self) -> None:
        """Give the table the height at which the buttons below it are in sight."""
        ui, table = self._ui, self._ui.segmentsTable
        row = ui.timeButton if ui.timeButton.isVisible() else ui.propagateButton
        room = self._ui.segmentsArea.viewport().height - (row.y + row.height - table.height)
        table.setMinimumHeight(min(_HIGHEST, max(_LOWEST, room)))

    def show(self) -> None:
        """Show the segments of the segmentation, and the selected one."""
        parameters, controller, table = self._parameters, self._controller, self._ui.segmentsTable
        has_selection = controller.selected_node_segment is not None
        self._is_showing = True
        try:
            if self.has_moved_rows:
                self.has_moved_rows = False
                table.setSegmentationNode(None)
            if table.segmentationNode() is not controller.segmentation_node:
                table.setSegmentationNode(controller.segmentation_node)
            selection = list(table.selectedSegmentIDs())
            if controller.segmentation_node is not None and (controller.segment_id in selection) != has_selection:
                table.setSelectedSegmentIDs([controller.segment_id] if has_selection else [])
            if self._ui.kindBox.currentText != parameters.kind:
                self._ui.kindBox.setEditText(parameters.kind)
        finally:
            self._is_showing = False
        self._ui.addButton.setEnabled(parameters.volume is not None)
        for button in (self._ui.lockButton, self._ui.deleteButton, self._ui.reportButton):
            button.setEnabled(has_selection)
        self._show_summary()
        self._measuring.start(_IDLE_MS)

    @slot
    def _measure(self) -> None:
        """Measure a segment at a time while nothing else goes on, and show what is known."""
        session = self._controller.session
        if session is None or self._parameters is None or session.is_gone:
            return
        if self._controller.is_busy:
            self._measuring.start(_IDLE_MS)
            return
        if self._measures.measure_next(session):
            self._measuring.start(0)
        table, proxy = self._ui.segmentsTable, self._ui.segmentsTable.sortFilterProxyModel()
        ids = list(table.displayedSegmentIDs())
        rows = [proxy.mapToSource(proxy.index(n, 0)).row() for n in range(len(ids))]
        for key, row in zip(ids, rows, strict=True):  # rows of the source: those that are shown are sorted meanwhile
            measures = self._measures.measures.get(key)
            numbers = (measures.volume_ml, measures.diameter_mm, measures.slice_number) if measures is not None else ()
            for column, number in enumerate(numbers, start=self._first_measure):
                item, shown = table.model().item(row, column), None if number is None else round(number, 2)
                if item.data(qt.Qt.DisplayRole) != shown:
                    item.setData(shown, qt.Qt.DisplayRole)

    def _show_summary(self) -> None:
        summary = self._controller.summary()
        self._ui.segmentLabel.setVisible(summary is not None)
        if summary is None:
            return
        self._ui.lockButton.setChecked(summary.is_locked)
        if summary.volume_ml is None:
            texts = [_("<b>{count} pixels</b>").format(count=summary.voxels)]
        else:
            volume = _("<b>{volume} ml</b>").format(volume=f"{summary.volume_ml:.2f}")
            texts = [volume, _("voxels: {count}").format(count=summary.voxels)]
        texts.append(_("prompts: {count}").format(count=len(summary.prompts)))
        if summary.model:
            texts.append(_("by {model}").format(model=summary.model))
        if summary.is_locked:
            texts.append(_("locked"))
        self._ui.segmentLabel.setText(" · ".join(texts))

    def _selected(self) -> None:
        if self._is_showing or self._parameters is None:
            return
        controller, selection = self._controller, list(self._ui.segmentsTable.selectedSegmentIDs())
        if selection and controller.segment_id not in selection:
            controller.select(selection[0])
            if self._parameters.volume is not None:
                controller.open()  # its prompts and its volume are known then
        elif selection != [controller.segment_id]:
            controller.on_update("segments")  # one is always worked on, and the table says which

    def _clear(self, removes: bool) -> None:
        selection = list(self._ui.segmentsTable.selectedSegmentIDs())
        if selection:
            self._controller.clear(selection, removes)

    def _open_menu(self, position: Any) -> None:
        """Offer what can be done to the selected segments. What changes voxels goes through the session's history."""
        table = self._ui.segmentsTable
        if not table.selectedSegmentIDs():
            return
        menu = qt.QMenu(table)
        for text, action in (
            (_("Select its group (the same name, numbered)"), self._select_groups),
            (_("Show or hide"), table.toggleSelectedSegmentsVisibility),
            (_("Show only these"), table.showOnlySelectedSegments),
            (_("Jump to it in the slice views"), table.jumpSlices),
            (_("Move up"), table.moveSelectedSegmentsUp),
            (_("Move down"), table.moveSelectedSegmentsDown),
            (_("Save their measures as a table…"), self._save_measures),
            (_("Clear (undo brings it back)"), lambda: self._clear(removes=False)),
            (_("Delete (undo brings it back)"), lambda: self._clear(removes=True)),
        ):
            self._connect(menu.addAction(text), action, "triggered()")
        menu.exec_(table.mapToGlobal(position))
        menu.deleteLater()

    def _groups(self) -> dict[str, str]:
        """The groups of all segments by id: that of their tag, else the name without its number."""
        segmentation = self._controller.segmentation_node.GetSegmentation()
        segments = {key: segmentation.GetSegment(key) for key in segmentation.GetSegmentIDs()}
        return {
            key: tagged_group(segment) or _NUMBER.sub("", segment.GetName().strip())
            for key, segment in segments.items()
        }

    def _select_groups(self) -> None:
        """Select all segments of the groups that selected ones belong to."""
        groups, table = self._groups(), self._ui.segmentsTable
        chosen = {groups[key] for key in table.selectedSegmentIDs()}
        table.setSelectedSegmentIDs([key for key, group in groups.items() if group in chosen])

    def _save_measures(self) -> None:
        groups, selection = self._groups(), list(self._ui.segmentsTable.selectedSegmentIDs())
        chosen = {key: groups[key] for key in selection}
        save_table(_("Save measures"), lambda: measures_csv(self._controller.open(), chosen), _("measures.csv"))

    def _kind_edited(self, text: str) -> None:
        if not self._is_showing and self._parameters is not None:
            self._parameters.kind = text


class PromptsPart(Part):
    """The table of prompts and what can be done to them; propagation."""

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        super().__init__(ui, state, report)
        self._shown: tuple[tuple[str, Prompt], ...] = ()
        self._connect(ui.promptsSection, self._unfolded, "contentsCollapsed(bool)")
        ends = (("both", _("Both ways")), ("up", _("Towards higher numbers")), ("down", _("Towards lower numbers")))
        self._direction = self._choice_box(ui.directionBox, "direction", ends)
        between = (("model", _("Ask the model")), ("interpolate", _("Interpolate between mine")))
        self._between = self._choice_box(ui.betweenBox, "between", between)
        self._connect(ui.uncertaintyButton, self._ask_uncertainty)
        set_up_table(ui.promptsTable, [_("Prompt"), _("Sign"), _("Place")])
        self._connect(ui.promptsTable, self._jump, "cellDoubleClicked(int,int)")
        self._connect(ui.removePromptButton, lambda: self._controller.remove_prompts(self._selected_keys()))
        self._connect(ui.flipPromptButton, lambda: self._controller.flip_prompts(self._selected_keys()))
        self._connect(ui.askAgainButton, self._controller.ask_again)
        self._connect(ui.importPromptsButton, self._import)
        self._connect(ui.exportPromptsButton, self._export)
        self._connect(ui.propagateButton, self._propagate)
        self._connect(ui.rangeBox, self._range_clicked, "clicked(bool)")
        self._connect(ui.rangeFromHereButton, lambda: self._limit_here("rangeFrom"))
        self._connect(ui.rangeToHereButton, lambda: self._limit_here("rangeTo"))

    def show(self) -> None:
        """Show the prompts of the selected segment."""
        controller, ui = self._controller, self._ui
        self._direction.show(self._parameters.direction)
        self._between.show(self._parameters.between)
        self._show_range()
        summary = controller.summary()
        prompts = tuple(summary.prompts.items()) if summary is not None else ()
        if prompts != self._shown and not ui.promptsSection.collapsed:  # what is folded is filled when it is opened
            self._shown = prompts
            node = controller.volume_node
            fill_table(ui.promptsTable, [_row(prompt, node) for _key, prompt in prompts])
        for button in (ui.removePromptButton, ui.flipPromptButton, ui.askAgainButton, ui.uncertaintyButton):
            button.setEnabled(bool(prompts))
        self.show_busy()
        ui.importPromptsButton.setEnabled(self._parameters.volume is not None)
        node = controller.segmentation_node
        has_segments = node is not None and node.GetSegmentation().GetNumberOfSegments() > 0
        ui.exportPromptsButton.setEnabled(controller.volume_node is not None and has_segments)

    def _unfolded(self, is_collapsed: bool) -> None:
        if not is_collapsed and self._parameters is not None:
            self.show()

    def show_busy(self) -> None:
        """Offer propagation where there are other slices, unless it is under way."""
        controller, reason = self._controller, ""
        if self._parameters.volume is None:
            reason = _("Choose an image first.")
        elif self._state.last_slice() == 0:
            reason = _("The image is flat: there is no other slice to carry a segment on to.")
        elif controller.selected_node_segment is None:  # also what was drawn by hand is carried on
            reason = _("Select a segment in the table first.")
        elif controller.session is not None and controller.session.is_propagating:
            reason = _("A propagation is under way.")
        offer(self._ui.propagateButton, reason)

    def _selected_keys(self) -> tuple[str, ...]:
        rows = selected_rows(self._ui.promptsTable)
        keys = tuple(self._shown[row][0] for row in rows if row < len(self._shown))
        if not keys:
            raise InputError(_("select prompts in the table first"))
        return keys

    def _jump(self, row: int, column: int) -> None:
        middle = _middle(self._shown[row][1]) if row < len(self._shown) else ()
        if middle:
            jump_to(self._controller.volume_node, middle)

    def _range_clicked(self, is_limited: bool) -> None:
        if is_limited and not self._parameters.rangeTo:
            self._parameters.rangeTo = self._state.last_slice()

    def _limit_here(self, end: str) -> None:
        number = slice_in_view(self._parameters.volume, "k").start
        self._range_clicked(True)
        self._parameters.rangeLimited = True
        setattr(self._parameters, end, number)

    def _show_range(self) -> None:
        ui, parameters = self._ui, self._parameters
        for widget in (ui.rangeFromBox, ui.rangeToLabel, ui.rangeToBox):
            widget.setEnabled(parameters.rangeLimited)
        is_named = parameters.rangeLimited and parameters.volume is not None
        ends = sorted((parameters.rangeFrom, parameters.rangeTo))
        ui.rangeMmLabel.setText(range_text(parameters.volume, *ends) if is_named else "")

    def _propagate(self) -> None:
        self._state.prepare()
        parameters = self._parameters
        limits = (parameters.rangeFrom, parameters.rangeTo + 1) if parameters.rangeLimited else (None, None)
        hand_over: HandOver = "interpolate" if parameters.between == "interpolate" else "auto"
        self._controller.propagate(Propagation(*limits, parameters.direction, hand_over))

    def _ask_uncertainty(self) -> None:
        """Ask several times with jittered prompts; what comes of it is a volume, and no segment changes."""
        self._state.prepare()
        controller, segment = self._controller, self._controller.selected()
        name = segment.session.segment_name(segment.segment_id)
        request = repeated_request(segment.session, segment.segment_id)
        request = uncertainty_request(request, segment.session.volume.geometry)
        controller.send_image()
        controller.submit(request, lambda event: self._take_uncertainty(event, name))

    def _take_uncertainty(self, event: Event, name: str) -> None:
        volume_node = self._controller.volume_node
        if isinstance(event, Failed):
            self.report(event.error)
        elif isinstance(event, Answered) and volume_node is not None:
            node = show_uncertainty(slicer.mrmlScene, uncertainty(event.answer), name, volume_node)
            slicer.util.setSliceViewerLayers(foreground=node, foregroundOpacity=0.6)

    def _import(self) -> None:
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Import prompts"), "", _FILTER)
        if path:
            self._state.prepare()
            self._controller.import_prompts(read_prompts(Path(path)))

    def _export(self) -> None:
        path = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), _("Export prompts"), "prompts.json", _FILTER)
        if path:
            write_prompts(Path(path), export_prompts(self._controller.open()))


def _row(prompt: Prompt, volume_node: Any) -> tuple[str, str, str]:
    kind = {
        "point": _("point"),
        "box": _("box"),
        "scribble": _("scribble"),
        "lasso": _("lasso"),
        "mask": _("mask"),
        "text": _("text"),
        "class": _("class"),
    }[prompt.kind]
    return kind, "-" if prompt.polarity is Polarity.NEGATIVE else "+", prompt_text(prompt, volume_node)


def _middle(prompt: Prompt) -> tuple[float, ...]:
    """The mean of a prompt's positions in RAS, in mm; empty for one without any."""
    return tuple(sum(axis) / len(axis) for axis in zip(*prompt_positions(prompt), strict=True))


class TemplatesPart(Part):
    """The button with the menu; the templates are read whenever it opens."""

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        super().__init__(ui, state, report)
        self.menu = qt.QMenu(ui.templatesButton)
        ui.templatesButton.setMenu(self.menu)
        self._connect(self.menu, self.fill, "aboutToShow()")

    def show(self) -> None:
        """Show whether there is an image to make segments for."""
        self._ui.templatesButton.setEnabled(self._parameters.volume is not None)

    def fill(self) -> None:
        """Offer the templates as they are now."""
        self.menu.clear()
        self._add(_("Save these segments as a template…"), self._save)
        self._add(_("Folder of your templates…"), self._open_folder)
        self.menu.addSeparator()
        for template in label_sets.read_templates().values():
            self._add(template.title, lambda template=template: self._use(template))

    def _add(self, text: str, act: Any) -> None:
        self._connect(self.menu.addAction(text), lambda: act(), "triggered()")

    def _use(self, template: label_sets.SegmentTemplate) -> None:
        """Add an empty segment for each name that is not there yet, and select the first."""
        self._state.prepare()
        controller = self._controller
        controller.on_update("choices")
        session = controller.open()
        names = {session.segment_name(key) for key in session.segment_ids}
        added = []
        for entry in template.segments:
            if entry.name not in names:
                added.append(session.create(NewSegment(entry.name, entry.name)))
                segment = controller.segmentation_node.GetSegmentation().GetSegment(added[-1])
                if entry.terminology:
                    segment.SetTerminology(entry.terminology)
                if entry.color:
                    segment.SetColor(*(level / 255 for level in entry.color))
        if not added:
            raise InputError(_("All segments of this template are there already."))
        controller.select(added[0])

    def _save(self) -> None:
        node = self._controller.segmentation_node
        segmentation = node.GetSegmentation() if node is not None else None
        if segmentation is None or not segmentation.GetNumberOfSegments():
            raise InputError(_("There are no segments to make a template of."))
        segments = [segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments())]
        question = _("Title of the template:")
        title = qt.QInputDialog.getText(slicer.util.mainWindow(), _("Save as a template"), question)
        if str(title).strip():
            label_sets.save_template(str(title).strip(), tuple(_template_segment(segment) for segment in segments))

    def _open_folder(self) -> None:
        folder = label_sets.user_template_folder()
        folder.mkdir(parents=True, exist_ok=True)
        if not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder))):
            raise InputError(_("No program opens folders here. The templates are in {folder}.").format(folder=folder))


def _template_segment(segment: Any) -> label_sets.TemplateSegment:
    color = tuple(round(255 * level) for level in segment.GetColor())
    return label_sets.TemplateSegment(segment.GetName(), color, segment.GetTerminology() or "")
