import dataclasses
from dataclasses import dataclass

import pytest

from FoundationSegLib.engine.cache import EmbeddingCache, EmbeddingKey
from FoundationSegLib.engine.orientation import AS_STORED, Orientation
from FoundationSegLib.requests.segmentation import CheckpointRecord

KEY = EmbeddingKey(
    checkpoint=CheckpointRecord("fake", "fake-wheel", "1.0", "ab"),
    device="cpu",
    precision="float32",
    volume_key="12",
    axis="k",
    index=3,
    orientation=AS_STORED,
    low=-160.0,
    high=240.0,
)
CHANGES = {
    "checkpoint": CheckpointRecord("fake", "fake-wheel", "1.0", "cd"),
    "device": "cuda",
    "precision": "float16",
    "volume_key": "34",
    "axis": "j",
    "index": 4,
    "orientation": Orientation(rows_reversed=True),
    "low": -161.0,
    "high": 241.0,
}


@dataclass(frozen=True)
class Block:
    nbytes: int


def key(index):
    return dataclasses.replace(KEY, index=index)


def test_every_field_of_the_key_counts():
    cache = EmbeddingCache(1000)
    cache.put(KEY, Block(10))
    assert cache.get(dataclasses.replace(KEY)) == Block(10)
    assert set(CHANGES) == {field.name for field in dataclasses.fields(EmbeddingKey)}
    for name, value in CHANGES.items():
        assert cache.get(dataclasses.replace(KEY, **{name: value})) is None, name


@pytest.mark.parametrize("name", ["model_id", "source", "revision", "sha256"])
def test_every_field_of_the_checkpoint_counts(name):
    """The first file of two checkpoints may be the same."""
    other = dataclasses.replace(KEY.checkpoint, **{name: "other"})
    cache = EmbeddingCache(1000)
    cache.put(KEY, Block(10))
    assert cache.get(dataclasses.replace(KEY, checkpoint=other)) is None


def test_what_was_seen_of_an_image_goes_with_it():
    cache, other = EmbeddingCache(1000), dataclasses.replace(KEY, volume_key="34")
    for index in range(3):
        cache.put(key(index), Block(10))
    cache.put(other, Block(5))
    cache.drop_volume("12")
    assert (list(cache), cache.nbytes) == ([other], 5)
