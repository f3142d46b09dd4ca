"""The module's panel at work, with a model that answers at once or when the test lets it."""

from pathlib import Path

import numpy as np
import slicer

from FoundationSegLib.api import Installation
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.mrml.volumes import add_volume_node
from Testing.mrml.controller_cases import FakeWorkerClient

MODULE = Path(__file__).resolve().parents[2] / "FoundationSeg" / "FoundationSeg.py"
# Left-posterior-superior, anisotropic, with an origin of its own.
GRID = Geometry([[-2.0, 0, 0, 30], [0, -2.0, 0, 40], [0, 0, 4.0, -10], [0, 0, 0, 1]], (12, 40, 32))


class PanelDesk:
    """The opened panel, its image, and what a user does with both."""

    def __init__(self, desk, monkeypatch, client=None):
        self.desk, self.client = desk, client or FakeWorkerClient()
        monkeypatch.syspath_prepend(str(MODULE.parent))
        from FoundationSegPanel import model_installer

        from FoundationSegLib.installation.readiness import Readiness

        monkeypatch.setattr(Installation, "open_client", lambda _installation: self.client)
        monkeypatch.setattr(
            model_installer.ModelInstaller, "readiness", lambda _desk, model_id: Readiness(model_id, ())
        )
        self.volume_node = self.add_volume("CT")
        self.widget = desk.open_module(MODULE)
        self.ui, self.panel = self.widget.ui, self.widget.panel
        desk.click(self.ui.inputsButton)  # image, intensity, segmentation and model are to be chosen by the tests
        desk.show_volume(self.volume_node)
        desk.process_events()
        self.wanted.tool = ""

    def add_volume(self, name, slices=12):
        shape = (slices, 40, 32)
        voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
        return add_volume_node(self.desk.scene, Volume(voxels, Geometry(GRID.ijk_to_ras, shape), name=name))

    @property
    def wanted(self):
        return self.panel.parameters

    @property
    def work(self):
        return self.panel.controller

    @property
    def segmentation(self):
        return self.wanted.segmentation.GetSegmentation()

    def names(self):
        keys = self.segmentation.GetSegmentIDs()
        return [self.segmentation.GetSegment(key).GetName() for key in keys]

    def voxels(self, name=None):
        """The number of voxels of a segment; of the selected one, unless a name is given."""
        node = self.wanted.segmentation
        key = self.work.segment_id if name is None else self.segmentation.GetSegmentIdBySegmentName(name)
        if self.segmentation.GetSegment(key) is None:
            return 0  # its making was undone
        return int(slicer.util.arrayFromSegmentBinaryLabelmap(node, key, self.volume_node).sum())

    def at(self, i, j, k):
        """A voxel's centre in RAS."""
        return tuple(GRID.to_ras((i, j, k)).tolist())

    def look_at(self, i, j, k):
        """Have all three views show a voxel's slices."""
        for view in ("Red", "Green", "Yellow"):
            self.desk.slice_widget(view).mrmlSliceNode().JumpSliceByOffsetting(*self.at(i, j, k))

    def tool(self, button):
        if not button.checked:
            self.desk.click(button)

    def box(self, first, last, view="Red", **keys):
        """Draw a box in a view, whose slice goes through the first corner, and wait for what comes of it."""
        self.look_at(*first)
        self.tool(self.ui.boxButton)
        self.desk.mouse(view).drag(self.at(*first), self.at(*last), **keys)
        self.settle()

    def click(self, i, j, k, view="Red", **keys):
        """Click on a voxel."""
        self.look_at(i, j, k)
        self.desk.mouse(view).drag(self.at(i, j, k), **keys)
        self.settle()

    def settle(self):
        """Wait until nothing is under way, unless the model is slow."""
        if not self.client.is_slow:
            self.desk.wait_until(lambda: not self.client.is_busy and not self.work.is_busy)
        self.let_pass()

    def let_pass(self):
        """Let the events of this moment be handled, those that come soon included."""
        for _ in range(3):
            self.desk.process_events()

    def reply(self):
        self.client.reply()
        self.desk.wait_until(lambda: not self.client.is_busy)
        self.let_pass()

    def model(self, title):
        self.desk.choose(self.ui.modelBox, title)
