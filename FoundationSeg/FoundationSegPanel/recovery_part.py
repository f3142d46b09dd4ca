"""What a crash has left: offered once the image that it belongs to is chosen."""

import time
from typing import TYPE_CHECKING, Any

from slicer.i18n import tr as _

from FoundationSegLib.mrml.reference_image import belongs_to
from FoundationSegLib.mrml.scene_recovery import LostSession, find_lost_sessions

from .slots import slot

if TYPE_CHECKING:
    from .panel import Panel


class RecoveryPart:
    """The offer at the top of the panel."""

    def __init__(self, panel: "Panel") -> None:
        self._panel, self._ui = panel, panel.ui
        self.tell = panel.tell
        self._looked_at: Any = None
        self._found: LostSession | None = None
        self._ui.restoreButton.connect("clicked()", self._restore)
        self._ui.forgetButton.connect("clicked()", self._forget)

    def show(self) -> None:
        """Look for lost work on the chosen image, once for each image."""
        node = self._panel.parameters.volume
        if node is not self._looked_at:
            self._looked_at, self._found = node, None
            if node is not None:
                lost = find_lost_sessions()
                self._found = next((one for one in lost if one.is_of(node)), None)
        self._ui.recoveryFrame.setVisible(self._found is not None)
        if self._found is not None:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self._found.recovery.saved))
            text = _("Slicer ended unexpectedly on {when}. Work on this image was kept: {names}.")
            self._ui.recoveryLabel.setText(text.format(when=when, names=", ".join(self._found.segments)))

    @slot
    def _restore(self) -> None:
        found, panel = self._found, self._panel
        if found is None:
            return
        panel.desk.leave()
        volume, chosen = panel.parameters.volume, panel.parameters.segmentation
        node = found.restore(volume, chosen if chosen is not None and belongs_to(chosen, volume) else None)
        found.discard()
        self._found = None
        panel.parameters.segmentation = node
        panel.follow()

    @slot
    def _forget(self) -> None:
        if self._found is not None:
            self._found.discard()
            self._found = None
        self.show()
