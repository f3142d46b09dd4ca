"""The image, how its values are read, and the segmentation."""

from typing import TYPE_CHECKING

import slicer
from slicer.i18n import tr as _

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.intensity import check_policy

from .choices import ChoiceBox
from .slots import slot

if TYPE_CHECKING:
    from .panel import Panel

_CUSTOM = "custom"


class ImagePart:
    """What is segmented, and where the segments go."""

    def __init__(self, panel: "Panel") -> None:
        self._panel, self._ui = panel, panel.ui
        self.tell = panel.tell
        self._intensity = ChoiceBox(self._ui.intensityBox, self._chosen)
        self._intensity.fill(
            (
                ("auto", _("Automatic")),
                ("ct-soft-tissue", _("CT, soft tissue (400, 40)")),
                ("ct-lung", _("CT, lung (1500, -600)")),
                ("ct-bone", _("CT, bone (1800, 400)")),
                ("percentile", _("Percentiles (0.5 to 99.5)")),
                ("display", _("As displayed")),
                ("raw", _("All values")),
                (_CUSTOM, _("Width, level:")),
            )
        )
        self._is_custom = False
        self._ui.windowEdit.connect("editingFinished()", self._window_edited)
        # The parameter node wrapper's own connection offers nodes of the parameter's class alone: no colour images.
        self._ui.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._volume_chosen)
        self._ui.volumeSelector.connect("nodeActivated(vtkMRMLNode*)", self._volume_activated)

    def show(self) -> None:
        """Show the parameter node's choice."""
        policy, volume = self._panel.parameters.intensity, self._panel.parameters.volume
        if self._ui.volumeSelector.currentNode() is not volume:
            self._ui.volumeSelector.setCurrentNode(volume)
        is_window = "," in policy
        self._intensity.show(_CUSTOM if is_window or self._is_custom else policy)
        self._ui.windowEdit.setVisible(is_window or self._is_custom)
        if is_window and not self._ui.windowEdit.hasFocus():
            self._ui.windowEdit.setText(policy)

    def last_slice(self) -> int:
        """The number of the image's last slice; 0 without an image."""
        node = self._panel.parameters.volume
        image = node.GetImageData() if node is not None else None
        return max(0, image.GetDimensions()[2] - 1) if image is not None else 0

    @slot
    def _chosen(self, policy: str) -> None:
        self._is_custom = policy == _CUSTOM
        if not self._is_custom:
            self._panel.parameters.intensity = policy
        self.show()

    @slot
    def _window_edited(self) -> None:
        text = self._ui.windowEdit.text.replace(" ", "")
        if text and text != self._panel.parameters.intensity:
            _require_window(text)
            self._panel.parameters.intensity = text

    @slot
    def _volume_chosen(self) -> None:
        wanted, node = self._panel.parameters, self._ui.volumeSelector.currentNode()
        if wanted is not None and node is not wanted.volume:
            wanted.volume = node

    @slot
    def _volume_activated(self) -> None:
        """The user has chosen an image: it is shown in the slice views, if none of them shows it."""
        node = self._ui.volumeSelector.currentNode()
        if self._panel.parameters is None or node is None or slicer.app.layoutManager() is None:
            return
        if self._panel.tools.is_shown(node):
            return
        slicer.util.setSliceViewerLayers(background=node, fit=True)
        self._panel.tools.show()  # the hint said that no view shows it


def _require_window(text: str) -> None:
    try:
        check_policy(text)
    except InputError as error:
        raise InputError(_("write the window as width,level, for example 350,50")) from error
