"""The menu of templates: segments of a list of names at once, and the names of these segments as a template."""

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from FoundationSegLib.catalog.segment_templates import (
    SegmentTemplate,
    TemplateSegment,
    read_templates,
    save_template,
    user_template_folder,
)
from FoundationSegLib.errors import InputError
from FoundationSegLib.session.segment_store import NewSegment

from .parameters import PanelState
from .widgets import Part, Report


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
        for template in read_templates().values():
            self._add(template.title, lambda template=template: self._use(template))

    def _add(self, text: str, act: Any) -> None:
        self._connect(self.menu.addAction(text), lambda: act(), "triggered()")

    def _use(self, template: SegmentTemplate) -> None:
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
            save_template(str(title).strip(), tuple(_template_segment(segment) for segment in segments))

    def _open_folder(self) -> None:
        folder = user_template_folder()
        folder.mkdir(parents=True, exist_ok=True)
        if not qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder))):
            raise InputError(_("No program opens folders here. The templates are in {folder}.").format(folder=folder))


def _template_segment(segment: Any) -> TemplateSegment:
    color = tuple(round(255 * level) for level in segment.GetColor())
    return TemplateSegment(segment.GetName(), color, segment.GetTerminology() or "")
