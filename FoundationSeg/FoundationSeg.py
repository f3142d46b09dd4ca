"""The scripted module. Thin: everything that is not a widget is in FoundationSegLib, beside this folder."""

from __future__ import annotations  # a Slicer that is too old must get as far as saying so

import gc
import sys
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# Installed, the library lies in the module's own folder, which Slicer has put on the path; in the source tree it lies
# one folder up.
_SOURCE_TREE = Path(__file__).resolve().parents[1]
if (_SOURCE_TREE / "FoundationSegLib").is_dir() and str(_SOURCE_TREE) not in sys.path:
    sys.path.append(str(_SOURCE_TREE))


_OLDEST_SLICER = (5, 12)


class FoundationSeg(ScriptedLoadableModule):
    """The entry in Slicer's list of modules."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("FoundationSeg")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "Terminologies"]
        self.parent.contributors = ["FoundationSeg contributors"]
        self.parent.helpText = _(
            "Segment organs and lesions by clicks, boxes, scribbles and words, and classify images by words, with "
            "foundation models that run on this computer. Research use, not a diagnosis. "
            'See the <a href="https://github.com/FoundationSeg/SlicerFoundationSeg">documentation</a>.'
        )
        self.parent.acknowledgementText = _("Each model's own citation and licence are on its card.")
        slicer.app.connect("startupCompleted()", self.registerEffect)

    def registerEffect(self) -> None:
        """Offer the effect "Foundation prompt" in the Segment Editor."""
        if (slicer.app.majorVersion, slicer.app.minorVersion) >= _OLDEST_SLICER:
            from FoundationSegEffect.segment_editor_effect import make_effect

            make_effect().self().register()


class FoundationSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel; its parts are in FoundationSegPanel."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: FoundationSegLogic | None = None
        self.panel: Any = None
        self._parameters: Any = None
        self._guiTag: Any = None

    def setup(self) -> None:
        """Build the panel. Nothing is installed, downloaded or started here."""
        # To search all objects of Slicer for garbage takes as long as half of the building, whose objects all stay.
        is_collecting = gc.isenabled()
        gc.disable()
        try:
            self._build()
        finally:
            if is_collecting:
                gc.enable()

    def _build(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        if (slicer.app.majorVersion, slicer.app.minorVersion) < _OLDEST_SLICER:
            text = _("FoundationSeg needs Slicer {oldest} or later; this is {version}.")
            oldest = ".".join(map(str, _OLDEST_SLICER))
            self.layout.addWidget(qt.QLabel(text.format(oldest=oldest, version=slicer.app.applicationVersion)))
            self.layout.addStretch(1)
            return
        from FoundationSegPanel.panel import Panel

        self.logic = self.logic or FoundationSegLogic()
        widget = slicer.util.loadUI(self.resourcePath("UI/FoundationSeg.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        self.panel = Panel(self.ui, self.logic, lambda name: self.resourcePath(f"Icons/{name}"))
        widget.setMRMLScene(slicer.mrmlScene)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        for event in (slicer.mrmlScene.EndCloseEvent, slicer.mrmlScene.EndImportEvent):
            self.addObserver(slicer.mrmlScene, event, self.onSceneEnd)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self.onNodeRemoved)
        self.initializeParameterNode()
        if self.parent.isEntered:  # reloaded: Slicer does not enter it again
            self.panel.enter()

    def cleanup(self) -> None:
        """End the worker when the module is closed or reloaded."""
        self.removeObservers()
        self.setParameterNode(None)
        if self.panel is not None:
            self.panel.close()
        if self.logic is not None:
            self.logic.cleanup()

    def enter(self) -> None:
        """The user comes to the module."""
        if self.panel is not None:
            self.initializeParameterNode()
            self.panel.enter()

    def exit(self) -> None:
        """The user goes to another module; what is under way goes on."""
        if self.panel is not None:
            self.panel.leave()

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        """Let go of everything in the scene."""
        self.setParameterNode(None)

    def onSceneEnd(self, caller: Any, event: Any) -> None:
        """Begin anew after a scene was closed, and show the choices that came with an imported one."""
        if self.parent.isEntered or (self.panel is not None and self.panel.effect is not None):
            self.initializeParameterNode()
            self.panel.follow()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeRemoved(self, caller: Any, event: Any, node: Any) -> None:
        """Make a parameter node anew where somebody deletes it."""
        is_ours = self._parameters is not None and node is self._parameters.parameterNode
        if is_ours and not slicer.mrmlScene.IsClosing():
            self.setParameterNode(None)
            qt.QTimer.singleShot(0, self._replaceParameterNode)

    def _replaceParameterNode(self) -> None:
        if self._parameters is None and self.logic is not None and slicer.mrmlScene is not None:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Take the scene's parameter node, with the first image where none is chosen."""
        parameters = self.logic.getParameterNode()
        if parameters.volume is None:
            nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            images = (node for node in nodes if not node.IsA("vtkMRMLLabelMapVolumeNode"))
            parameters.volume = next(images, None)
        if self._parameters is None or parameters.parameterNode is not self._parameters.parameterNode:
            self.setParameterNode(parameters)

    def setParameterNode(self, parameters: Any) -> None:
        """Follow a parameter node; None for none."""
        if self._parameters is not None and self._guiTag is not None:
            self._parameters.disconnectGui(self._guiTag)
        self._parameters, self._guiTag = parameters, None
        if parameters is not None:
            self._guiTag = parameters.connectGui(self.ui)
        if self.panel is not None:
            self.panel.set_parameters(parameters)

    def onReload(self) -> None:
        """Reload the panel and the library, too, and not this file alone."""
        for name in [name for name in sys.modules if name.split(".")[0] in ("FoundationSegPanel", "FoundationSegLib")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)


