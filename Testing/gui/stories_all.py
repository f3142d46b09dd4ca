"""Every story: importing these modules registers theirs."""

from Testing.gui import stories_panel, stories_widgets
from Testing.gui.stories import STORIES

__all__ = ["STORIES", "stories_panel", "stories_widgets"]
