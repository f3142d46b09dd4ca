import base64
import json
import tracemalloc
import zlib

import numpy as np
import pytest

from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.geometry import Box
from FoundationSegLib.imaging.masks import EMPTY_MASK, MaskTable, mask_key, pack_mask

MASK = pack_mask(np.random.default_rng(0).random((5, 6, 7)) > 0.5, (1, 2, 3))


def test_a_mask_is_found_by_its_key():
    table = MaskTable()
    key = table.put(MASK)
    assert table.get(key) == MASK and key == mask_key(MASK) and len(key) == 32
    assert table.put(EMPTY_MASK) == "" and table.get("") == EMPTY_MASK


def test_masks_travel_as_json():
    table, other = MaskTable(), MaskTable()
    key = table.put(MASK)
    other.take_document(json.loads(json.dumps(table.to_document([key, ""]))))
    assert other.get(key) == MASK and other.nbytes == table.nbytes > 0


def test_the_same_voxels_elsewhere_are_another_mask():
    assert mask_key(pack_mask(np.ones((1, 1, 1)), (0, 0, 1))) != mask_key(pack_mask(np.ones((1, 1, 1)), (0, 1, 0)))


def test_a_missing_mask_is_named():
    with pytest.raises(InputError, match="abc is missing"):
        MaskTable().get("abc")


@pytest.mark.parametrize(
    "damage",
    [
        {"bits": "%%"},
        {"bits": ""},
        {"start_kji": [0, 0]},
        {"stop_kji": [9, 9, 9]},
        {"stop_kji": [2**60, 9, 9]},
        {"stop_kji": [9.5, 9, 9]},
        {"bits": 7},
        {"bits": base64.b64encode(zlib.compress(bytes(10**7))).decode()},
    ],
)
def test_damage_is_found(damage):
    table = MaskTable()
    key = table.put(MASK)
    document = table.to_document([key])
    document[key] |= damage
    with pytest.raises(InputError, match="damaged"):
        MaskTable().take_document(document)
    with pytest.raises(InputError, match="voxels are others"):
        MaskTable().take_document({"0" * 32: table.to_document([key])[key]})


def test_no_more_memory_is_taken_than_the_image_needs():
    """Ten kilobytes of text that hold ten megabytes, with a box to match."""
    bits = base64.b64encode(zlib.compress(bytes(10**7))).decode()
    document = {"0" * 32: {"start_kji": (0, 0, 0), "stop_kji": (80_000, 100, 10), "bits": bits}}
    tracemalloc.start()
    with pytest.raises(InputError, match="reaches out of the image"):
        MaskTable(Box((0, 0, 0), (5, 6, 7))).take_document(document)
    small = document["0" * 32] | {"stop_kji": (5, 6, 7)}
    with pytest.raises(InputError, match="does not fit its box"):
        MaskTable(Box((0, 0, 0), (5, 6, 7))).take_document({"0" * 32: small})
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