class FoundationSegLogic(ScriptedLoadableModuleLogic):
    """The library for scripts in Slicer's Python console, on Slicer's nodes."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._client: Any = None
        self._cards: Any = None

    def installation(self) -> Any:
        """Return the ``Installation`` that the settings name now: the store of checkpoints and the worker's Python."""
        from FoundationSegPanel.settings import installation, read_settings

        return installation(read_settings())

    def client(self) -> Any:
        """Return the client of this logic's worker, which starts with the first request and runs beside Slicer."""
        if self._client is None:
            self._client = self.installation().open_client()
        return self._client

    def restartWorker(self) -> None:
        """End the worker; the next request starts one that goes by the settings as they are then. Images stay sent."""
        if self._client is not None:
            self._client.stop()
            client = self.installation().open_client()
            self._client.settings, self._client.command = client.settings, client.command
            self._client.inherited = client.inherited

    def cleanup(self) -> None:
        """End the worker, if one was started, and let go of its images."""
        if self._client is not None:
            self._client.close()

    def cards(self) -> tuple[dict[str, Any], Any]:
        """Every model's card by its id, and why the user's own are left out, if they are; read once."""
        if self._cards is None:
            from FoundationSegPanel.model_installer import read_cards

            self._cards = read_cards()
        return self._cards

    def modelInstaller(self) -> Any:
        """Return a ``ModelInstaller`` of its own: the models on this computer, and how they come and go."""
        from FoundationSegPanel.model_installer import ModelInstaller

        return ModelInstaller(self.restartWorker, self.cards())

    def catalogue(self) -> dict[str, Any]:
        """Every model's card by its id."""
        return self.cards()[0]

    def getParameterNode(self) -> Any:
        """The panel's choices, which are kept in the scene."""
        from FoundationSegPanel.parameters import Parameters

        return Parameters(super().getParameterNode())

    def runnableCards(self, task: str) -> dict[str, Any]:
        """The cards of the models for a task that this version can run, by their ids."""
        from FoundationSegLib.catalog.catalogue import has_adapter

        return {key: card for key, card in self.catalogue().items() if card.task == task and has_adapter(card)}

    def classNames(self, modelId: str) -> tuple[str, ...]:
        """The class names that a model knows; none for one that takes texts, or no words at all."""
        from FoundationSegLib.catalog.label_sets import classes_of

        card = self.catalogue()[modelId]
        return tuple(one.name for one in classes_of(card).classes) if "class" in card.prompts else ()

    def segment(
        self,
        volumeNode: Any,
        prompts: Any,
        modelId: str = "lite-medsam",
        segmentationNode: Any = None,
        intensity: str = "auto",
        allowForeign: bool = False,
    ) -> Any:
        """Segment an image by prompts, a prompts file's path or its content. Returns the segmentation node.

        A segmentation of another image is refused unless ``allowForeign`` is said, here and in what follows.
        """
        from FoundationSegLib.api import choose
        from FoundationSegLib.api_nodes import segment_node

        model = choose(modelId, intensity)
        return segment_node(volumeNode, prompts, self.client(), model, segmentationNode, allowForeign)

    def batch(self, volumeNodes: Any, prompts: Any, modelId: str = "lite-medsam", intensity: str = "auto") -> list[Any]:
        """Give the same prompts on several images. Returns a segmentation node for each."""
        from FoundationSegLib.api import load_prompts

        prompts = load_prompts(prompts)
        return [self.segment(node, prompts, modelId, intensity=intensity) for node in volumeNodes]

    def segmentSequence(self, volumeNode: Any, prompts: Any, modelId: str = "lite-medsam", **options: Any) -> Any:
        """Segment all frames of a sequence by prompts of the one that is shown. Returns segments, chart and numbers.

        Options as ``FoundationSegLib.api_nodes.segment_sequence``'s: an earlier result to go on with, other prompts.
        """
        from FoundationSegLib.api_nodes import segment_sequence

        return segment_sequence(volumeNode, prompts, self.client(), modelId, **options)

    def session(
        self, volumeNode: Any, segmentationNode: Any = None, modelId: str = "lite-medsam", allowForeign: bool = False
    ) -> Any:
        """Open a session on nodes, for ``with``: prompt by prompt, with undo and everything that the panel can do."""
        from FoundationSegLib.api_nodes import NodeSession, make_segmentation

        node = segmentationNode or make_segmentation(volumeNode)
        return NodeSession(volumeNode, node, self.client(), modelId, allow_foreign=allowForeign)

    def propagate(
        self,
        volumeNode: Any,
        segmentationNode: Any,
        segmentName: str,
        modelId: str = "lite-medsam",
        start: int | None = None,
        stop: int | None = None,
        direction: str = "both",
        allowForeign: bool = False,
    ) -> None:
        """Carry a segment on through the volume, over the slices from ``start`` to before ``stop``."""
        from FoundationSegLib.api_nodes import propagate_node
        from FoundationSegLib.requests.segmentation import Propagation

        propagation = Propagation(start, stop, direction)
        propagate_node(volumeNode, segmentationNode, segmentName, self.client(), modelId, propagation, allowForeign)

    def classify(self, volumeNode: Any, labels: Any, modelId: str = "biomedclip", **options: Any) -> Any:
        """Score labels, a set's id or a list of words; options as ``FoundationSegLib.api.classify``'s.

        Research use, not a diagnosis; scores are not calibrated probabilities.
        """
        from FoundationSegLib.api import classify

        return classify(self.volume(volumeNode), self.client(), modelId, labels, **options)

    def report(self, path: Any, segmentationNode: Any = None, withPatient: bool = False) -> None:
        """Write a page (.html) about a segmentation, or about all of the scene, to look at, print and send out."""
        from FoundationSegLib.api_nodes import report_nodes

        nodes = None if segmentationNode is None else [segmentationNode]
        report_nodes(path, nodes, with_patient=withPatient)

    def models(self) -> list[dict[str, Any]]:
        """List every model, with ``ready`` and what it ``lacks``."""
        return self.installation().models()

    def modelState(self, modelId: str) -> dict[str, Any]:
        """Describe one model, with ``ready`` and what it ``lacks``."""
        return self.installation().model_state(modelId)

    def downloadModel(self, modelId: str, acceptLicense: bool = False) -> None:
        """Download a model's checkpoint, and wait for it; ``acceptLicense`` where its terms have to be accepted."""
        self.installation().download(modelId, accept_license=acceptLicense)

    def removeModel(self, modelId: str) -> int:
        """Delete what is stored of a model. Returns the room that this frees, in bytes."""
        self.restartWorker()
        return self.installation().remove(modelId)

    def diagnosis(self) -> dict[str, Any]:
        """Describe this computer for somebody who helps; names no folder and no person. Takes seconds."""
        from FoundationSegPanel.settings import software

        return self.installation().diagnosis(software())

    def volume(self, volumeNode: Any) -> Any:
        """A volume node as the library's value."""
        from FoundationSegLib.mrml.volumes import volume_from_node

        return volume_from_node(volumeNode)

    def segmentWriter(self, segmentationNode: Any, volumeNode: Any, allowForeign: bool = False) -> Any:
        """The one way of writing segments: it leaves neighbours alone, and every edit can be undone."""
        from FoundationSegLib.mrml.segments import SegmentWriter
        from FoundationSegLib.mrml.volumes import require_own

        if not allowForeign:
            require_own(segmentationNode, volumeNode)
        return SegmentWriter(segmentationNode, volumeNode)


