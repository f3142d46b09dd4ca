import numpy as np
import pytest
import slicer.util

from FoundationSegLib.errors import GeometryError, InputError
from FoundationSegLib.imaging.geometry import EMPTY_BOX, Box
from FoundationSegLib.imaging.masks import EMPTY_MASK, SegmentChange, change_between, pack_mask
from FoundationSegLib.mrml.labelmaps import BINARY_LABELMAP, SegmentReader
from FoundationSegLib.mrml.volumes import geometry_from_node
from Testing.mrml.random_geometries import masks


@pytest.fixture
def reader(segmentation_node, volume_node):
    segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    return SegmentReader(segmentation_node, geometry_from_node(volume_node))


def slicers_segment(segmentation_node, volume_node, mask, name="Slicer's"):
    segment_id = segmentation_node.GetSegmentation().AddEmptySegment("", name)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), segmentation_node, segment_id, volume_node)
    return segment_id


@pytest.fixture
def stripes(reader, segmentation_node, volume_node):
    """Three segments along i, two voxels wide each, in one layer; by id, their masks."""
    found = {}
    for n in range(3):
        mask = np.zeros(reader.geometry.shape_kji, bool)
        mask[1:4, 2:5, 2 * n : 2 * n + 2] = True
        found[slicers_segment(segmentation_node, volume_node, mask)] = mask
    segmentation_node.GetSegmentation().CollapseBinaryLabelmaps(False)
    assert segmentation_node.GetSegmentation().GetNumberOfLayers(BINARY_LABELMAP) == 1
    return found


def test_segments_of_one_layer_are_told_apart(reader, stripes):
    assert reader.segment_ids == tuple(stripes)
    for segment_id, mask in stripes.items():
        assert np.array_equal(reader.read_mask(segment_id), mask)


def test_a_part_of_a_segment(reader, stripes):
    box = Box((0, 3, 1), (3, 7, 4))
    for segment_id, mask in stripes.items():
        assert np.array_equal(reader.read_mask(segment_id, box), mask[box.slices])
        assert reader.read_mask(segment_id, EMPTY_BOX).shape == (0, 0, 0)


def test_what_is_read_is_a_copy(reader, stripes):
    for segment_id in stripes:
        reader.read_mask(segment_id)[...] = False
        assert reader.read_mask(segment_id).any()


def test_an_empty_segment(reader, segmentation_node):
    segment_id = segmentation_node.GetSegmentation().AddEmptySegment()
    assert not reader.read_mask(segment_id).any()
    assert reader.difference(segment_id, EMPTY_MASK, reader.geometry.box) == SegmentChange()


@pytest.mark.parametrize("seed", range(4))
def test_differences_look_at_the_box_alone(reader, segmentation_node, volume_node, seed):
    before, after = (masks(reader.geometry, n, density=0.05 * (seed + 1)) for n in (seed, seed + 10))
    segment_id = slicers_segment(segmentation_node, volume_node, before)
    box = Box((1, 1, 2), (4, 6, 7))
    wanted = pack_mask(after[box.slices], box.start_kji)
    expected = change_between(before[box.slices], after[box.slices], box.start_kji)
    assert reader.difference(segment_id, wanted, box) == expected


def test_subtracting_and_taking(reader, stripes):
    mask = np.zeros(reader.geometry.shape_kji, bool)
    mask[0:2, 3:7, 1:7] = True
    first, second, third = stripes
    rest = reader.without(pack_mask(mask), [first, third])
    assert np.array_equal(rest.expand(mask.shape), mask & ~stripes[first] & ~stripes[third])
    taken = reader.taken(pack_mask(mask), [first, second])
    assert set(taken) == {first, second}
    for segment_id, change in taken.items():
        assert change.gained == EMPTY_MASK
        assert np.array_equal(change.lost.expand(mask.shape), mask & stripes[segment_id])
    assert reader.taken(EMPTY_MASK, stripes) == {}
    assert reader.without(pack_mask(mask), []) == pack_mask(mask)


def test_an_unknown_segment(reader):
    for ask in (reader.segment, reader.labelmap, reader.read_mask):
        with pytest.raises(InputError, match="no segment with the id 'gone'"):
            ask("gone")


@pytest.mark.parametrize("box", [Box((0, 0, 0), (7, 1, 1)), Box((0, -1, 0), (1, 1, 1))])
def test_a_box_that_reaches_out_of_the_volume(reader, stripes, box):
    with pytest.raises(GeometryError, match="reaches out"):
        reader.read_mask(next(iter(stripes)), box)
