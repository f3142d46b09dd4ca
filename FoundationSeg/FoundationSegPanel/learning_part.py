"""More objects like a segment of the user, and a model that learns from completed segments."""

import html
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.codec import frozen
from FoundationSegLib.errors import Cancelled, FoundationSegError, InputError
from FoundationSegLib.imaging.masks import PackedMask, SegmentChange
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.segment_tags import group, set_group
from FoundationSegLib.mrml.volumes import volume_from_node
from FoundationSegLib.progress import ProgressReport, TimeLeft
from FoundationSegLib.prompts.placement import box_prompt
from FoundationSegLib.session.measures import measure_mask, measures_csv
from FoundationSegLib.session.segments import add_objects
from FoundationSegLib.worker.protocol import Answered, Event, Failed

from .model_installer import Callbacks, ModelInstaller
from .model_texts import picture_html
from .parameters import PanelState
from .slices import jump_to
from .widgets import Dialog, Part, Report, fill_table, is_image, save_table, selected_rows, set_up_table, show_fraction
from .widgets import error_text as shown_text
from .widgets import offer as offer_button
from .widgets import time_left_text as left_text

if TYPE_CHECKING:
    from FoundationSegLib.mrml.files import CorrectedImage
    from FoundationSegLib.requests import adaptation

_SECONDS = {"lite-medsam": (0.5, 0.5, 0.8)}  # for a slice, a step and a test object, on two CPU cores
_TESTED, _EXAMPLE_PX, _CURVE_PX = 90, 200, (360, 110)


@frozen
class _ProposalRow:
    """A proposal with its image and measures; ``node`` is the image's, ``ml`` and ``mm`` None for one in pixels."""

    proposal: "adaptation.Proposal"
    node: Any
    volume: Volume
    slice_number: int
    ml: float | None
    mm: float | None

    @staticmethod
    def of(proposal: "adaptation.Proposal", node: Any, volume: Volume) -> "_ProposalRow":
        sizes = measure_mask(proposal.mask, volume)
        return _ProposalRow(proposal, node, volume, sizes.slice_number or 0, sizes.volume_ml, sizes.diameter_mm)

    @property
    def sort_keys(self) -> tuple[Any, ...]:
        """The values of the table's columns."""
        numbers = (self.ml, self.mm, self.proposal.likeness, self.proposal.score)
        return (self.volume.name, self.slice_number, *(-math.inf if value is None else value for value in numbers))

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the table's columns."""
        sizes = ("" if size is None else f"{size:.2f}" for size in (self.ml, self.mm))
        score = self.proposal.score
        confidence = "" if score is None else f"{100 * score:.0f} %"
        return self.volume.name, str(self.slice_number), *sizes, f"{self.proposal.likeness:.2f}", confidence