class FoundationSegTest(ScriptedLoadableModuleTest):
    """Tests that "Reload and Test" runs inside Slicer."""

    def setUp(self) -> None:
        """Start from an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run every test."""
        self.setUp()
        self.test_WriteAndUndo()
        self.setUp()
        self.test_PromptIsUndoneAndRedone()
        self.setUp()
        self.test_WorkerStartsAndStops()

    def test_WriteAndUndo(self) -> None:
        """Write a segment through the logic, read it back, and take it back by the inverse of the edit."""
        import numpy as np

        from FoundationSegLib.imaging.masks import pack_mask

        volumeNode = slicer.util.addVolumeFromArray(np.arange(120, dtype=np.int16).reshape(4, 5, 6))
        segmentationNode = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        writer = FoundationSegLogic().segmentWriter(segmentationNode, volumeNode)
        segmentId = writer.add_segment("Liver")
        edit = writer.write(segmentId, pack_mask(np.ones((1, 2, 3), bool), (2, 1, 1)))
        self.assertEqual(int(writer.read(segmentId).sum()), 6)
        writer.apply(edit.inverse())
        self.assertFalse(writer.read(segmentId).any())

    def test_PromptIsUndoneAndRedone(self) -> None:
        """A prompt becomes voxels and a markup; both go with undo, and come back with redo."""
        import numpy as np

        from FoundationSegLib.api_nodes import NodeSession, make_segmentation
        from FoundationSegLib.prompts.kinds import BoxPrompt
        from FoundationSegLib.session.segments import new_segment
        from FoundationSegLib.session.steps import ModelChoice
        from FoundationSegLib.worker.client import InlineClient

        volumeNode = slicer.util.addVolumeFromArray(np.arange(120, dtype=np.int16).reshape(4, 5, 6))
        segmentationNode = make_segmentation(volumeNode)
        with NodeSession(volumeNode, segmentationNode, InlineClient(_SixVoxels()), ModelChoice("six")) as session:
            segment = new_segment(session, "Liver")
            segment.add(BoxPrompt(((1.0, 1.0, 2.0), (3.0, 2.0, 2.0))))

            def found() -> tuple[int, int]:
                voxels = session.read(segment.segment_id)
                return int(voxels.sum()), slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLMarkupsNode")

            self.assertEqual(found(), (6, 1))
            session.undo(segment.segment_id)
            self.assertEqual(found(), (0, 0))
            session.redo(segment.segment_id)
            self.assertEqual(found(), (6, 1))

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


class _SixVoxels:
    """Stands for a model in the tests: whatever it is asked, it answers with the same six voxels."""

    def add_volume(self, volume: Any) -> None:
        """Take in an image."""

    def remove_volume(self, volume_key: str) -> None:
        """Let go of an image."""

    def predict(self, request: Any, progress: Any) -> Any:
        """The six voxels."""
        from FoundationSegLib.imaging.geometry import Box
        from FoundationSegLib.imaging.masks import PackedMask
        from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction, SegmentPrediction

        mask = PackedMask(Box((2, 1, 1), (3, 3, 4)), bytes([0b11111100]))
        record = CheckpointRecord("six", "nowhere", "1", "0" * 64)
        return Prediction(request.request_id, (SegmentPrediction(mask, None),), {}, record, "cpu", "float32")
