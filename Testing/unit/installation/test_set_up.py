from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.installation.readiness import Lack, Readiness, next_step

NEEDS = ("adapter", "python", "packages", "license", "gate", "room", "weights", "memory")
STEP_REMOVES = {"torch": "packages", "packages": "packages", "license": "license", "weights": "weights"}


def lacking(*needs, packages=("timm>=1.0",)):
    return Readiness("x", tuple(Lack(need, items=packages if need == "packages" else ()) for need in needs))


@pytest.mark.parametrize(
    ("needs", "packages", "own", "step"),
    [
        ((), (), True, "done"),
        (("memory",), (), True, "done"),
        (("packages", "weights"), ("torch>=2.4", "timm"), True, "torch"),
        (("packages", "weights"), ("torch>=2.4", "timm"), False, "packages"),
        (("packages", "weights"), ("timm",), True, "packages"),
        (("license", "gate", "weights"), (), True, "license"),
        (("gate", "weights"), (), True, "gate"),
        (("weights",), (), True, "weights"),
        (("room", "weights"), (), True, "blocked"),
        (("license", "room", "weights"), (), True, "blocked"),
        (("python", "packages"), ("timm",), False, "blocked"),
        (("adapter", "weights"), (), True, "blocked"),
    ],
)
def test_the_next_step(needs, packages, own, step):
    assert next_step(lacking(*needs, packages=packages), is_own_python=own) == step


def test_weights_can_be_left_for_later():
    assert next_step(lacking("license", "room", "weights"), is_own_python=True, with_weights=False) == "done"
    assert next_step(lacking("packages", "weights"), is_own_python=True, with_weights=False) == "packages"


@given(st.sets(st.sampled_from(NEEDS)), st.booleans(), st.booleans(), st.booleans())
def test_whatever_is_missing_the_steps_come_to_an_end(needs, has_torch, own, with_weights):
    packages = ("timm",) if has_torch else ("torch", "timm")
    found = lacking(*(need for need in NEEDS if need in needs), packages=packages)
    for _ in range(6):
        step = next_step(found, is_own_python=own, with_weights=with_weights)
        if step in ("done", "blocked", "gate"):
            break
        gone = STEP_REMOVES[step]
        lacks = tuple(lack for lack in found.lacks if lack.need != gone)
        if step == "torch":
            lacks = (Lack("packages", items=("timm",)), *lacks)
        found = replace(found, lacks=lacks)
    assert step in ("done", "blocked", "gate")
    if step == "done" and with_weights:
        assert found.is_ready