class LearningPart(Part):
    """The section with the proposals of more objects, the table of measures, and the button of the dialog."""

    def __init__(self, ui: Any, state: PanelState, report: Report) -> None:
        super().__init__(ui, state, report)
        self._rows: list[_ProposalRow] = []
        self._images: dict[str, tuple[Any, Volume]] = {}
        self._choice: Any = None  # the model and intensity of the proposals
        self._kind = self._example_id = ""
        self._sorted = (4, True)
        self._dialog: TeachDialog | None = None
        # Not better than a copied mask and thresholds: the evidence page has the figures.
        self._is_wanted = False
        headings = [_("Image"), _("Slice"), _("ml"), _("mm"), _("Likeness"), _("Confidence")]
        set_up_table(ui.proposalsTable, headings, stretch=0)
        self._connect(ui.proposalsTable, self._show_selected, "itemSelectionChanged()")
        self._connect(ui.proposalsTable.horizontalHeader(), self._sort, "sectionClicked(int)")
        self._connect(ui.similarButton, self._find)
        self._connect(ui.similarLabel, self._show_anyway, "linkActivated(QString)")
        self._connect(ui.acceptProposalButton, lambda: self._accept(self._selected()))
        self._connect(ui.acceptAllProposalsButton, lambda: self._accept(self._rows))
        self._connect(ui.rejectProposalButton, lambda: self._reject(self._selected()))
        self._connect(ui.measuresButton, self._export)
        self._connect(ui.teachButton, self._teach)

    def show(self) -> None:
        """Show what can be done with the selected segment, and the proposals of images that are still there."""
        ui, controller, card = self._ui, self._controller, self._state.card
        has_segment = controller.selected_node_segment is not None
        can_find = card is not None and not card.sees_volumes and card.takes("box")
        ui.similarFrame.setVisible(can_find and self._is_wanted)
        ui.similarLabel.setVisible(can_find and not self._is_wanted)
        ui.similarButton.setEnabled(has_segment and not controller.is_busy)
        ui.teachButton.setEnabled(card is not None and not card.sees_volumes and not card.base)
        node = controller.segmentation_node
        ui.measuresButton.setEnabled(node is not None and node.GetSegmentation().GetNumberOfSegments() > 0)
        present = [row for row in self._rows if row.node.GetScene() is not None]
        if len(present) < len(self._rows):
            self._rows = present
            self._fill()
        self._show_actions()

    def _show_anyway(self) -> None:
        self._is_wanted = True
        self.show()

    def close(self) -> None:
        """Close the dialog, and end what it has under way."""
        if self._dialog is not None:
            self._dialog.close()
            self._dialog = None

    def _show_actions(self) -> None:
        ui, has_rows = self._ui, bool(self._rows)
        buttons = ui.acceptProposalButton, ui.acceptAllProposalsButton, ui.rejectProposalButton
        for widget in (ui.proposalsTable, *buttons):
            widget.setVisible(has_rows)

    def _find(self) -> None:
        """Search the image, and where the user wants it the scene's other images."""
        from FoundationSegLib.requests.adaptation import SimilarRequest

        controller, card = self._controller, self._state.card
        segment = controller.selected()
        mask, volume = segment.session.mask(segment.segment_id), controller.send_image()
        self._forget()
        self._images = {volume.key: (controller.volume_node, volume)}
        if self._ui.similarOthersBox.checked:
            for node in filter(is_image, slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")):
                if node is not controller.volume_node:
                    other = volume_from_node(node)
                    controller.client.send_volume(other)
                    self._images[other.key] = node, other
        self._choice, self._example_id = controller.options.choice, segment.segment_id
        self._kind = segment.session.segment_name(segment.segment_id).rstrip("0123456789 ") or _("Object")
        intensity = self._parameters.intensity or "auto"
        request = SimilarRequest(0, card.id, volume.key, mask, tuple(self._images), intensity)
        controller.submit(request, self._take)

    def _take(self, event: Event) -> None:
        if isinstance(event, Failed):
            self.report(event.error)
        elif isinstance(event, Answered):
            proposals = event.answer.proposals
            self._rows = [_ProposalRow.of(proposal, *self._images[proposal.volume_key]) for proposal in proposals]
            self._fill()
            if not self._rows:
                self.report(InputError(_("Nothing was found that is like this segment and about as large.")))
            self.show()

    def _forget(self) -> None:
        """Let go of the proposals, and of the images that were sent for them."""
        for key, (node, _volume) in self._images.items():
            if node is not self._controller.volume_node:
                self._controller.client.remove_volume(key)
        self._images, self._rows = {}, []
        self._fill()

    def _fill(self) -> None:
        column, is_falling = self._sorted
        self._rows.sort(key=lambda row: row.sort_keys[column], reverse=is_falling)
        self._ui.proposalsTable.clearSelection()
        fill_table(self._ui.proposalsTable, [row.texts for row in self._rows])
        self._show_actions()

    def _sort(self, column: int) -> None:
        self._sorted = column, not self._sorted[1] if column == self._sorted[0] else column > 1
        self._fill()

    def _selected(self) -> list[_ProposalRow]:
        if not self._chosen():
            raise InputError(_("select proposals in the table first"))
        return self._chosen()

    def _chosen(self) -> list[_ProposalRow]:
        return [self._rows[n] for n in selected_rows(self._ui.proposalsTable) if n < len(self._rows)]

    def _show_selected(self) -> None:
        """Show the selected proposals of this image in the slice views, which jump to the first."""
        controller = self._controller
        here = [row for row in self._chosen() if row.node is controller.volume_node]
        if not here or controller.segmentation_node is None:
            controller.preview.settle(controller.session)
            return
        changes = [SegmentChange(gained=row.proposal.mask) for row in here]
        controller.preview.show_changes(controller.segmentation_node, here[0].volume.geometry, changes)
        box = here[0].proposal.mask.box
        _k, j, i = [(first + stop - 1) / 2 for first, stop in zip(box.start_kji, box.stop_kji, strict=True)]
        middle = here[0].volume.geometry.to_ras((i, j, here[0].slice_number))
        jump_to(controller.volume_node, middle)

    def _accept(self, rows: Sequence[_ProposalRow]) -> None:
        """Make segments of proposals: numbered, in the example's group, each from a box that can be corrected."""
        controller = self._controller
        here = [row for row in rows if row.node is controller.volume_node]
        if not here:
            raise InputError(_("These are in another image: choose it above first, then accept them."))
        if controller.options.choice != self._choice:
            raise InputError(_("Another model or intensity was chosen since: find them again, to see its masks first."))
        self._state.prepare()
        controller.on_update("choices")
        session, segmentation = controller.open(), controller.segmentation_node.GetSegmentation()
        example = segmentation.GetSegment(self._example_id)
        name = (group(example) if example is not None else "") or self._kind
        boxes = [box_prompt(row.proposal.box, row.volume.geometry) for row in here]
        ids = add_objects(session, boxes, self._kind, controller.options.region, name)
        if example is not None and not group(example):
            set_group(example, name)
        controller.select(ids[-1])
        controller.on_update("segments")
        self._reject(here)

    def _reject(self, rows: Sequence[_ProposalRow]) -> None:
        self._rows = [row for row in self._rows if row not in rows]
        self._fill()
        self._controller.preview.settle(self._controller.session)

    def _export(self) -> None:
        def table() -> str:
            session, segmentation = self._controller.open(), self._controller.segmentation_node.GetSegmentation()
            return measures_csv(session, {key: group(segmentation.GetSegment(key)) for key in session.segment_ids})

        save_table(_("Export measures"), table, _("measures.csv"))

    def _teach(self) -> None:
        """Open the dialog anew, or show it again while it trains or has a result to decide about."""
        if self._dialog is not None and self._dialog.is_busy:
            self._dialog.raise_dialog()
            return
        self.close()
        state, window = self._state, slicer.util.mainWindow()
        intensity = self._parameters.intensity or "auto"
        self._dialog = TeachDialog(state.installer, state.card, intensity, self._kept, window)
        self._dialog.show()

    def _kept(self, card: ModelCard) -> None:
        """Offer and choose a model that was just made."""
        self._state.cards[card.id] = card
        if self._parameters is not None:
            self._parameters.modelId = card.id
        self._controller.on_update("choices")


class TeachDialog(Dialog):
    """Teach a model: what it learns from, the training with its curve, and before and after, to keep or to discard."""

    def __init__(
        self,
        installer: ModelInstaller,
        card: ModelCard,
        intensity: str,
        on_kept: Callable[[ModelCard], None],
        parent: Any = None,
    ) -> None:
        """Build it; :meth:`show` shows it, ``on_kept`` is called with the card of a result that is kept."""
        super().__init__("Teach", _("Teach {title}").format(title=card.title), parent)
        self._installer, self._card, self._intensity, self._on_kept = installer, card, intensity, on_kept
        self._images: list[CorrectedImage] = []
        self._folder: Path | None = None
        self._points: list[adaptation.CurvePoint] = []
        self._result: adaptation.Adaptation | None = None
        self._is_running = False
        self._time_left = TimeLeft()
        ui = self.ui
        set_up_table(ui.casesTable, [_("Image"), _("Segment"), _("Slices")], stretch=0)
        ui.nameEdit.text = "mine"
        self._connect(ui.folderButton, self._choose_folder)
        self._connect(ui.startButton, self._start)
        self._connect(ui.stopButton, installer.cancel)
        self._connect(ui.keepButton, self._keep)
        self._connect(ui.discardButton, self._discard)
        self._connect(ui.closeButton, self.dialog.close)

    def show(self) -> None:
        """Collect what there is to learn from, and show the dialog."""
        self._collect()
        self.raise_dialog()

    @property
    def is_busy(self) -> bool:
        """True while it trains, or a result waits to be kept or discarded."""
        return self._is_running or self._result is not None

    def close(self) -> None:
        """Take the dialog away for good; what was trained so far is gone on with the next time."""
        if self._is_running:
            self._installer.cancel()
        self._result = None
        super().close()

    def report(self, error: FoundationSegError) -> None:
        """Show an error."""
        self._is_running = False
        stopped = _("Stopped. The same start goes on from the last 50 steps.")
        self._say(stopped if isinstance(error, Cancelled) else shown_text(error))
        self._show_state()

    def _say(self, text: str) -> None:
        self.ui.messageLabel.text = text

    def _collect(self) -> None:
        from FoundationSegLib.mrml.files import corrected_files, corrected_images

        folder, self._folder = self._folder, None  # one that cannot be read is forgotten
        self._images = [*corrected_images(slicer.mrmlScene), *(corrected_files(folder) if folder is not None else ())]
        self._folder = folder
        rows = [(image.volume.name, name, str(mask.box.shape_kji[0])) for image, name, mask in self._segments()]
        table = self.ui.casesTable
        ticked = table.rowCount
        fill_table(table, rows)
        for row in range(ticked, len(rows)):
            table.item(row, 0).setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable)
            table.item(row, 0).setCheckState(qt.Qt.Checked)
        self._say("" if rows else _("No segment is marked as completed. Accept one, or set its status in the table."))
        self._show_state()

    def _segments(self) -> "list[tuple[CorrectedImage, str, PackedMask]]":
        """The segments, by the rows of the table."""
        return [(image, *named) for image in self._images for named in image.masks.items()]

    def _choose_folder(self) -> None:
        path = qt.QFileDialog.getExistingDirectory(self.dialog, _("Folder with case.nrrd and case.seg.nrrd"))
        if path:
            self._folder = Path(path)
            self._collect()

    def _show_state(self) -> None:
        ui, result = self.ui, self._result
        ui.folderButton.enabled = ui.nameEdit.enabled = not self.is_busy
        ui.startButton.enabled = bool(self._images) and not self.is_busy
        ui.stopButton.enabled = ui.progressBar.visible = self._is_running
        if result is None:
            offer_button(ui.keepButton, _("There is nothing to keep yet: train first."))
        else:
            offer_button(ui.keepButton, "" if result.passed else _("It is not better than before, beyond chance."))
        ui.discardButton.enabled = ui.resultArea.visible = result is not None
        ui.casesTable.visible = result is None  # each has the room of the other
        ui.estimateLabel.text = self._estimate()

    def _estimate(self) -> str:
        from FoundationSegLib.requests.adaptation import DISGUISES, Training

        if self._card.id not in _SECONDS:
            return _("How long it takes on this computer is shown once it runs.")
        boxes = {(image.volume.key, mask.box) for image in self._images for mask in image.masks.values()}
        slices = len({(key, k) for key, box in boxes for k in range(box.start_kji[0], box.stop_kji[0])})
        encode, step, test = _SECONDS[self._card.id]
        seconds = (slices + DISGUISES) * encode + Training().steps * step + _TESTED * test
        return _("About {minutes} min on two CPU cores that do nothing else.").format(minutes=math.ceil(seconds / 60))

    def _start(self) -> None:
        from FoundationSegLib.api_adaptation import corrected, require_free
        from FoundationSegLib.catalog.catalogue import adapted_id
        from FoundationSegLib.requests.adaptation import AdaptRequest

        name = self.ui.nameEdit.text.strip()
        require_free(adapted_id(self._card, name), self._installer.catalogue)
        segments = []
        for row, (image, segment, mask) in enumerate(self._segments()):
            is_learned = self.ui.casesTable.item(row, 0).checkState() == qt.Qt.Checked
            segments += corrected(image.volume, {segment: mask}, image.patient, elsewhere=not is_learned)
        request = AdaptRequest(1, self._card.id, name, tuple(segments), self._intensity)
        self._points, self._is_running = [], True
        self.ui.resultLabel.text = self.ui.curveLabel.text = ""
        self.ui.progressBar.setRange(0, 0)
        self._time_left.note(None)
        volumes = [image.volume for image in self._images]
        self._installer.adapt(request, volumes, Callbacks(self._finish, self.report, self._progress))
        self._show_state()

    def _progress(self, report: ProgressReport) -> None:
        from FoundationSegLib.requests.adaptation import curve_point

        point = curve_point(report)
        if point is not None:
            self._points.append(point)
            self.ui.curveLabel.text = curve_html(self._points)
            return
        show_fraction(self.ui.progressBar, report)
        self._time_left.note(report)
        stages = {"load": _("Loading the model"), "encode": _("Reading the slices"), "train": _("Training")}
        stages["score"] = _("Testing")
        text = _("{stage}: {done} of {total}")
        text = text.format(stage=stages.get(report.stage, report.stage), done=report.done, total=report.total)
        self._say(f"{text} · {left_text(self._time_left.seconds())}")

    def _finish(self, result: "adaptation.Adaptation") -> None:
        self._result, self._is_running = result, False
        self.ui.resultLabel.text = result_html(result)
        text = _("It is not better than {title} beyond chance, and cannot be kept.")
        if result.passed:
            text = _("It is better than {title} beyond chance. Look at the slices, then keep or discard it.")
        self._say(text.format(title=self._card.title))
        self._show_state()

    def _keep(self) -> None:
        from FoundationSegLib.api_adaptation import keep

        installer = self._installer
        card = keep(self._result, installer.installation.store, installer.catalogue)
        self._result = None
        installer.add_card(card)
        self._say(_("{title} is kept, and chosen in the panel.").format(title=card.title))
        self._show_state()
        self._on_kept(card)

    def _discard(self) -> None:
        from FoundationSegLib.api_adaptation import discard

        discard(self._result, self._installer.installation.store)
        self._result = None
        self.ui.resultLabel.text = self.ui.curveLabel.text = ""
        self._say(_("Discarded. {title} is as it was.").format(title=self._card.title))
        self._show_state()


