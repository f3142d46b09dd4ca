import random

from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.engine.budget import Budgeted


def kept_within(budget):
    return Budgeted(budget, len)


def test_the_longest_unused_goes_first():
    kept = kept_within(30)
    for name in "abc":
        kept.put(name, b"x" * 10)
    assert kept.get("a") is not None
    assert "b" in kept, "looking is not asking for"
    kept.put("d", b"x" * 10)
    assert list(kept) == ["c", "a", "d"]
    assert (len(kept), kept.nbytes) == (3, 30)
    assert kept.get("b") is None


def test_as_many_go_as_needed():
    kept = kept_within(30)
    for name in "abc":
        kept.put(name, b"x" * 10)
    kept.put("d", b"x" * 25)
    assert (list(kept), kept.nbytes) == (["d"], 25)


def test_the_newest_stays_even_beyond_the_budget():
    kept = kept_within(30)
    kept.put("a", b"x" * 10)
    kept.put("b", b"x" * 31)
    assert (list(kept), kept.nbytes) == (["b"], 31)
    kept.put("c", b"x" * 30)
    assert list(kept) == ["c"]


def test_a_second_put_replaces_the_first():
    kept = kept_within(30)
    kept.put("a", b"x" * 10)
    kept.put("a", b"x" * 20)
    assert (kept.get("a"), len(kept), kept.nbytes) == (b"x" * 20, 1, 20)


def test_what_is_dropped_is_gone():
    kept = kept_within(30)
    kept.put("a", b"x" * 10)
    kept.drop("a")
    kept.drop("a")
    assert (len(kept), kept.nbytes) == (0, 0)


@given(st.integers(0, 40), st.randoms(use_true_random=False))
def test_bytes_add_up_and_stay_within_the_budget(budget, chance: random.Random):
    kept, latest = kept_within(budget), {}
    for _ in range(60):
        name, value = chance.randrange(8), b"x" * chance.randrange(20)
        action = chance.random()
        if action < 0.3:
            assert kept.get(name) in (None, latest.get(name))
        elif action < 0.4:
            kept.drop(name)
            assert name not in kept
        else:
            kept.put(name, value)
            latest[name] = value
            assert kept.get(name) == value
        assert kept.nbytes == sum(len(latest[name]) for name in kept)
        assert kept.nbytes <= budget or len(kept) == 1
