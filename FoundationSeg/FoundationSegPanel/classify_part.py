"""The tab "Findings": labels in words, scored by a model, with where and why."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from html import escape
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from FoundationSegLib.catalog.label_sets import LabelSet, label_set_of, read_label_sets
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.errors import Cancelled, DomainError, FoundationSegError, InputError
from FoundationSegLib.mrml import classification
from FoundationSegLib.mrml.scene import Observers
from FoundationSegLib.mrml.volumes import box_of_roi, geometry_from_node, modality_of, volume_from_node
from FoundationSegLib.requests import classification_answer as answers
from FoundationSegLib.requests.classification import ClassifyRequest, EvidenceWish, Subject
from FoundationSegLib.requests.heads import PREFIX, LearnedHead, head_names, head_path, read_head, remove_head
from FoundationSegLib.requests.scoring import parse_aggregation
from FoundationSegLib.worker.protocol import Answered, Event, Failed, Progressed

from .model_texts import MODALITIES, findings_choices, findings_html, fitting_card
from .parameters import PanelState
from .scores_part import LearnDialog, ScoresPart, head_text
from .slices import slice_in_view, slice_text
from .widgets import ChoiceBox, Part, error_text, offer, save_table, slot

OWN_LABELS = "own"
_TAB = 1  # the index of this tab


class ClassifyPart(Part):
    """The tab, and the answer that it shows.

    Args:
        ui, state: see :class:`~.widgets.Part`.
        cards: the models that can classify, by their ids.
        set_up: shows what is missing for a model, by its id.
        count_image: notes an image that was asked about, for the counts.
    """

    def __init__(
        self,
        ui: Any,
        state: PanelState,
        cards: Mapping[str, ModelCard],
        set_up: Callable[[str], None],
        count_image: Callable[[ClassifyRequest], None],
    ) -> None:
        super().__init__(ui, state, self.report)
        self._cards, self._count_image = cards, count_image
        self._answer: answers.Classification | None = None
        self._labels: LabelSet | None = None
        self._question: ClassifyRequest | None = None  # that the answer is to
        self._prior: answers.Classification | None = None
        self._prior_node: Any = None  # the earlier image that was chosen; None for none
        self._volume_node: Any = None  # the image that the answer is about
        self._heads: dict[tuple[str, int], LearnedHead] = {}  # that were read, by name and time of the file
        self._dialog: LearnDialog | None = None
        self._message = self._no_answer = self._outside = ""
        self._reason = _("Choose an image in the tab 'Segment' first.")
        self._views = Observers()
        ui.researchLabel.setText(f"<small>{answers.RESEARCH_USE}</small>")
        self._range = (ui.classifyRangeLabel, ui.classifyFromBox, ui.classifyToLabel, ui.classifyToBox)
        self._range += (ui.classifyFromHereButton, ui.classifyToHereButton)
        self._connect(ui.classifyFromHereButton, lambda: self._limit_here("classifyFrom"))
        self._connect(ui.classifyToHereButton, lambda: self._limit_here("classifyTo"))
        self._label_set_box = self._choice_box(ui.labelSetBox, "labelSet")
        self._model_box = self._choice_box(ui.classifyModelBox, "classifyModelId")
        self._boxes = self._make_boxes()
        self._prior_box = ChoiceBox(
            ui.priorBox, lambda key: self._choose_prior(slicer.mrmlScene.GetNodeByID(key) if key else None)
        )
        self._scores = ScoresPart(ui, state, self.report)
        self._connect(ui.tabs, self._tab_changed, "currentChanged(int)")
        self._connect(ui.ownLabelsEdit, self._labels_edited, "textChanged()")
        self._connect(ui.classifyReadyButton, lambda: set_up(self._card_id()))
        self._connect(ui.classifyButton, lambda: self._ask(None))
        self._connect(ui.anyDomainButton, self._ask_anyway)
        self._connect(ui.learnHeadButton, self._learn)
        self._connect(ui.removeHeadButton, self._remove_head)
        self._connect(ui.keepButton, self._keep)
        self._connect(ui.exportScoresButton, self._export)
        self._connect(ui.whereButton, self._show_where)
        self._connect(ui.evidenceSegmentButton, self._add_evidence_segment)
        self._connect(ui.nameButton, self._name_segment)

    def _make_boxes(self) -> dict[str, ChoiceBox]:
        """Make the boxes whose entries never change, by their parameters."""
        ui, entries = self._ui, findings_choices()
        boxes = {"looks": ui.looksBox, "aggregation": ui.aggregationBox, "evidence": ui.evidenceBox}
        made = {name: self._choice_box(box, name, entries[name]) for name, box in boxes.items()}
        return made | {"subject": ChoiceBox(ui.subjectBox, self._subject_chosen, entries["subject"])}

    def report(self, error: FoundationSegError) -> None:
        """Show an error until something else is asked."""
        if not isinstance(error, Cancelled):
            self._outside = error_text(error) if isinstance(error, DomainError) else ""
            self._say(error_text(error))

    def show(self) -> None:
        """Show the choices, and whether they make a question."""
        parameters, ui = self._parameters, self._ui
        if parameters.volume is not self._volume_node:
            self._forget_answer(parameters.volume)
        if ui.tabs.currentIndex != _TAB:
            return  # the tab behind the other one is shown when it comes to the front
        for name, box in self._boxes.items():
            box.show(self._part() if name == "subject" else getattr(parameters, name))
        card_id, chosen = self._card_id(), self._label_set_id()
        is_learned = chosen.startswith(PREFIX)
        has_choice = is_learned or not self._trained_labels(card_id)
        cards = [*self._cards.values(), *([self._card(card_id)] if card_id and card_id not in self._cards else ())]
        self._model_box.fill([(card.id, card.title) for card in cards])
        self._model_box.show(card_id)
        titles = [(labels.id, labels.title) for labels in self._label_sets.values()]
        learned = [(f"{PREFIX}{name}", _("{name} (learned)").format(name=name)) for name in head_names()]
        own = [(OWN_LABELS, _("Own labels"))] if has_choice else []
        self._label_set_box.fill([*(pair for pair in titles if has_choice or chosen in pair), *learned, *own])
        self._label_set_box.show(chosen)
        ui.removeHeadButton.setVisible(is_learned)
        for widget in (ui.classifyModelBox, ui.looksBox):
            widget.setEnabled(not is_learned)  # they are the head's own
        for widget in (ui.ownLabelsLabel, ui.ownLabelsEdit):
            widget.setVisible(chosen == OWN_LABELS)
        if ui.ownLabelsEdit.plainText != parameters.ownLabels:
            ui.ownLabelsEdit.setPlainText(parameters.ownLabels)
        for widget in self._range:
            widget.setVisible(parameters.subject == "range")
        ui.aggregationBox.setEnabled(self._part() != "slice" and not is_learned)
        self._show_priors()
        self._reason = self._obstacle(card_id)
        self._show_subject()
        self._scores.show()
        self._show_actions()

    def show_busy(self) -> None:
        """Show whether something is under way, by whomever it was asked."""
        busy = _("Another request is under way.") if self._controller.is_busy else ""
        is_learned = self._answer is not None and self._answer.head
        offer(self._ui.classifyButton, self._reason or busy)
        offer(self._ui.whereButton, self._no_answer or (_("Learned labels do not say where.") if is_learned else busy))

    def close(self) -> None:
        """Follow the slices in view no more, and close the dialog."""
        self._views.remove()
        if self._dialog is not None:
            self._dialog.close()
            self._dialog = None

    def _obstacle(self, card_id: str) -> str:
        """Say why nothing can be asked now, as rich text; empty where it can."""
        if self._parameters.volume is None:
            return _("Choose an image in the tab 'Segment' first.")
        if not card_id:
            return _("This version can run no model that scores labels.")
        readiness = self._state.installer.readiness(card_id)
        self._ui.classifyReadyButton.setVisible(not readiness.is_ready)
        if readiness.is_ready:
            return ""
        return findings_html(self._card(card_id), readiness, self._modality())

    def _show_subject(self) -> None:
        """Name the image and, where it is the slice in view, the slice; follow the views for that."""
        parameters, ui = self._parameters, self._ui
        if not self._views:
            for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
                self._views.add(node, vtk.vtkCommand.ModifiedEvent, self._view_changed)
        texts = [parameters.volume.GetName()] if parameters.volume is not None else [_("none")]
        if parameters.volume is not None and self._part() == "slice":
            try:
                subject = slice_in_view(parameters.volume)
                texts.append(slice_text(parameters.volume, subject.axis, subject.start or 0))
            except FoundationSegError:
                texts.append(_("no slice in view"))
        ui.classifyImageLabel.setText(", ".join(texts))
        self._say(self._message)

    @slot
    def _view_changed(self) -> None:
        if self._parameters is not None and self._ui.tabs.currentIndex == _TAB:
            self._show_subject()

    def _forget_answer(self, volume_node: Any) -> None:
        """Another image is worked on: scores of the last one are not to be kept, shown or named on it."""
        self._volume_node, self._answer, self._prior, self._prior_node = volume_node, None, None, None
        self._scores.clear()
        self._show_actions()
        self._say("")

    def _modality(self) -> str:
        """Return the modality of the image as cards call it; empty where it is not known."""
        node = self._parameters.volume
        code = (modality_of(node) if node is not None else None) or ""
        return MODALITIES.get(code, code)

    def _card(self, card_id: str) -> ModelCard:
        return self._cards.get(card_id) or self._state.installer.catalogue[card_id]

    def _head(self) -> LearnedHead | None:
        """Return the learned labels that are chosen; None for labels in words.

        Raises:
            InputError: they are gone, or their file is damaged.
        """
        name = self._parameters.labelSet.removeprefix(PREFIX)
        if name == self._parameters.labelSet:
            return None
        path = head_path(name)
        key = name, path.stat().st_mtime_ns if path.is_file() else 0
        if key not in self._heads:
            self._heads = {key: read_head(name)}
        return self._heads[key]

    def _card_id(self) -> str:
        with contextlib.suppress(FoundationSegError):  # the question says so
            head = self._head()
            if head is not None and head.checkpoint.model_id in self._state.installer.catalogue:
                return head.checkpoint.model_id
        chosen = self._parameters.classifyModelId
        if chosen in self._cards:
            return chosen
        card = fitting_card(self._cards, self._modality())
        return card.id if card is not None else ""

    def _label_set_id(self) -> str:
        """Return the labels that are chosen; those of a model that was trained on certain ones are its own."""
        chosen = self._parameters.labelSet
        return (not chosen.startswith(PREFIX) and self._trained_labels(self._card_id())) or chosen

    def _trained_labels(self, card_id: str) -> str:
        """Return the only labels that a model scores; empty for one that reads words, and for none."""
        card = self._card(card_id) if card_id else None
        return "" if card is None or "text" in card.prompts else card.label_set

    def _show_priors(self) -> None:
        """Offer the other images of the patient; without one, the row is not there."""
        node = self._parameters.volume
        nodes = classification.comparable_images(node) if node is not None else []
        if self._prior_node is not None and self._prior_node not in nodes:
            self._choose_prior(None)
        self._prior_box.fill([("", _("none")), *((other.GetID(), other.GetName()) for other in nodes)])
        self._prior_box.show(self._prior_node.GetID() if self._prior_node is not None else "")
        for widget in (self._ui.priorLabel, self._ui.priorBox):
            widget.setVisible(bool(nodes))

    def _choose_prior(self, node: Any) -> None:
        """Compare with another image from the next answer on; scores of the last one go."""
        self._prior_node = node
        if self._prior is not None and self._answer is not None:
            self._prior = None
            self._show_answer(self._answer)

    def _part(self) -> str:
        """Return the kind of part that is asked about: a model of whole volumes sees no slice by itself."""
        chosen, card_id = self._parameters.subject, self._card_id()
        return "volume" if chosen == "slice" and card_id and self._card(card_id).sees_volumes else chosen

    def _subject(self) -> Subject:
        """Return the part of the image that is to be classified.

        Raises:
            InputError: there is no such part.
        """
        parameters = self._parameters
        if self._part() == "slice":
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

    def _ask_anyway(self) -> None:
        """Ask the last question again, of an image of a kind that the model was not trained on."""
        question = self._question
        self._ask(question.evidence, any_domain=question.model_id == self._card_id())

    def _ask(self, evidence: EvidenceWish | None, *, any_domain: bool = False) -> None:
        parameters = self._parameters
        head, labels, subject = self._head(), self._label_sets.get(self._label_set_id()), self._subject()
        if head is not None:
            labels = head.label_set()
            if self._part() == "slice" and subject.axis != head.axis:
                raise InputError(_("These labels were learned on other slices: show the image along them."))
            subject = replace(subject, axis=head.axis)
        elif labels is None:
            labels = label_set_of([line for line in parameters.ownLabels.splitlines() if line.strip()])
        has_more = geometry_from_node(parameters.volume).shape_kji[0] > 1
        if evidence is None and self._prior_node is not None and self._part() != "volume" and has_more:
            raise InputError(_("A prior is compared as a whole: choose 'The whole image', or no prior."))
        volume = self._controller.send_image()
        self._say("")
        self._labels = labels
        self._question = ClassifyRequest(
            0,
            self._card_id(),
            volume.key,
            labels,
            subject,
            parameters.looks if head is None else head.intensity,
            aggregation=parse_aggregation(parameters.aggregation),
            evidence=evidence,
            head=head,
            any_domain=any_domain,
        )
        self._controller.submit(self._question, self._take)
        self.show()

    def _take(self, event: Event) -> None:
        if isinstance(event, Progressed):
            return
        if isinstance(event, Failed):
            self.report(event.error)
        elif isinstance(event, Answered) and isinstance(event.answer, answers.Classification):
            has_evidence = self._question is not None and self._question.evidence is not None
            self._answer = event.answer
            if not has_evidence:
                self._prior = None
            self._show_answer(event.answer)
            if has_evidence:
                self._show_evidence(event.answer)
            elif self._prior_node is not None:
                self._ask_of_prior(self._prior_node)
            elif self._question is not None:
                self._count_image(self._question)
        self.show()

    def _ask_of_prior(self, node: Any) -> None:
        """Ask the same of the earlier image, as a whole."""
        volume = volume_from_node(node)
        self._controller.client.send_volume(volume)

        def take(event: Event) -> None:
            if isinstance(event, Progressed):
                return
            self._controller.client.remove_volume(volume.key)
            if isinstance(event, Failed):
                self.report(event.error)
            elif isinstance(event, Answered) and self._answer is not None and node is self._prior_node:
                self._prior = event.answer
                self._show_answer(self._answer)
                self._count_image(self._question)
            self.show()

        subject = Subject(self._question.subject.axis)
        self._controller.submit(replace(self._question, volume_key=volume.key, subject=subject), take)

    def _show_answer(self, answer: answers.Classification) -> None:
        ui, verdict, count = self._ui, answer.verdict_text, len(answer.slices) or _("all")
        lines = [_("<b>{verdict}</b> (slices: {count})").format(verdict=escape(verdict), count=count)]
        if answer.is_outside:
            lines.append(f"<b>{escape(answers.OUTSIDE)}</b>")
        if not answer.is_calibrated:
            lines.append(_("Not calibrated: rank, margin and spread say how sure the ranking is, and no more."))
        if len(answer.scores) > answers.MOST_SHOWN:
            text = _("The best {shown} of {count} labels are shown; 'Export…' has all of them.")
            lines.append(text.format(shown=answers.MOST_SHOWN, count=len(answer.scores)))
        figures = self._card(answer.checkpoint.model_id).figures
        if figures and not answer.head:
            lines.append(f"<small>{_('Published')}: {escape(' '.join(figures))}</small>")
        if self._question is not None and self._question.head is not None:
            lines.append(escape(head_text(self._question.head)))
        if self._prior is not None:
            text = _("Prior, {image}: <b>{verdict}</b>")
            prior = escape(self._prior.verdict_text)
            lines.append(text.format(image=escape(self._prior_node.GetName()), verdict=prior))
        notes = "".join(f"<br><small>{escape(note)}</small>" for note in answer.notes)
        ui.verdictLabel.setText("<br>".join(lines) + notes)
        self._scores.show_answer(answer, self._prior)

    def _show_actions(self) -> None:
        ui, has_answer = self._ui, self._answer is not None
        self._no_answer = "" if has_answer else _("Nothing was scored yet: score the labels first.")
        is_selected = self._controller.selected_node_segment is not None
        for button in (ui.keepButton, ui.exportScoresButton):
            offer(button, self._no_answer)
        evidence = has_answer and self._answer.evidence
        offer(ui.evidenceSegmentButton, "" if evidence else _("Show first where a label is."))
        offer(ui.nameButton, self._no_answer or ("" if is_selected else _("Select a segment first.")))
        self.show_busy()
        for widget in (ui.verdictLabel, ui.scoresTable):
            widget.setVisible(has_answer)

    def _show_evidence(self, answer: answers.Classification) -> None:
        """Lay the evidence over the image, as values in a colour scale of their own."""
        if not answer.evidence:
            self._say(_("The model shows nothing that speaks for this label."))
        for evidence in answer.evidence:
            overlay = classification.show_evidence(slicer.mrmlScene, evidence, answer, self._controller.volume_node)
            slicer.util.setSliceViewerLayers(foreground=overlay, foregroundOpacity=0.5)

    def _add_evidence_segment(self) -> None:
        """Add a segment of where the evidence is above half of its range."""
        controller, answer = self._controller, self._answer
        if answer is None:
            return
        self._state.ensure_segmentation()
        controller.on_update("choices")
        controller.require_own()
        for evidence in answer.evidence:
            classification.add_evidence_segment(controller.segmentation_node, evidence, answer, controller.volume_node)

    def _say(self, text: str) -> None:
        self._message = text
        self._ui.classifyMessageLabel.setText(text or self._reason)
        self._ui.classifyMessageLabel.setVisible(bool(text or self._reason))
        self._ui.anyDomainButton.setVisible(bool(text) and text == self._outside)

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
        nodes = classification.show_classification(slicer.mrmlScene, self._answer, self._controller.volume_node)
        if self._prior is not None:
            classification.show_classification(slicer.mrmlScene, self._prior, self._prior_node)
        chart = nodes.curves if nodes.curves is not None else nodes.bars
        if slicer.app.layoutManager() is not None:
            slicer.modules.plots.logic().ShowChartInLayout(chart)

    def _learn(self) -> None:
        """Open the dialog anew; it learns on the model that is chosen, unless another one is chosen there."""
        if self._dialog is not None:
            self._dialog.close()
        window = slicer.util.mainWindow()
        self._dialog = LearnDialog(self._state.installer, self._card_id(), self._choose_head, window)
        self._dialog.raise_dialog()

    def _choose_head(self, name: str) -> None:
        if self._parameters is not None:
            self._parameters.labelSet = f"{PREFIX}{name}"
            self.show()

    def _remove_head(self) -> None:
        name = self._parameters.labelSet.removeprefix(PREFIX)
        text = _("Delete the learned labels '{name}'? This cannot be undone.").format(name=name)
        if slicer.util.confirmOkCancelDisplay(text, _("Delete learned labels")):
            if name in head_names():
                remove_head(name)
            self._parameters.labelSet = next(iter(self._label_sets), OWN_LABELS)

    def _export(self) -> None:
        def table() -> str:
            shown = [(self._volume_node, self._answer), (self._prior_node, self._prior)]
            rows = (row for node, answer in shown if answer for row in answers.rows_of(node.GetName(), answer))
            return answers.csv_text(rows)

        save_table(_("Export scores"), table, _("scores.csv"))

    def _show_where(self) -> None:
        is_outside = self._answer is not None and self._answer.is_outside
        self._ask(EvidenceWish(self._scores.selected_label(), self._parameters.evidence), any_domain=is_outside)

    def _name_segment(self) -> None:
        label, segment = self._scores.selected_label(), self._controller.selected_node_segment
        if segment is None or self._labels is None or self._answer is None:
            raise InputError(_("select a segment first"))
        classification.accept_label(segment, self._labels.label(label), self._answer)

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