# Pictures as rich text


def curve_html(points: "Sequence[adaptation.CurvePoint]") -> str:
    """Draw the losses: of the training in grey, on what is held out in blue."""
    import numpy as np

    width, height = _CURVE_PX
    rgb = np.full((height, width, 3), 255, np.uint8)
    steps = [point.step for point in points]
    top = max(max(point.loss, point.held_out) for point in points) or 1.0
    at = np.linspace(0, max(1, steps[-1]), width)
    for values, colour in (([p.loss for p in points], (160, 160, 160)), ([p.held_out for p in points], (30, 90, 200))):
        rows = ((1 - np.interp(at, steps, values) / top) * (height - 1)).round().astype(int)
        for column, (row, after) in enumerate(zip(rows, [*rows[1:], rows[-1]], strict=True)):
            rgb[min(row, after) : max(row, after) + 1, column] = colour
    text = _("Held-out loss {loss} after {count} steps").format(loss=f"{points[-1].held_out:.3f}", count=steps[-1])
    return f"{picture_html(rgb)}<br><small>{html.escape(text)}</small>"


def example_html(example: "adaptation.HeldOutExample") -> str:
    """Draw a slice before and after side by side: the segment's edge in yellow, the answers in blue."""
    import numpy as np

    def drawn(answer: Any) -> Any:
        grey = example.picture if example.picture.ndim == 3 else np.repeat(example.picture[..., None], 3, axis=2)
        rgb = grey.astype(np.float32)
        rgb[answer] = 0.5 * rgb[answer] + 0.5 * np.array((60, 140, 255))
        inner = example.truth.copy()
        for axis in (0, 1):
            for step in (-1, 1):
                inner &= np.roll(example.truth, step, axis)
        rgb[example.truth & ~inner] = (255, 220, 0)
        factor = max(1, round(_EXAMPLE_PX / max(answer.shape)))
        small = max(1, round(max(answer.shape) / _EXAMPLE_PX))
        return np.repeat(np.repeat(rgb[::small, ::small].astype(np.uint8), factor, axis=0), factor, axis=1)

    pair = np.concatenate([drawn(example.before), drawn(example.after)], axis=1)
    text = _("{name}, slice {number}: before and after").format(name=example.name, number=example.slice_number)
    return f"{picture_html(pair)}<br><small>{html.escape(text)}</small>"


