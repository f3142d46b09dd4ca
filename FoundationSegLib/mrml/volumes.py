"""Volume nodes to volumes and back, their parent transforms, and the segmentations that belong to an image.

Two images on the same lattice are two images, and so are two frames of a sequence. A segmentation without a reference
image is free: it belongs to the first image that it is worked on with. Masks and prompts of other images are hidden
while an image is worked on.
"""

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import NDArray
from vtk.util import numpy_support

from ..errors import GeometryError, GoneError, InputError
from ..imaging.geometry import Box, Geometry, as_shape
from ..imaging.intensity import automatic_rule
from ..imaging.volume import IN_PIXELS, Volume
from .prompt_nodes import prompt_nodes
from .scene import remove_node

_MODALITY = "DICOM.Modality"

# What a volume without a DICOM modality says about itself in its quantity and unit; the codes are those that Slicer's
# DICOM import sets (DICOMPlugin.mapSOPClassUIDToDICOMQuantityAndUnits).
_MODALITY_OF_UNIT = {"[hnsf'U]": "CT"}
_MODALITY_OF_QUANTITY = {"110852": "MR"}

# The resolution in these files is that of a print or screen. The file decides, because every node has a spacing.
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

_STORABLE = ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8")


def geometry_from_node(volume_node: Any) -> Geometry:
    """The grid of a volume node in its own RAS, that is, before its parent transforms.

    Raises:
        InputError: there is no image in the node.
        GeometryError: the node's matrix cannot be inverted.
    """
    image = _image(volume_node)
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    ijk_to_ras = slicer.util.arrayFromVTKMatrix(matrix)
    first_ijk = image.GetExtent()[::2]
    ijk_to_ras[:3, 3] += ijk_to_ras[:3, :3] @ first_ijk
    return Geometry(ijk_to_ras, image.GetDimensions()[::-1])


def volume_from_node(volume_node: Any) -> Volume:
    """The image of a scalar or a colour volume node; alpha is left out.

    The voxels are a read-only view of the node's memory, not a copy: the view keeps that memory alive after the node
    is gone, and shows what others change in the node. Ask again after such a change, because ``Volume.key`` is kept.

    Raises:
        InputError: the node holds no image, labels, a vector field, or a number of components other than 1, 3 and 4.
        GeometryError: the node's matrix cannot be inverted.
    """
    geometry = geometry_from_node(volume_node)
    return Volume(
        _voxels(volume_node, geometry),
        geometry,
        modality=modality_of(volume_node),
        window_level=_window_level(volume_node),
        name=volume_node.GetName() or "",
        in_pixels=_is_in_pixels(volume_node, geometry),
    )


class NodeImage:
    """The image of a volume node as it is now, for a session (:class:`~.session.segment_store.ImageSource`).

    Who writes into Slicer's memory says so (`slicer.util.arrayFromVolumeModified`), or Slicer does not show it either.
    """

    def __init__(self, volume_node: Any) -> None:
        self._node, self._frame = volume_node, frame_of(volume_node)

    def stamp(self) -> Hashable:
        """A value that differs after each change of voxels or grid."""
        image = self._node.GetImageData()
        scalars = image.GetPointData().GetScalars() if image is not None else None
        matrix = vtk.vtkMatrix4x4()
        self._node.GetIJKToRASMatrix(matrix)
        address = scalars.GetAddressAsString("") if scalars is not None else ""
        return address, image and image.GetMTime(), scalars and scalars.GetMTime(), matrix.GetData()

    def read(self) -> Volume:
        """The image now; raises as :func:`volume_from_node`, and an InputError where it is another frame."""
        if frame_of(self._node) != self._frame:
            raise InputError(f"'{self._node.GetName()}' shows another frame: begin anew on it, or go back")
        return volume_from_node(self._node)


