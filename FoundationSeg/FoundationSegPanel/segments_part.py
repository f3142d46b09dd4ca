"""The segments: Slicer's own table of them, new ones, the lock, and what is known of the selected one."""

from typing import TYPE_CHECKING

from slicer.i18n import tr as _

from FoundationSegLib.desk_actions import add_segment, has_selected, lock, select, summary
from FoundationSegLib.mrml.segment_tags import known_names

from .slots import slot

if TYPE_CHECKING:
    from .panel import Panel


class SegmentsPart:
    """The table of segments and what belongs to it."""

    def __init__(self, panel: "Panel") -> None:
        self._panel, self._ui = panel, panel.ui
        self.tell = panel.tell
        self._is_showing = False
        for name in ("Segment", *known_names()):
            self._ui.kindBox.addItem(name)
        self._ui.segmentsTable.connect("selectionChanged(QItemSelection,QItemSelection)", self._selected)
        self._ui.kindBox.connect("editTextChanged(QString)", self._kind_edited)
        self._ui.addButton.connect("clicked()", self._add)
        self._ui.nextButton.connect("clicked()", self._next)
        self._ui.lockButton.connect("clicked(bool)", self._lock)

    def show(self) -> None:
        """Show the segments of the segmentation, and the selected one."""
        wanted, desk, table = self._panel.parameters, self._panel.desk, self._ui.segmentsTable
        self._is_showing = True
        try:
            if table.segmentationNode() is not desk.segmentation_node:
                table.setSegmentationNode(desk.segmentation_node)
            shown = [desk.segment_id] if has_selected(desk) else []
            if desk.segmentation_node is not None and list(table.selectedSegmentIDs()) != shown:
                table.setSelectedSegmentIDs(shown)
            if self._ui.kindBox.currentText != wanted.kind:
                self._ui.kindBox.setEditText(wanted.kind)
        finally:
            self._is_showing = False
        has_image = wanted.volume is not None
        self._ui.addButton.setEnabled(has_image)
        self._ui.nextButton.setEnabled(has_image)
        self._show_selected()

    def add(self, numbered: bool = False) -> None:
        """A new segment, selected."""
        self._panel.ensure_segmentation()
        self._panel.follow()
        add_segment(self._panel.desk, numbered)

    def _show_selected(self) -> None:
        known = summary(self._panel.desk)
        self._ui.lockButton.setEnabled(has_selected(self._panel.desk))
        self._ui.segmentLabel.setVisible(known is not None)
        if known is None:
            return
        self._ui.lockButton.setChecked(known.is_locked)
        parts = [
            _("<b>{volume} ml</b>").format(volume=f"{known.volume_ml:.2f}"),
            _("voxels: {count}").format(count=known.voxels),
            _("prompts: {count}").format(count=known.prompts),
        ]
        if known.model:
            parts.append(_("by {model}").format(model=known.model))
        if known.is_locked:
            parts.append(_("locked"))
        self._ui.segmentLabel.setText(" · ".join(parts))

    @slot
    def _selected(self) -> None:
        if self._is_showing or self._panel.parameters is None:
            return
        desk, chosen = self._panel.desk, list(self._ui.segmentsTable.selectedSegmentIDs())
        if chosen and desk.segment_id not in chosen:
            select(desk, chosen[0])
            if self._panel.parameters.volume is not None:
                desk.opened()  # its prompts and its volume are known then
        elif chosen != [desk.segment_id]:
            self._panel.show_soon()  # one is always worked on, and the table says which

    @slot
    def _kind_edited(self, text: str) -> None:
        if not self._is_showing and self._panel.parameters is not None:
            self._panel.parameters.kind = text

    @slot
    def _add(self) -> None:
        self.add()

    @slot
    def _next(self) -> None:
        self.add(numbered=True)

    @slot
    def _lock(self, is_locked: bool) -> None:
        lock(self._panel.desk, is_locked)
