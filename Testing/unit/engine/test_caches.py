import dataclasses
import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.engine.slice_inference import EmbeddingKey, LruCache, SliceCache, Weights
from FoundationSegLib.engine.slices import AS_STORED, SliceOrientation
from FoundationSegLib.requests.segmentation import CheckpointRecord

CHECKPOINT = CheckpointRecord("fake", "fake-wheel", "1.0", "ab")
WEIGHTS = Weights(CHECKPOINT, "cpu", "float32")
KEY = EmbeddingKey(WEIGHTS, volume_key="12", axis="k", index=3, orientation=AS_STORED, low=-160.0, high=240.0)


@dataclass(frozen=True)
class Block:
    nbytes: int


def cache_of(*names, budget=30):
    """A cache with a value of ten bytes for each name."""
    cache = LruCache(budget, len)
    for name in names:
        cache.put(name, b"x" * 10)
    return cache


def test_the_least_recently_used_goes_first():
    cache = cache_of(*"abc")
    assert cache.get("a") is not None
    assert "b" in cache, "looking is not using"
    cache.put("d", b"x" * 10)
    assert (list(cache), len(cache), cache.nbytes) == (["c", "a", "d"], 3, 30)
    assert cache.get("b") is None
    cache.put("e", b"x" * 25)
    assert (list(cache), cache.nbytes) == (["e"], 25), "as many go as needed"


def test_what_is_replaced_dropped_or_cleared_is_gone():
    cache = cache_of(*"ab")
    cache.put("a", b"x" * 20)
    assert (cache.get("a"), cache.nbytes) == (b"x" * 20, 30)
    cache.drop("a")
    cache.drop("a")
    assert (list(cache), cache.nbytes) == (["b"], 10)
    cache.put("c", b"x")
    cache.drop_where(lambda name: name == "b")
    assert (list(cache), cache.nbytes) == (["c"], 1)
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


@given(st.integers(0, 40), st.randoms(use_true_random=False))
def test_bytes_add_up_and_stay_within_the_budget(budget, chance: random.Random):
    cache, latest = cache_of(budget=budget), {}
    for _ in range(60):
        name, value = chance.randrange(8), b"x" * chance.randrange(20)
        action = chance.random()
        if action < 0.3:
            assert cache.get(name) in (None, latest.get(name))
        elif action < 0.4:
            cache.drop(name)
            assert name not in cache
        else:
            cache.put(name, value)
            latest[name] = value
            assert cache.get(name) == value
        assert cache.nbytes == sum(len(latest[name]) for name in cache)
        assert cache.nbytes <= budget or len(cache) == 1


@pytest.mark.parametrize(
    "changed",
    [
        *(dataclasses.replace(WEIGHTS, checkpoint=dataclasses.replace(CHECKPOINT, **{name: "other"}))
          for name in ("model_id", "source", "revision", "sha256")),
        dataclasses.replace(WEIGHTS, device="cuda"),
        dataclasses.replace(WEIGHTS, precision="float16"),
        {"volume_key": "34"},
        {"axis": "j"},
        {"index": 4},
        {"orientation": SliceOrientation(row_step=-1)},
        {"low": -161.0},
        {"high": 241.0},
    ],
)  # fmt: skip
def test_every_field_of_the_key_counts(changed):
    """The first file of two checkpoints may be the same."""
    changes = {"weights": changed} if isinstance(changed, Weights) else changed
    cache = SliceCache.within(1000)
    cache.embeddings.put(KEY, Block(10))
    assert cache.embeddings.get(dataclasses.replace(KEY)) == Block(10)
    assert cache.embeddings.get(dataclasses.replace(KEY, **changes)) is None