class SentImage:
    """The image of a node as a client has it; read again once its voxels or its grid have changed.

    Args:
        remove: has the client let go of an image, by its key.
    """

    def __init__(self, remove: Callable[[str], None]) -> None:
        self._remove = remove
        self._volume: Volume | None = None
        self._stamp: Hashable = None
        self._rule = ("", "")  # of an image, by its key

    @property
    def automatic_rule(self) -> str:
        """The rule that the automatic intensity comes to; empty until the image was read."""
        volume = self._volume
        if volume is not None and volume.key != self._rule[0]:
            self._rule = volume.key, "colour" if volume.is_colour else automatic_rule(volume)
        return self._rule[1] if volume is not None else ""

    def read(self, volume_node: Any) -> Volume:
        """The image of a node now. The client lets go of the one before it if it is another.

        Raises:
            InputError, GeometryError: there is none that could be used.
            GoneError: the node was deleted.
        """
        if volume_node is None:
            raise InputError("choose an image first")
        require_in_scene(volume_node)
        stamp = NodeImage(volume_node).stamp()
        if self._volume is None or stamp != self._stamp:
            before, self._volume, self._stamp = self._volume, volume_from_node(volume_node), stamp
            if before is not None and before.key != self._volume.key:
                self._remove(before.key)
        return self._volume

    def replace(self, volume: Volume) -> None:
        """Take the image that somebody else has sent meanwhile for what the client has."""
        self._volume = volume

    def drop(self) -> None:
        """Have the client let go of it."""
        if self._volume is not None:
            self._remove(self._volume.key)
            self._volume = None


def require_in_scene(node: Any) -> None:
    """Raise a GoneError where a node was deleted."""
    if node.GetScene() is None:
        raise GoneError(f"'{node.GetName()}' was deleted: choose another one")


def add_volume_node(scene: Any, volume: Volume, name: str | None = None) -> Any:
    """A new volume node that holds a copy of the image, with a display node; vector for colour, otherwise scalar.

    Slicer cannot show 64-bit integers or 16-bit floats: they become the next type that holds every value exactly.

    Raises:
        InputError: no type that Slicer knows holds every value exactly; no node is left behind.
    """
    array, image = _storable(volume.array_kji), vtk.vtkImageData()
    image.SetDimensions(*array.shape[2::-1])
    flat = array.reshape(-1, 3) if volume.is_colour else array.reshape(-1)
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(flat, deep=True))
    node = slicer.vtkMRMLVectorVolumeNode() if volume.is_colour else slicer.vtkMRMLScalarVolumeNode()
    node.SetName(name or volume.name or "Volume")
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(volume.geometry.ijk_to_ras))
    if volume.is_colour:
        node.SetVoxelVectorType(slicer.vtkMRMLVolumeNode.VoxelVectorTypeColorRGB)
    if volume.modality:
        node.SetAttribute(_MODALITY, volume.modality)
    scene.AddNode(node)
    node.CreateDefaultDisplayNodes()
    if volume.window_level:
        node.GetDisplayNode().AutoWindowLevelOff()
        node.GetDisplayNode().SetWindowLevel(*volume.window_level)
    # The image comes last: without a window to show it in, Slicer looks for one, which takes a second for 157 MB.
    node.SetAndObserveImageData(image)
    return node


def parent_to_world(node: Any) -> NDArray[np.float64]:
    """The (4, 4) matrix from a node's own RAS to the world's, in mm; the identity without a parent transform.

    Raises:
        GeometryError: a parent transform is not linear.
    """
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        raise GeometryError(f"'{node.GetName()}' has a parent transform that is not linear: harden the transform first")
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def share_parent_transform(volume_node: Any, *other_nodes: Any) -> None:
    """Put the other nodes under the volume's parent transform, or under none, as the volume is.

    Raises:
        GeometryError: a parent transform of the volume is not linear; nothing is moved then.
    """
    parent_to_world(volume_node)
    parent = volume_node.GetParentTransformNode()
    for node in other_nodes:
        if node.GetParentTransformNode() is not parent:
            node.SetAndObserveTransformNodeID(parent.GetID() if parent else None)


def _image(volume_node: Any) -> Any:
    image = volume_node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None or min(image.GetDimensions()) < 1:
        raise InputError(f"the volume '{volume_node.GetName()}' holds no image: load or choose another one")
    return image


def _voxels(volume_node: Any, geometry: Geometry) -> NDArray[np.generic]:
    scalars = volume_node.GetImageData().GetPointData().GetScalars()
    components = scalars.GetNumberOfComponents()
    _require_image(volume_node, components)
    voxels = numpy_support.vtk_to_numpy(scalars)
    shape = geometry.shape_kji
    voxels = voxels.reshape(shape) if components == 1 else voxels.reshape(*shape, components)[..., :3]
    voxels.setflags(write=False)
    return voxels


