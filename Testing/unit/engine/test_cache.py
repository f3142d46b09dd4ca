import dataclasses
import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.core.requests import CheckpointRecord
from FoundationSegLib.engine.cache import EmbeddingCache, EmbeddingKey

KEY = EmbeddingKey(
    checkpoint=CheckpointRecord("fake", "fake-wheel", "1.0", "ab"),
    device="cpu",
    precision="float32",
    volume_key="12",
    axis="k",
    index=3,
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


def test_the_longest_unused_goes_first():
    cache = EmbeddingCache(30)
    for index in range(3):
        cache.put(key(index), Block(10))
    assert cache.get(key(0)) is not None
    cache.put(key(3), Block(10))
    assert [cache.get(key(index)) is not None for index in range(4)] == [True, False, True, True]
    assert (len(cache), cache.nbytes) == (3, 30)


def test_as_many_go_as_needed():
    cache = EmbeddingCache(30)
    for index in range(3):
        cache.put(key(index), Block(10))
    cache.put(key(3), Block(25))
    assert (len(cache), cache.nbytes) == (1, 25)


def test_what_exceeds_the_budget_is_not_kept_and_costs_nobody_a_place():
    cache = EmbeddingCache(30)
    cache.put(key(0), Block(10))
    cache.put(key(1), Block(31))
    assert cache.get(key(0)) == Block(10)
    assert cache.get(key(1)) is None
    cache.put(key(2), Block(30))
    assert cache.nbytes == 30


def test_a_second_put_replaces_the_first():
    cache = EmbeddingCache(30)
    cache.put(KEY, Block(10))
    cache.put(KEY, Block(20))
    assert (cache.get(KEY), len(cache), cache.nbytes) == (Block(20), 1, 20)
    cache.put(KEY, Block(31))
    assert cache.get(KEY) is None, "the old one is not the new one"
    assert (len(cache), cache.nbytes) == (0, 0)


@given(st.integers(0, 40), st.randoms(use_true_random=False))
def test_bytes_add_up_and_stay_within_the_budget(budget, chance: random.Random):
    cache, latest = EmbeddingCache(budget), {}
    for _ in range(60):
        index, block = chance.randrange(8), Block(chance.randrange(20))
        if chance.random() < 0.3:
            assert cache.get(key(index)) in (None, latest.get(index))
            continue
        cache.put(key(index), block)
        latest[index] = block
        assert (cache.get(key(index)) is not None) == (block.nbytes <= budget)
        kept = [block for block in map(cache.get, map(key, range(8))) if block is not None]
        assert (len(kept), sum(block.nbytes for block in kept)) == (len(cache), cache.nbytes)
        assert cache.nbytes <= budget
