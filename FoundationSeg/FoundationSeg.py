"""The scripted module. Thin: everything that is not a widget is in FoundationSegLib, beside this folder."""

import sys
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

# Installed, the library lies in the module's own folder, which Slicer has put on the path; in the source tree it lies
# one folder up.
_SOURCE_TREE = Path(__file__).resolve().parents[1]
if (_SOURCE_TREE / "FoundationSegLib").is_dir() and str(_SOURCE_TREE) not in sys.path:
    sys.path.append(str(_SOURCE_TREE))


class FoundationSeg(ScriptedLoadableModule):
    """What Slicer's module list shows."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("FoundationSeg")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "Terminologies"]
        self.parent.contributors = ["FoundationSeg contributors"]
        self.parent.helpText = _(
            "Segment organs and lesions from prompts with foundation models that run on this computer. "
            "This version segments from the command line; the panel lists the models."
        )
        self.parent.acknowledgementText = _("Each model's own citation and licence are on its card.")


class FoundationSegWidget(ScriptedLoadableModuleWidget):
    """The panel: the catalogue of models."""

    def setup(self) -> None:
        """Build the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = FoundationSegLogic()
        headings = (_("Model"), _("Prompts"), _("Good at"), _("Licence"), _("Download"), _("Runs here"))
        rows = self.logic.catalogueRows()
        self.table = qt.QTableWidget(len(rows), len(headings))
        self.table.setHorizontalHeaderLabels(headings)
        for r, row in enumerate(rows):
            for c, text in enumerate(row):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(text)
                self.table.setItem(r, c, item)
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.layout.addWidget(self.table)
        self.layout.addStretch(1)

    def cleanup(self) -> None:
        """End the worker when the module is closed or reloaded."""
        self.logic.cleanup()


class FoundationSegLogic(ScriptedLoadableModuleLogic):
    """The library for scripts in Slicer's Python console, on Slicer's nodes."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._client: Any = None

    def client(self) -> Any:
        """The client of this logic's worker, which starts with the first request and runs beside Slicer.

        ``client.stop()`` ends it, for example before packages are installed; the next request starts another.
        """
        if self._client is None:
            from FoundationSegLib.worker.process_client import ProcessClient

            self._client = ProcessClient()
        return self._client

    def cleanup(self) -> None:
        """End the worker, if one was started, and let go of its images."""
        if self._client is not None:
            self._client.close()

    def catalogue(self) -> dict[str, Any]:
        """Every model's card by its id."""
        from FoundationSegLib.core.cards import read_catalogue

        return read_catalogue()

    def catalogueRows(self) -> list[tuple[str, ...]]:
        """Title, prompts, strength, licence and size of every model, and whether this version runs it, as texts."""
        from FoundationSegLib.core.adapters import has_adapter

        return [
            (
                card.title,
                ", ".join(card.prompts),
                card.good_at,
                card.license.name,
                _("{size} MB").format(size=round(card.source.bytes / 1e6)) if card.source.bytes else _("unknown"),
                _("yes") if has_adapter(card) else _("not yet"),
            )
            for card in self.catalogue().values()
        ]

    def volume(self, volumeNode: Any) -> Any:
        """A volume node as the library's value."""
        from FoundationSegLib.mrml.volumes import volume_from_node

        return volume_from_node(volumeNode)

    def segmentWriter(self, segmentationNode: Any, volumeNode: Any) -> Any:
        """The one way of writing segments: it leaves neighbours alone, and every edit can be undone."""
        from FoundationSegLib.mrml.segments import SegmentWriter

        return SegmentWriter(segmentationNode, volumeNode)


class FoundationSegTest(ScriptedLoadableModuleTest):
    """What "Reload and Test" runs inside Slicer."""

    def setUp(self) -> None:
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run every test."""
        self.setUp()
        self.test_WriteAndUndo()
        self.setUp()
        self.test_WorkerStartsAndStops()

    def test_WriteAndUndo(self) -> None:
        """A segment is written into a volume's voxels, read back, and undone."""
        from FoundationSegLib.core.geometry import Box
        from FoundationSegLib.core.mask import PackedMask

        voxels = slicer.vtkOrientedImageData()
        voxels.SetDimensions(6, 5, 4)
        voxels.AllocateScalars(voxels.GetScalarType(), 1)
        volumeNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
        volumeNode.SetAndObserveImageData(voxels)
        segmentationNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        segmentationNode.CreateDefaultDisplayNodes()
        writer = FoundationSegLogic().segmentWriter(segmentationNode, volumeNode)
        segmentId = writer.add_segment("Liver")
        sixVoxels = PackedMask(Box((1, 1, 1), (2, 3, 4)), bytes([0b11111100]))
        edit = writer.write(segmentId, sixVoxels)
        self.assertEqual(int(writer.read_mask(segmentId).sum()), 6)
        writer.apply(edit.inverse())
        self.assertFalse(writer.read_mask(segmentId).any())

    def test_WorkerStartsAndStops(self) -> None:
        """A worker calls back, with the Python that runs Slicer, and is gone after the end."""
        logic = FoundationSegLogic()
        client = logic.client()
        client.prepare("no such model")
        self.assertIsNotNone(client.worker_pid)
        for _attempt in range(600):
            if not client.is_busy:
                break
            client.poll()
            client.wait(0.1)
        self.assertFalse(client.is_busy)
        self.assertIsNotNone(client.worker_pid)
        logic.cleanup()
        self.assertIsNone(client.worker_pid)