def _require_image(volume_node: Any, components: int) -> None:
    name = volume_node.GetName()
    if volume_node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise InputError(f"'{name}' holds labels, not an image: choose the image that they belong to")
    vectors = (
        slicer.vtkMRMLVolumeNode.VoxelVectorTypeSpatial,
        slicer.vtkMRMLVolumeNode.VoxelVectorTypeSpatialCovariant,
    )
    if components not in (1, 3, 4) or volume_node.GetVoxelVectorType() in vectors:
        raise InputError(f"'{name}' has {components} numbers a voxel that are no colours: choose a grey or RGB volume")


def _is_in_pixels(volume_node: Any, geometry: Geometry) -> bool:
    """True for a picture, by its grid or its file, which the node remembers when it is saved to another one."""
    storage = volume_node.GetStorageNode()
    if storage is not None and (storage.GetFileName() or "").lower().endswith(_PICTURES):
        volume_node.SetAttribute(IN_PIXELS, "1")
    return geometry.is_picture(named=volume_node.GetAttribute(IN_PIXELS) is not None)


def modality_of(volume_node: Any) -> str | None:
    """The DICOM code of an image's modality; None where nothing says it."""
    return volume_node.GetAttribute(_MODALITY) or _modality_of_series(volume_node) or _modality_of_unit(volume_node)


def _modality_of_series(volume_node: Any) -> str | None:
    """The modality that Slicer's DICOM import wrote into the subject hierarchy, if there is one; none is made."""
    scene = volume_node.GetScene()
    hierarchy = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode") if scene else None
    item = hierarchy.GetItemByDataNode(volume_node) if hierarchy else 0
    return (hierarchy.GetItemAttribute(item, _MODALITY) or None) if item else None


def _modality_of_unit(volume_node: Any) -> str | None:
    unit, quantity = volume_node.GetVoxelValueUnits(), volume_node.GetVoxelValueQuantity()
    return (_MODALITY_OF_UNIT.get(unit.GetCodeValue()) if unit else None) or (
        _MODALITY_OF_QUANTITY.get(quantity.GetCodeValue()) if quantity else None
    )


def _window_level(volume_node: Any) -> tuple[float, float] | None:
    display = volume_node.GetDisplayNode()
    if not isinstance(display, slicer.vtkMRMLScalarVolumeDisplayNode) or not display.GetWindow() > 0:
        return None
    return display.GetWindow(), display.GetLevel()


