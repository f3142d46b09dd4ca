"""The tutorial in a real Slicer by mouse and keys, and the pictures of its views. Slicer's own test runner runs it.

`ctest` runs it in the build folder of the extension, and in any Slicer that has the module, from its Python console:

    import slicer.testing; slicer.testing.runUnitTest(["<checkout>/Testing/in_slicer"], "FoundationSegTutorialTest")

Events are Qt's own, sent to the widget that is under the mouse on the screen. A model of rules takes the place of one
with weights. Pictures are compared with the image: the voxels that the answer must hold are known.
"""

import time

import numpy as np
import qt
import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

SHAPE = (48, 64, 80)
SPACING = (1.5, 2.0, 1.0)  # of k, j, i, in mm
LIVER, SPLEEN = 300, 500  # intensities, and centres below
CENTRES = {LIVER: (24, 32, 24), SPLEEN: (24, 30, 58)}
RADIUS = {LIVER: 15.0, SPLEEN: 9.0}  # mm
LAYOUTS = slicer.vtkMRMLLayoutNode
FOUR_UP, ONE_UP = LAYOUTS.SlicerLayoutFourUpView, LAYOUTS.SlicerLayoutOneUpRedSliceView
TWO_MONITORS = LAYOUTS.SlicerLayoutDualMonitorFourUpView
LEFT, NO_BUTTON = qt.Qt.LeftButton, qt.Qt.NoButton


def balls(shape=SHAPE, centres=CENTRES):
    """Two bright balls in the dark."""
    array = np.zeros(shape, np.int16)
    for value, centre in centres.items():
        reach = [int(RADIUS[value] / step) for step in SPACING]
        offsets = np.mgrid[tuple(slice(-n, n + 1) for n in reach)]
        is_inside = (np.array(SPACING)[:, None, None, None] ** 2 * offsets**2).sum(axis=0) <= RADIUS[value] ** 2
        array[tuple(slice(c - n, c + n + 1) for c, n in zip(centre, reach, strict=True))][is_inside] = value
    return array


class BrightParts:
    """Stands for a model: finds what is as bright as the middle of the last prompt, on its slice or in all slices."""

    def prepare(self, model_id, progress):
        """Nothing has to be loaded."""

    def add_volume(self, volume):
        self.volume = volume

    def remove_volume(self, volume_key):
        self.volume = None

    def predict(self, request, progress):
        from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction, SegmentPrediction

        found = tuple(SegmentPrediction(self._mask(request, segment), 0.9) for segment in request.segments)
        record = CheckpointRecord(request.model_id, "nowhere", "1", "0" * 64)
        return Prediction(request.request_id, found, {"policy": "raw"}, record, "cpu", "float32")

    def _mask(self, request, segment):
        from FoundationSegLib.imaging.masks import pack_mask
        from FoundationSegLib.prompts.kinds import MaskPrompt
        from FoundationSegLib.prompts.placement import prompt_positions

        voxels, geometry = self.volume.array_kji, self.volume.geometry
        mask = np.zeros(geometry.shape_kji, bool)
        for prompt in segment.prompts:
            if isinstance(prompt, MaskPrompt):
                mask |= prompt.voxels.expand(geometry.shape_kji)
                continue
            corners = geometry.to_ijk(np.asarray(prompt_positions(prompt)))[:, ::-1]
            middle = tuple(np.floor((corners.min(axis=0) + corners.max(axis=0)) / 2 + 0.5).astype(int))
            axis = int(np.ptp(corners, axis=0).argmin())
            part = [slice(None)] * 3
            if request.propagation is None:
                part[axis] = slice(middle[axis], middle[axis] + 1)
            mask[tuple(part)] |= voxels[tuple(part)] == voxels[middle]
        return pack_mask(mask)