def result_html(result: "adaptation.Adaptation") -> str:
    """Return the scores of each kind of prompts, what was left out, and the examples."""
    lines = [_score_line(scores) for scores in result.kinds]
    lines += [_("Elsewhere, {line}").format(line=_score_line(scores, is_offered=False)) for scores in result.elsewhere]
    lines += map(html.escape, result.notes)
    return "<br>".join((*lines, *map(example_html, result.examples)))


def _score_line(scores: "adaptation.KindScores", *, is_offered: bool = True) -> str:
    kinds = {"box": _("a box"), "point": _("one click"), "correction": _("three clicks")}
    verdict = f"<b>{_('better')}</b>" if scores.passed else _("not better beyond chance")
    text = _("{kind}: {change}, without a model {baseline}")
    text = text.format(kind=kinds[scores.kind], change=_change(scores), baseline=f"{scores.baseline:.2f}")
    text += f": {verdict}" if is_offered else ""
    lower = [f"{html.escape(label.name)}: {_change(label)}" for label in scores.fallen]
    return text + (_("; lower for {labels}").format(labels="; ".join(lower)) if lower else "")


def _change(scores: "adaptation.KindScores | adaptation.LabelScores") -> str:
    text = _("Dice {before} to {after}").format(before=f"{scores.before:.2f}", after=f"{scores.after:.2f}")
    low, high = scores.gain.low, scores.gain.high
    if low is None or high is None:  # of a single patient
        return text
    return text + _(" (gain {low} to {high})").format(low=f"{low:+.2f}", high=f"{high:+.2f}")