def _storable(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """The same values, C-ordered, native, in the first type of Slicer's that holds them all exactly."""
    native = array.dtype.newbyteorder("=")
    wider = ("i4", "u4", "f8") if native.kind in "iu" else ("f4", "f8")
    for dtype in [native] if native.str[1:] in _STORABLE else map(np.dtype, wider):
        if dtype == native or _fits(array, dtype):
            return np.ascontiguousarray(array, dtype)
    raise InputError(f"voxels of type {array.dtype} hold values that Slicer cannot store exactly")


def _fits(array: NDArray[np.generic], dtype: np.dtype) -> bool:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return bool(limits.min <= array.min() and array.max() <= limits.max)
    if array.dtype.kind in "iu":  # a double holds every whole number up to 2^53, though NumPy calls any cast safe
        return bool(array.min() >= -(2**53) and array.max() <= 2**53)
    return bool(np.array_equal(array.astype(dtype), array, equal_nan=True))


def box_of_roi(roi_node: Any, volume_node: Any) -> Box:
    """The voxels whose centres lie in a `vtkMRMLMarkupsROINode`; where it is turned, those in the box around it.

    Raises:
        InputError: it holds no voxel of the image, or was not placed yet.
        GeometryError: a parent transform is not linear.
    """
    size = np.array(roi_node.GetSize())
    if not (size > 0).all():
        raise InputError(f"the region of interest '{roi_node.GetName()}' has no size yet: place it in a view")
    object_to_world = slicer.util.arrayFromVTKMatrix(roi_node.GetObjectToWorldMatrix())
    corners = np.array(list(itertools.product((-0.5, 0.5), repeat=3))) * size
    world = corners @ object_to_world[:3, :3].T + object_to_world[:3, 3]
    to_ras = np.linalg.inv(parent_to_world(volume_node))
    geometry = geometry_from_node(volume_node)
    index_kji = geometry.to_ijk(world @ to_ras[:3, :3].T + to_ras[:3, 3])[:, ::-1]
    tolerance = 1e-6  # of a voxel; a box drawn exactly onto centres has them
    start = as_shape(np.ceil(index_kji.min(axis=0) - tolerance))
    box = Box(start, as_shape(np.floor(index_kji.max(axis=0) + tolerance) + 1)).intersection(geometry.box)
    if box.is_empty:
        raise InputError(f"the region of interest '{roi_node.GetName()}' holds no voxel of '{volume_node.GetName()}'")
    return box


FRAME_ATTRIBUTE = "FoundationSeg.Frame"  # on a segmentation: the index value of its frame in a sequence


def browser_of(node: Any) -> Any:
    """The sequence browser that puts its frames into a node, one after the other; None where there is none."""
    scene = node.GetScene()
    browsers = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode", scene) if scene is not None else ()
    return next((browser for browser in browsers if browser.IsProxyNodeID(node.GetID())), None)


def frame_of(volume_node: Any) -> str:
    """The index value of the frame that an image shows now; empty for an image without time."""
    browser = browser_of(volume_node)
    values = index_values(browser) if browser is not None else []
    return values[browser.GetSelectedItemNumber()] if values else ""


def index_values(browser: Any) -> list[str]:
    """The index values of the frames of a sequence browser, in order."""
    master = browser.GetMasterSequenceNode()
    return [master.GetNthIndexValue(n) for n in range(browser.GetNumberOfItems())] if master is not None else []


def frames_from_node(volume_node: Any) -> tuple[Volume, ...]:
    """All frames of the sequence that an image node shows, as :func:`volume_from_node`, looked at like the shown one.

    Raises:
        InputError: the node shows no sequence of two images or more, or an image is missing in it.
        GeometryError: the images have different grids.
    """
    require_in_scene(volume_node)
    browser = browser_of(volume_node)
    if browser is None or not volume_node.IsA("vtkMRMLVolumeNode"):
        raise InputError(f"'{volume_node.GetName()}' is no image of a sequence: choose one that a browser shows")
    shown, sequence = volume_from_node(volume_node), browser.GetSequenceNode(volume_node)
    frames = []
    for value in index_values(browser):
        node = sequence.GetDataNodeAtValue(value, True)
        if node is None:
            raise InputError(f"the sequence '{sequence.GetName()}' has no image at {value}: add it, or leave it out")
        frame = volume_from_node(node)
        if not frame.geometry.almost_equals(shown.geometry):
            raise GeometryError(f"the image of '{sequence.GetName()}' at {value} has another grid: resample it first")
        frames.append(replace(shown, array_kji=frame.array_kji))
    if len(frames) < 2:
        raise InputError(f"the sequence '{sequence.GetName()}' has one frame: segment it as an image")
    return tuple(frames)


def plot_over_frames(segmentation_node: Any, curves: Mapping[str, Sequence[float]]) -> Any:
    """Add a table and a chart of values over the frames of a sequence; returns the chart node."""
    columns = np.array([range(len(next(iter(curves.values())))), *curves.values()], np.float64).T
    title = f"{segmentation_node.GetName()} over time"
    return slicer.util.plot(columns, 0, ["frame", *curves], title, show=False)


def remove_plot(chart_node: Any) -> None:
    """Remove a chart with its series and their tables."""
    series = [chart_node.GetNthPlotSeriesNode(n) for n in range(chart_node.GetNumberOfPlotSeriesNodes())]
    tables = {each.GetTableNodeID(): each.GetTableNode() for each in series}
    for node in filter(None, (*series, *tables.values(), chart_node)):
        remove_node(node)


HIDDEN_ATTRIBUTE = "FoundationSeg.Hidden"  # on what was visible, and is hidden while another image is worked on


class ForeignSegmentationError(InputError):
    """The segmentation belongs to another image than the one that is worked on; nothing has happened then."""


def patient_item(volume_node: Any) -> int:
    """The patient above an image in the subject hierarchy; 0 for none."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume_node.GetScene())
    item = hierarchy.GetItemByDataNode(volume_node) if hierarchy is not None else 0
    return hierarchy.GetItemAncestorAtLevel(item, "Patient") if item else 0


def reference_image(segmentation_node: Any) -> Any:
    """The volume node that a segmentation belongs to; None where it is free, or the image was deleted."""
    return segmentation_node.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())


def belongs_to(segmentation_node: Any, volume_node: Any) -> bool:
    """True for a segmentation of this image, in a sequence of the frame that is shown, and for a free one."""
    image, frame = reference_image(segmentation_node), segmentation_node.GetAttribute(FRAME_ATTRIBUTE)
    return image is None or (image is volume_node and (not frame or frame == frame_of(volume_node)))


def own_segmentation(volume_node: Any, preferred_id: str = "") -> Any:
    """The segmentation of an image: the one with the preferred node id, else the newest of the scene; None for none."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode", volume_node.GetScene())
    own = [node for node in nodes if reference_image(node) is volume_node and belongs_to(node, volume_node)]
    return next((node for node in own if node.GetID() == preferred_id), own[-1] if own else None)