class FoundationSegTutorialTest(ScriptedLoadableModuleTest):
    """The steps of the tutorial, by mouse and keys."""

    def setUp(self):
        """Open the module on an image of two balls, with a model that needs no weights."""
        from FoundationSegPanel.model_installer import ModelInstaller

        import FoundationSeg
        from FoundationSegLib.api import Readiness
        from FoundationSegLib.worker.client import InlineClient

        class Ready(ModelInstaller):
            def readiness(self, model_id):
                return Readiness(model_id, ())

            def refresh(self):
                """Ask no Python for its packages."""

        class FoundationSegLogic(FoundationSeg.FoundationSegLogic):
            def client(self):
                self._client = self._client or InlineClient(BrightParts())
                return self._client

            def modelInstaller(self):
                return Ready(self.restartWorker, self.cards())

        slicer.util.selectModule("Data")
        slicer.mrmlScene.Clear()
        self.window, self.style = slicer.util.mainWindow(), (qt.QApplication.font(), qt.QApplication.palette())
        qt.QApplication.setActiveWindow(self.window)  # without a window manager, no widget would have the focus
        slicer.app.layoutManager().setLayout(FOUR_UP)
        self.widget = slicer.util.getModuleWidget("FoundationSeg")
        self.widget.cleanup()
        layout = self.widget.layout
        while layout.count():
            item = layout.takeAt(0)
            if item.widget() is not None:
                item.widget().deleteLater()
        self.widget.logic = FoundationSegLogic()
        self.widget.setup()
        self.show_image(balls())
        slicer.util.selectModule("FoundationSeg")
        self.wait()

    def tearDown(self):
        """Leave Slicer as it was."""
        qt.QApplication.setFont(self.style[0])
        qt.QApplication.setPalette(self.style[1])
        slicer.util.selectModule("Data")
        slicer.mrmlScene.Clear()
        slicer.app.layoutManager().setLayout(FOUR_UP)
        slicer.util.reloadScriptedModule("FoundationSeg")

    # The tests

    def test_Tutorial(self):
        """All steps, as they are."""
        self.tutorial()

    def test_LargeFont150(self):
        """All steps with letters half as large again."""
        self.enlarge(1.5)
        self.tutorial()

    def test_LargeFont200(self):
        """All steps with letters twice as large."""
        self.enlarge(2.0)
        self.tutorial()

    def test_DarkStyle(self):
        """All steps on dark ground."""
        qt.QApplication.setPalette(qt.QPalette(qt.QColor(50, 50, 50)))
        self.wait()
        self.tutorial()

    def test_LayoutsInBetween(self):
        """Prompts, undo and redo in a layout of four views, of one, of two monitors, and of four again."""
        turns = (
            (FOUR_UP, "Red", LIVER),
            (ONE_UP, "Red", SPLEEN),
            (TWO_MONITORS, "Yellow", LIVER),
            (FOUR_UP, "Green", SPLEEN),
        )
        for layout, view, value in turns:
            slicer.app.layoutManager().setLayout(layout)
            self.wait()
            slicer.util.resetSliceViews()
            self.new_segment(f"{view} of {value}")
            self.box(view, value)
            self.undo_and_redo(view)
        self.look_at(LIVER)
        self.assert_shown("Red", LIVER, SPLEEN)

    def test_SegmentEditorAndMarkupsInBetween(self):
        """What is painted by hand stays with a further prompt; a markup is placed with a tool in hand."""
        self.new_segment("Liver")
        self.box("Red", LIVER)
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(self.parameters.segmentation)
        editor.setSourceVolumeNode(self.image)
        editor.setActiveEffectByName("Paint")
        self.wait()
        corner = self.on_screen("Red", (24, 6, 6))
        self.drag(corner, qt.QPoint(corner.x() + 6, corner.y()))
        editor.setActiveEffectByName("")
        painted = self.voxels() & (self.array == 0)
        self.assertTrue(painted.any())
        slicer.util.selectModule("Markups")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Mine")
        slicer.modules.markups.logic().SetActiveList(node)
        slicer.util.selectModule("FoundationSeg")
        slicer.modules.markups.logic().StartPlaceMode(False)
        self.wait()
        self.drag(*[self.on_screen("Red", CENTRES[SPLEEN])] * 2)
        self.assertEqual(node.GetNumberOfDefinedControlPoints(), 1)
        self.box("Yellow", LIVER)
        self.assertTrue(self.voxels()[painted].all())
        self.press_key("Ctrl+Z")
        self.assertTrue(self.voxels()[painted].all())
        self.assertFalse((self.voxels() & (self.array == SPLEEN)).any())

    def test_UndoAndRedo200Times(self):
        """The same voxels, nodes and picture after 200 times undo and redo as before."""
        self.new_segment("Liver")
        self.box("Red", LIVER)
        self.box("Green", LIVER)
        self.wait(1.0)
        before = self.voxels(), slicer.mrmlScene.GetNumberOfNodes(), self.picture("Red")
        for _turn in range(200):
            self.press_key("Ctrl+Z", seconds=0)
            self.press_key("Ctrl+Y", seconds=0)
        self.wait(1.0)
        self.assert_voxels(before[0])
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before[1])
        self.assert_same_picture(self.picture("Red"), before[2])

    def test_LargeVolume(self):
        """A prompt, undo and redo, and propagation, in 512 x 512 x 800 voxels."""
        centres = {LIVER: (400, 250, 200), SPLEEN: (420, 240, 300)}
        self.show_image(balls((800, 512, 512), centres), centres)
        self.new_segment("Liver")
        self.box("Red", LIVER)
        self.undo_and_redo("Red")
        self.click(self.widget.ui.propagateButton)
        self.assert_voxels(self.array == LIVER)

    # The steps

    def tutorial(self):
        """Prompt, undo, redo, a second segment, propagation, a correction and its undo, acceptance."""
        ui = self.widget.ui
        self.assert_shown("Red")
        self.new_segment("Liver")
        self.box("Red", LIVER)
        self.assert_voxels(self.on_slice(LIVER, 0))
        self.undo_and_redo("Red")
        self.click(ui.undoButton)
        self.assert_shown("Red")
        self.click(ui.redoButton)
        self.new_segment("Spleen")
        self.box("Red", SPLEEN)
        self.assert_shown("Red", LIVER, SPLEEN)
        self.click(ui.propagateButton)
        self.assert_voxels(self.array == SPLEEN)
        self.look_at(SPLEEN)
        for view in ("Red", "Green", "Yellow"):
            self.assert_shown(view, SPLEEN, *([LIVER] if view == "Red" else []))
        self.press_key("Return")
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        self.assertEqual(logic.GetSegmentStatus(self.segment()), logic.Completed)
        self.new_segment("Liver")
        self.box("Yellow", LIVER)
        self.assert_voxels(self.on_slice(LIVER, 2) & ~self.on_slice(LIVER, 0))  # the first one keeps its voxels
        self.press_key("Ctrl+Z")
        self.assertFalse(self.voxels().any())

    def new_segment(self, name):
        """Write a name, and make a segment of it."""
        box = self.widget.ui.kindBox
        self.click(box.lineEdit())
        box.lineEdit().selectAll()
        for letter in name:
            self.send_key(qt.QApplication.focusWidget(), 0, letter)
        self.click(self.widget.ui.addButton)

    def box(self, view, value):
        """Take the tool, and drag a box around a ball on the slice through its middle."""
        self.look_at(value)
        if not self.widget.ui.boxButton.checked:
            self.click(self.widget.ui.boxButton)
        axis = {"Red": 0, "Green": 1, "Yellow": 2}[view]
        reach = np.array([0 if n == axis else RADIUS[value] / SPACING[n] + 2 for n in range(3)])
        centre = np.array(self.centres[value])
        self.drag(self.on_screen(view, centre - reach), self.on_screen(view, centre + reach))

    def undo_and_redo(self, view):
        """Undo and redo by keys: the picture changes, and is the same again."""
        after = self.picture(view)
        self.press_key("Ctrl+Z")
        self.assertFalse(self.voxels().any())
        self.assertFalse(np.array_equal(self.picture(view), after))
        self.press_key("Ctrl+Y")
        self.assert_same_picture(self.picture(view), after)

    # Image and segments

    def show_image(self, array, centres=CENTRES):
        node = slicer.util.addVolumeFromArray(array)
        node.SetSpacing(*reversed(SPACING))
        self.image, self.array, self.centres = node, array, centres
        slicer.util.setSliceViewerLayers(background=node, fit=True)
        if self.widget.panel.parameters is not None:
            self.parameters.volume = node
        self.wait(0.5)

    @property
    def parameters(self):
        return self.widget.panel.parameters

    def segment(self):
        return self.widget.panel.controller.selected_node_segment

    def voxels(self):
        """The voxels of the selected segment; none where its making was undone."""
        node, key = self.parameters.segmentation, self.widget.panel.controller.segment_id
        if node is None or node.GetSegmentation().GetSegment(key) is None:
            return np.zeros(self.array.shape, bool)
        return slicer.util.arrayFromSegmentBinaryLabelmap(node, key, self.image) > 0

    def assert_voxels(self, expected):
        """The selected segment holds these voxels, and no others."""
        voxels = self.voxels()
        counts = voxels.sum(), (voxels & ~expected).sum(), (expected & ~voxels).sum()
        self.assertTrue(np.array_equal(voxels, expected), f"{counts}: voxels, those too many, and those missing")

    def on_slice(self, value, axis):
        part = [slice(None)] * 3
        part[axis] = self.centres[value][axis]
        mask = np.zeros(self.array.shape, bool)
        mask[tuple(part)] = self.array[tuple(part)] == value
        return mask

    def look_at(self, value):
        world = np.array(self.centres[value])[::-1] * SPACING[::-1]
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            node.JumpSliceByOffsetting(*world)
        self.wait()

    # Pictures

    def picture(self, view):
        """What the screen shows of a view: (height, width, 3), from below."""
        slice_view = slicer.app.layoutManager().sliceWidget(view).sliceView()
        slice_view.forceRender()
        image = vtk.vtkImageData()
        slicer.qMRMLUtils().qImageToVtkImageData(slice_view.grab().toImage(), image)
        width, height, _depth = image.GetDimensions()
        pixels = vtk.util.numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
        return pixels.reshape(height, width, -1)[..., :3].astype(int)

    def assert_same_picture(self, picture, other):
        self.assertEqual(picture.shape, other.shape)
        self.assertLess((picture != other).any(axis=2).mean(), 0.001)

    def assert_shown(self, view, *values):
        """These balls are seen in their segments' colours, and nothing else is coloured but lines and texts."""
        picture = self.picture(view)
        height, width = picture.shape[:2]
        matrix = slicer.app.layoutManager().sliceWidget(view).mrmlSliceNode().GetXYToRAS()
        xy_to_index = np.diag((*(1 / np.array(SPACING[::-1])), 1)) @ slicer.util.arrayFromVTKMatrix(matrix)
        y, x = np.mgrid[:height, :width].reshape(2, -1)
        index = np.floor(xy_to_index @ (x, y, 0 * x, 0 * x + 1) + 0.5).astype(int)[2::-1]
        is_inside = ((index >= 0) & (index < np.reshape(self.array.shape, (3, 1)))).all(axis=0)
        seen = np.where(is_inside, self.array[tuple(np.where(is_inside, index, 0))], 0).reshape(height, width)
        is_coloured = np.ptp(picture, axis=2) > 12
        for value in values:
            self.assertGreater(is_coloured[seen == value].mean(), 0.95, f"{value} in {view}")
        self.assertLess(is_coloured[~np.isin(seen, values)].mean(), 0.05, view)

    # Mouse and keys

    def on_screen(self, view, index_kji):
        """The point of the screen that shows a voxel, whose slice the view has to show."""
        widget = slicer.app.layoutManager().sliceWidget(view)
        to_xy = np.linalg.inv(slicer.util.arrayFromVTKMatrix(widget.mrmlSliceNode().GetXYToRAS()))
        x, y = (to_xy @ (*(np.asarray(index_kji)[::-1] * SPACING[::-1]), 1))[:2] / widget.devicePixelRatioF()
        slice_view = widget.sliceView()
        return slice_view.mapToGlobal(qt.QPoint(round(x), round(slice_view.height - 1 - y)))

    def drag(self, start, end, steps=8):
        """Press, move and release the left button between two points of the screen, and wait for what comes of it."""
        widget = qt.QApplication.widgetAt(start)
        self.mouse(qt.QEvent.MouseMove, widget, start, NO_BUTTON, NO_BUTTON)
        if widget.focusPolicy & qt.Qt.ClickFocus:
            widget.setFocus(qt.Qt.MouseFocusReason)
        self.mouse(qt.QEvent.MouseButtonPress, widget, start, LEFT, LEFT)
        for n in range(1, steps + 1 if start != end else 1):
            way = (end - start) * (n / steps)
            self.mouse(qt.QEvent.MouseMove, widget, start + way, NO_BUTTON, LEFT)
        self.mouse(qt.QEvent.MouseButtonRelease, widget, end, LEFT, NO_BUTTON)
        self.wait()

    def click(self, target):
        """Click a widget of the panel, which has to be under the mouse then; the panel is scrolled to it if need be."""
        parent = target.parentWidget()
        while parent is not None:
            if parent.inherits("QScrollArea"):
                parent.ensureWidgetVisible(target)
            parent = parent.parentWidget()
        slicer.app.processEvents()
        self.assertTrue(target.enabled, target.objectName)
        point = target.mapToGlobal(target.rect.center())
        self.assertEqual(qt.QApplication.widgetAt(point), target)
        self.drag(point, point)

    def mouse(self, kind, widget, point, button, buttons):
        local, on_screen = qt.QPointF(widget.mapFromGlobal(point)), qt.QPointF(point)
        event = qt.QMouseEvent(kind, local, on_screen, button, buttons, qt.Qt.NoModifier)
        qt.QApplication.sendEvent(widget, event)
        slicer.app.processEvents()

    def press_key(self, key, seconds=0.3):
        """Press a key of the module: Qt takes it for its shortcut, whatever has the focus."""
        sequence = qt.QKeySequence(key)
        shortcuts = [s for s in self.window.findChildren(qt.QShortcut) if s.enabled and s.key == sequence]
        self.assertEqual(len(shortcuts), 1, key)
        qt.QApplication.sendEvent(shortcuts[0], qt.QShortcutEvent(sequence, shortcuts[0].id()))
        self.wait(seconds)

    def send_key(self, widget, key, text=""):
        for kind in (qt.QEvent.KeyPress, qt.QEvent.KeyRelease):
            qt.QApplication.sendEvent(widget, qt.QKeyEvent(kind, key, qt.Qt.NoModifier, text))

    def enlarge(self, factor):
        font = qt.QFont(self.style[0])
        font.setPointSizeF(font.pointSizeF() * factor)
        qt.QApplication.setFont(font)
        self.wait(1.0)

    def wait(self, seconds=0.3):
        """Let events be handled until nothing is under way, and for a moment more."""
        slicer.app.processEvents()
        end = time.monotonic() + seconds
        while time.monotonic() < end or self.widget.panel.controller.is_busy:
            slicer.app.processEvents()
            time.sleep(0.005)
