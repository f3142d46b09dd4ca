"""The tab "Findings": labels in words, scored by a model, with where and why."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from FoundationSegLib.catalog.label_sets import LabelSet, label_set_of, read_label_sets
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.errors import Cancelled, FoundationSegError, InputError
from FoundationSegLib.mrml.classification import accept_label, add_evidence_segment, show_classification, show_evidence
from FoundationSegLib.mrml.scene import Observers
from FoundationSegLib.mrml.volumes import box_of_roi
from FoundationSegLib.requests.classification import ClassifyRequest, EvidenceWish, Subject
from FoundationSegLib.requests.classification_answer import NONE_OF_THESE, RESEARCH_USE, Classification
from FoundationSegLib.requests.scoring import parse_aggregation
from FoundationSegLib.worker.protocol import Answered, Event, Failed, Progressed

from .model_texts import blocking_html
from .parameters import PanelState
from .slices import slice_in_view, slice_text
from .widgets import ChoiceBox, Part, error_text, fill_table, selected_rows, set_up_table, slot

OWN_LABELS = "own"
_TAB = 1  # the index of this tab


class ClassifyPart(Part):
    """The tab, and the answer that it shows.

    Args:
        ui, state: see :class:`~.widgets.Part`.
        cards: the models that can classify, by their ids.
        set_up: shows what is missing for a model, by its id.
    """

    def __init__(
        self, ui: Any, state: PanelState, cards: Mapping[str, ModelCard], set_up: Callable[[str], None]
    ) -> None:
        super().__init__(ui, state, self.report)
        self._cards = cards
        self._answer: Classification | None = None
        self._labels: LabelSet | None = None
        self._evidence: EvidenceWish | None = None
        self._volume_node: Any = None  # the image that the answer is about
        self._can_ask = False
        self._message = self._reason = ""
        self._views = Observers()
        ui.researchLabel.setText(f"<small>{RESEARCH_USE}</small>")
        self._range = (ui.classifyRangeLabel, ui.classifyFromBox, ui.classifyToLabel, ui.classifyToBox)
        self._range += (ui.classifyFromHereButton, ui.classifyToHereButton)
        self._connect(ui.classifyFromHereButton, lambda: self._limit_here("classifyFrom"))
        self._connect(ui.classifyToHereButton, lambda: self._limit_here("classifyTo"))
        self._label_set_box = self._choice_box(ui.labelSetBox, "labelSet")
        self._boxes = self._make_boxes()
        set_up_table(ui.scoresTable, [_("Label"), _("Score"), _("Spread"), _("Stands out")])
        self._connect(ui.scoresTable, self._show_actions, "itemSelectionChanged()")
        self._connect(ui.tabs, self._tab_changed, "currentChanged(int)")
        self._connect(ui.ownLabelsEdit, self._labels_edited, "textChanged()")
        self._connect(ui.classifyReadyButton, lambda: set_up(self._card_id()))
        self._connect(ui.classifyButton, lambda: self._ask(None))
        self._connect(ui.keepButton, self._keep)
        self._connect(ui.whereButton, self._show_where)
        self._connect(ui.nameButton, self._name_segment)

    def _make_boxes(self) -> dict[str, ChoiceBox]:
        """Make the boxes whose entries never change, by their parameters."""
        ui = self._ui
        entries = {
            "classifyModelId": (ui.classifyModelBox, [(card.id, card.title) for card in self._cards.values()]),
            "subject": (
                ui.subjectBox,
                [
                    ("slice", _("The slice in view")),
                    ("range", _("A range of slices")),
                    ("volume", _("The whole image")),
                    ("roi", _("The region of interest")),
                    ("segment", _("The selected segment")),
                ],
            ),
            "looks": (
                ui.looksBox,
                [
                    ("auto", _("Automatic")),
                    ("ct-windows", _("Several CT windows")),
                    ("ct-soft-tissue", _("CT, soft tissue")),
                    ("ct-lung", _("CT, lung")),
                    ("ct-bone", _("CT, bone")),
                    ("percentile", _("Percentiles (0.5 to 99.5)")),
                    ("display", _("As displayed")),
                ],
            ),
            "aggregation": (
                ui.aggregationBox,
                [("mean", _("Mean")), ("max", _("Highest")), ("top-5", _("Mean of the highest five"))],
            ),
            "evidence": (
                ui.evidenceBox,
                [("similarity", _("by similar parts (fast)")), ("occlusion", _("by covering (slow)"))],
            ),
        }
        subject_box, subjects = entries.pop("subject")
        boxes = {name: self._choice_box(box, name, values) for name, (box, values) in entries.items()}
        return boxes | {"subject": ChoiceBox(subject_box, self._subject_chosen, subjects)}

    def report(self, error: FoundationSegError) -> None:
        """Show an error until something else is asked."""
        if not isinstance(error, Cancelled):
            self._say(error_text(error))

    def show(self) -> None:
        """Show the choices, and whether they make a question."""
        parameters, ui = self._parameters, self._ui
        if parameters.volume is not self._volume_node:
            self._forget_answer(parameters.volume)
        if ui.tabs.currentIndex != _TAB:
            return  # the tab behind the other one is shown when it comes to the front
        for name, box in self._boxes.items():
            box.show(getattr(parameters, name))
        card_id = self._card_id()
        self._boxes["classifyModelId"].show(card_id)
        titles = [(labels.id, labels.title) for labels in self._label_sets.values()]
        self._label_set_box.fill([*titles, (OWN_LABELS, _("Own labels"))])
        self._label_set_box.show(parameters.labelSet)
        for widget in (ui.ownLabelsLabel, ui.ownLabelsEdit):
            widget.setVisible(parameters.labelSet == OWN_LABELS)
        if ui.ownLabelsEdit.plainText != parameters.ownLabels:
            ui.ownLabelsEdit.setPlainText(parameters.ownLabels)
        for widget in self._range:
            widget.setVisible(parameters.subject == "range")
        ui.aggregationBox.setEnabled(parameters.subject != "slice")
        self._reason = self._obstacle(card_id)
        self._can_ask = not self._reason
        self._show_subject()
        self.show_busy()
        self._show_actions()

    def show_busy(self) -> None:
        """Show whether something is under way, by whomever it was asked."""
        is_busy = self._controller.is_busy
        self._ui.classifyButton.setEnabled(self._can_ask and not is_busy)
        reason = self._reason or (_("Another request is under way.") if is_busy else "")
        self._ui.classifyButton.setToolTip(reason or _("Score the labels on the chosen part of the image."))
        self._ui.whereButton.setEnabled(self._answer is not None and not is_busy)

    def close(self) -> None:
        """Follow the slices in view no more."""
        self._views.remove()

    def _obstacle(self, card_id: str) -> str:
        """Say why nothing can be asked now, as rich text; empty where it can."""
        if self._parameters.volume is None:
            return _("Choose an image in the tab 'Segment' first.")
        if not card_id:
            return _("This version can run no model that scores labels.")
        readiness = self._state.installer.readiness(card_id)
        self._ui.classifyReadyButton.setVisible(not readiness.is_ready)
        return blocking_html(readiness, self._cards[card_id])

    def _show_subject(self) -> None:
        """Name the image and, where it is the slice in view, the slice; follow the views for that."""
        parameters, ui = self._parameters, self._ui
        if not self._views:
            for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
                self._views.add(node, vtk.vtkCommand.ModifiedEvent, self._view_changed)
        texts = [parameters.volume.GetName()] if parameters.volume is not None else [_("none")]
        if parameters.volume is not None and parameters.subject == "slice":
            try:
                subject = slice_in_view(parameters.volume)
                texts.append(slice_text(parameters.volume, subject.axis, subject.start or 0))
            except FoundationSegError:
                texts.append(_("no slice in view"))
        ui.classifyImageLabel.setText(", ".join(texts))
        ui.classifyMessageLabel.setText(self._message or self._reason)
        ui.classifyMessageLabel.setVisible(bool(self._message or self._reason))

    @slot
    def _view_changed(self) -> None:
        if self._parameters is not None and self._ui.tabs.currentIndex == _TAB:
            self._show_subject()

    def _forget_answer(self, volume_node: Any) -> None:
        """Another image is worked on: scores of the last one are not to be kept, shown or named on it."""
        self._volume_node, self._answer, self._labels = volume_node, None, None
        self._ui.scoresTable.setRowCount(0)
        self._say("")

    def _card_id(self) -> str:
        chosen = self._parameters.classifyModelId
        return chosen if chosen in self._cards else next(iter(self._cards), "")

    def _subject(self) -> Subject:
        """Return the part of the image that is to be classified.

        Raises:
            InputError: there is no such part.
        """
        parameters = self._parameters
        if parameters.subject == "slice":
            return slice_in_view(parameters.volume)
        if parameters.subject == "range":
            first, last = sorted((parameters.classifyFrom, parameters.classifyTo))
            return Subject("k", first, last + 1)
        if parameters.subject == "roi":
            if parameters.roi is None:
                raise InputError(_("choose a region of interest under 'Segment', 'Advanced' first"))
            return Subject(box=box_of_roi(parameters.roi, parameters.volume))
        if parameters.subject == "segment":
            segment = self._controller.selected()
            return Subject(segment=segment.session.mask(segment.segment_id))
        return Subject()

    def _ask(self, evidence: EvidenceWish | None) -> None:
        parameters = self._parameters
        labels = self._label_sets.get(parameters.labelSet)
        if labels is None:
            labels = label_set_of([line for line in parameters.ownLabels.splitlines() if line.strip()])
        subject, volume = self._subject(), self._controller.send_image()
        self._say("")
        self._labels, self._evidence = labels, evidence
        request = ClassifyRequest(
            0,
            self._card_id(),
            volume.key,
            labels,
            subject,
            parameters.looks,
            aggregation=parse_aggregation(parameters.aggregation),
            evidence=evidence,
        )
        self._controller.submit(request, self._take)
        self.show()

    def _take(self, event: Event) -> None:
        if isinstance(event, Progressed):
            return
        if isinstance(event, Failed):
            self.report(event.error)
        elif isinstance(event, Answered) and isinstance(event.answer, Classification):
            self._answer = event.answer
            self._show_answer(event.answer)
            if self._evidence is not None:
                self._show_evidence(event.answer)
        self._evidence = None
        self.show()

    def _show_answer(self, answer: Classification) -> None:
        ui, verdict = self._ui, ", ".join(answer.verdict) or NONE_OF_THESE
        notes = "".join(f"<br><small>{note}</small>" for note in answer.notes)
        text = _("<b>{verdict}</b> (slices: {count})").format(verdict=verdict, count=len(answer.slices))
        ui.verdictLabel.setText(text + notes)
        rows = [
            (score.name, f"{score.score:.3f}", f"{score.spread:.3f}", _("yes") if score.stands_out else "")
            for score in answer.ranked
        ]
        fill_table(ui.scoresTable, rows)
        ui.scoresTable.selectRow(0)

    def _show_actions(self) -> None:
        ui, has_answer = self._ui, self._answer is not None
        ui.keepButton.setEnabled(has_answer)
        ui.whereButton.setEnabled(has_answer and not self._controller.is_busy)
        ui.nameButton.setEnabled(has_answer and self._controller.selected_node_segment is not None)
        ui.verdictLabel.setVisible(has_answer)
        ui.scoresTable.setVisible(has_answer)

    def _selected_label(self) -> str:
        rows = selected_rows(self._ui.scoresTable)
        if self._answer is None or not rows:
            raise InputError(_("select a label in the table first"))
        return self._answer.ranked[rows[0]].name

    def _show_evidence(self, answer: Classification) -> None:
        if not answer.evidence:
            self._say(_("The model shows nothing that speaks for this label."))
            return
        controller = self._controller
        self._state.ensure_segmentation()
        controller.on_update("choices")
        controller.require_own()
        for evidence in answer.evidence:
            overlay = show_evidence(slicer.mrmlScene, evidence, answer, controller.volume_node)
            add_evidence_segment(controller.segmentation_node, evidence, answer, controller.volume_node)
            slicer.util.setSliceViewerLayers(foreground=overlay, foregroundOpacity=0.5)

    def _say(self, text: str) -> None:
        self._message = text
        self._ui.classifyMessageLabel.setText(text or self._reason)
        self._ui.classifyMessageLabel.setVisible(bool(text or self._reason))

    @cached_property
    def _label_sets(self) -> Mapping[str, LabelSet]:
        """All label sets by their ids, read when the tab is shown first."""
        return read_label_sets()

    def _tab_changed(self) -> None:
        if self._parameters is not None:
            self.show()

    def _keep(self) -> None:
        if self._answer is None:
            return
        nodes = show_classification(slicer.mrmlScene, self._answer, self._controller.volume_node)
        chart = nodes.curves if nodes.curves is not None else nodes.bars
        if slicer.app.layoutManager() is not None:
            slicer.modules.plots.logic().ShowChartInLayout(chart)

    def _show_where(self) -> None:
        self._ask(EvidenceWish(self._selected_label(), self._parameters.evidence))

    def _name_segment(self) -> None:
        label, segment = self._selected_label(), self._controller.selected_node_segment
        if segment is None or self._labels is None or self._answer is None:
            raise InputError(_("select a segment first"))
        accept_label(segment, self._labels.label(label), self._answer)

    @slot
    def _subject_chosen(self, subject: str) -> None:
        if subject == "range" and not self._parameters.classifyTo:
            self._parameters.classifyTo = self._state.last_slice()
        self._parameters.subject = subject

    def _limit_here(self, end: str) -> None:
        setattr(self._parameters, end, slice_in_view(self._parameters.volume, "k").start)

    def _labels_edited(self) -> None:
        if self._parameters is not None:
            self._parameters.ownLabels = self._ui.ownLabelsEdit.plainText