def require_own(segmentation_node: Any, volume_node: Any) -> None:
    """Refuse to work on an image in another image's segmentation, or in that of another frame.

    Raises:
        ForeignSegmentationError: it belongs to another image or frame. The message says what to do.
    """
    if not belongs_to(segmentation_node, volume_node):
        raise ForeignSegmentationError(
            f"'{segmentation_node.GetName()}' belongs to {owner_text(segmentation_node, volume_node)}, not to "
            f"'{volume_node.GetName()}': choose a segmentation of this image or a new one, or allow it explicitly"
        )


def require_saved(segmentation_node: Any) -> None:
    """Raise an InputError for a segmentation of a sequence that loses its changes where the frame changes."""
    browser = browser_of(segmentation_node)
    if browser is not None and not browser.GetSaveChanges(browser.GetSequenceNode(segmentation_node)):
        name = segmentation_node.GetName()
        raise InputError(f"changes of '{name}' end with the frame: check 'Save changes' in the Sequences module first")


def owner_text(segmentation_node: Any, volume_node: Any) -> str:
    """Name the image or the frame of this image that a segmentation belongs to, for a sentence."""
    image, frame = reference_image(segmentation_node), segmentation_node.GetAttribute(FRAME_ATTRIBUTE)
    return f"frame {frame}" if image is volume_node else f"the image '{image.GetName()}'"


def hide_other_images(volume_node: Any, segmentation_node: Any = None) -> None:
    """Hide masks and prompts of other images than this one, and show again those of its own that were hidden so.

    Args:
        volume_node: the image that is worked on.
        segmentation_node: the segmentation that is worked on, shown whosever it is; None for none. Where it is a
            sequence, those of single frames are hidden, too: it shows the same segments.
    """
    in_time = segmentation_node is not None and browser_of(segmentation_node) is not None
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", volume_node.GetScene()):
        is_shown = node is segmentation_node or (not in_time and belongs_to(node, volume_node))
        for drawn_node in _drawn_nodes(node):
            _show_again(drawn_node) if is_shown else _hide(drawn_node)


def show_all_images(scene: Any) -> None:
    """Show again what :func:`hide_other_images` has hidden."""
    for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", scene):
        for drawn_node in _drawn_nodes(node):
            _show_again(drawn_node)


def _drawn_nodes(segmentation_node: Any) -> Iterator[Any]:
    """A segmentation and the markups of its prompts."""
    yield segmentation_node
    for _, node in prompt_nodes(segmentation_node):
        yield node


def _hide(node: Any) -> None:
    if node.GetDisplayNode() is not None and node.GetDisplayVisibility():
        node.SetDisplayVisibility(False)
        node.GetDisplayNode().SetAttribute(HIDDEN_ATTRIBUTE, "1")  # a sequence changes the node's own with each frame


def _show_again(node: Any) -> None:
    for holder in (node.GetDisplayNode(), node):  # earlier versions noted it on the node
        if holder is not None and holder.GetAttribute(HIDDEN_ATTRIBUTE):
            holder.RemoveAttribute(HIDDEN_ATTRIBUTE)
            node.SetDisplayVisibility(True)
