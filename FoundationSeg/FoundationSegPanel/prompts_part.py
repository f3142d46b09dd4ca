"""The prompts of the selected segment, propagation, and prompts files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib import desk_actions
from FoundationSegLib.errors import InputError
from FoundationSegLib.mrml.volumes import parent_to_world
from FoundationSegLib.prompts.kinds import ClassPrompt, Polarity, Prompt, TextPrompt, prompt_kind
from FoundationSegLib.prompts.placement import prompt_positions
from FoundationSegLib.prompts.prompts_file import read_prompts, write_prompts
from FoundationSegLib.requests.segmentation import Propagation
from FoundationSegLib.session.segments import SegmentSession, export_prompts

from .choices import ChoiceBox
from .slots import slot

if TYPE_CHECKING:
    from .panel import Panel

_FILTER = "prompts.json (*.json)"


class PromptsPart:
    """The table of prompts and what can be done to them; propagation."""

    def __init__(self, panel: "Panel") -> None:
        self._panel, self._ui = panel, panel.ui
        self.tell = panel.tell
        ui = self._ui
        self._shown: tuple[tuple[str, Prompt], ...] = ()
        self._direction = ChoiceBox(ui.directionBox, self._direction_chosen)
        ends = (("both", _("Both ways")), ("up", _("Towards higher numbers")), ("down", _("Towards lower numbers")))
        self._direction.fill(ends)
        ui.promptsTable.setColumnCount(3)
        ui.promptsTable.setHorizontalHeaderLabels([_("Prompt"), _("Sign"), _("Place")])
        ui.promptsTable.horizontalHeader().setStretchLastSection(True)
        ui.promptsTable.verticalHeader().setVisible(False)
        ui.promptsTable.connect("cellDoubleClicked(int,int)", self._jump)
        ui.removePromptButton.connect("clicked()", self._remove)
        ui.flipPromptButton.connect("clicked()", self._turn)
        ui.askAgainButton.connect("clicked()", self._ask_again)
        ui.importPromptsButton.connect("clicked()", self._import)
        ui.exportPromptsButton.connect("clicked()", self._export)
        ui.propagateButton.connect("clicked()", self._propagate)
        ui.rangeBox.connect("clicked(bool)", self._range_clicked)

    def show(self) -> None:
        """Show the prompts of the selected segment."""
        desk, ui = self._panel.desk, self._ui
        self._direction.show(self._panel.parameters.direction)
        found: tuple[tuple[str, Prompt], ...] = ()
        session = desk.session
        if desk_actions.summary(desk) is not None and session is not None:
            found = tuple(SegmentSession(session, desk.segment_id).prompts.items())
        if found != self._shown:
            self._shown = found
            self._fill()
        for button in (ui.removePromptButton, ui.flipPromptButton, ui.askAgainButton):
            button.setEnabled(bool(found))
        ui.propagateButton.setEnabled(desk_actions.has_selected(desk))  # also what was drawn by hand
        ui.importPromptsButton.setEnabled(self._panel.parameters.volume is not None)
        ui.exportPromptsButton.setEnabled(desk.volume_node is not None and _has_segments(desk.segmentation_node))

    def _fill(self) -> None:
        table = self._ui.promptsTable
        table.setRowCount(len(self._shown))
        for row, (_key, prompt) in enumerate(self._shown):
            is_negative = prompt.polarity is Polarity.NEGATIVE
            texts = (_kind_text(prompt), "-" if is_negative else "+", _place_text(prompt))
            for column, text in enumerate(texts):
                table.setItem(row, column, qt.QTableWidgetItem(text))

    def _chosen(self) -> tuple[str, ...]:
        rows = sorted({index.row() for index in self._ui.promptsTable.selectionModel().selectedRows()})
        keys = tuple(self._shown[row][0] for row in rows if row < len(self._shown))
        if not keys:
            raise InputError(_("select prompts in the table first"))
        return keys

    @slot
    def _jump(self, row: int, column: int) -> None:
        positions = prompt_positions(self._shown[row][1]) if row < len(self._shown) else ()
        if positions:
            middle = [sum(axis) / len(axis) for axis in zip(*positions, strict=True)]
            world = parent_to_world(self._panel.desk.volume_node) @ (*middle, 1.0)
            for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
                node.JumpSliceByOffsetting(*world[:3])

    @slot
    def _remove(self) -> None:
        desk_actions.remove_prompts(self._panel.desk, self._chosen())

    @slot
    def _turn(self) -> None:
        desk_actions.turn_prompts(self._panel.desk, self._chosen())

    @slot
    def _ask_again(self) -> None:
        desk_actions.ask_again(self._panel.desk)

    @slot
    def _direction_chosen(self, direction: str) -> None:
        self._panel.parameters.direction = direction

    @slot
    def _range_clicked(self, is_limited: bool) -> None:
        wanted = self._panel.parameters
        if is_limited and not wanted.rangeTo:
            wanted.rangeTo = self._panel.image.last_slice()

    @slot
    def _propagate(self) -> None:
        self._panel.make_ready()
        wanted = self._panel.parameters
        start, stop = (wanted.rangeFrom, wanted.rangeTo + 1) if wanted.rangeLimited else (None, None)
        desk_actions.propagate(self._panel.desk, Propagation(start, stop, wanted.direction))

    @slot
    def _import(self) -> None:
        path = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Import prompts"), "", _FILTER)
        if path:
            self._panel.make_ready()
            desk_actions.take_prompts(self._panel.desk, read_prompts(Path(path)))

    @slot
    def _export(self) -> None:
        path = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), _("Export prompts"), "prompts.json", _FILTER)
        if path:
            write_prompts(Path(path), export_prompts(self._panel.desk.opened()))


def _has_segments(segmentation_node: Any) -> bool:
    return segmentation_node is not None and segmentation_node.GetSegmentation().GetNumberOfSegments() > 0


def _kind_text(prompt: Prompt) -> str:
    return {
        "point": _("point"),
        "box": _("box"),
        "scribble": _("scribble"),
        "lasso": _("lasso"),
        "mask": _("mask"),
        "text": _("text"),
        "class": _("class"),
    }[prompt_kind(prompt)]


def _place_text(prompt: Prompt) -> str:
    """Where a prompt is, right, anterior and superior positive in mm; or its words."""
    if isinstance(prompt, TextPrompt):
        return prompt.text
    if isinstance(prompt, ClassPrompt):
        return prompt.name
    positions = prompt_positions(prompt)
    if not positions:
        return ""
    return ", ".join(f"{sum(axis) / len(axis):.1f}" for axis in zip(*positions, strict=True))
