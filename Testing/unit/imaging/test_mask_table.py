import base64
import json
import tracemalloc
import zlib

import numpy as np
import pytest

from FoundationSegLib.errors import InputError
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
        *({"bits": bits} for bits in ("%%", "", 7)),
        {"start_kji": [0, 0]},
        {"stop_kji": [9, 9, 9]},
        {"stop_kji": [10**9] * 3},
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


def test_no_more_is_unpacked_than_the_box_has_bits_for():
    bomb = base64.b64encode(zlib.compress(bytes(200 * 2**20))).decode()
    tracemalloc.start()
    with pytest.raises(InputError, match="damaged"):
        MaskTable().take_document({"ab": {"start_kji": [0, 0, 0], "stop_kji": [4, 4, 4], "bits": bomb}})
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
