from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.installation.inspection import Device, DeviceReport, PythonReport
from FoundationSegLib.installation.packages import requirement_name, requirements_of
from FoundationSegLib.installation.readiness import MissingRequirement, Readiness, Stored, assess, next_step

CATALOGUE = read_catalogue()
TINY = CATALOGUE["sam2.1-hiera-tiny"]
READY = Stored("ready", TINY.source.bytes, 1 << 40, False, False, False)
ABSENT = replace(READY, status="absent", bytes_here=0)
VERSIONS = {
    "torch": "2.8.0+cu128",
    "transformers": "5.1.0",
    "numpy": "2.4.6",
    "scipy": "1.17",
    "huggingface_hub": "1.5",
}
PYTHON = PythonReport("3.12.10", "Linux", VERSIONS)


def needs(*arguments):
    return [requirement.need for requirement in assess(*arguments).missing]


def without(*names):
    return replace(PYTHON, packages={name: v for name, v in VERSIONS.items() if name not in names})


def test_a_model_with_everything_is_ready():
    found = assess(TINY, PYTHON, READY)
    assert found.missing == ()
    assert found.is_ready
    assert found.is_possible


def test_what_is_missing_comes_in_the_order_in_which_to_deal_with_it():
    gated = replace(TINY, gated=True)
    stored = replace(ABSENT, must_accept=True, free_bytes=10)
    devices = DeviceReport((Device("cpu", "", 1_000_000),))
    python = replace(without("torch"), version="3.9.2", devices=devices)
    expected = ["python", "packages", "license", "gate", "room", "weights", "memory"]
    assert needs(gated, python, stored) == expected
    assert needs(replace(gated, family="unheard-of"), python, stored) == ["adapter", *expected]


def test_a_package_counts_as_missing_in_a_version_that_is_not_allowed():
    old = replace(PYTHON, packages={**VERSIONS, "torch": "2.2.2"})
    assert assess(TINY, old, READY).missing_packages == ("torch>=2.4,!=2.9.*",)


def test_the_hubs_client_is_wanted_for_a_download_alone():
    python = without("huggingface_hub")
    assert assess(TINY, python, READY).is_ready
    assert needs(TINY, python, ABSENT) == ["packages", "weights"]


def test_nothing_is_said_of_a_python_that_was_not_asked():
    assert needs(TINY, None, ABSENT) == ["weights"]


@pytest.mark.parametrize("status", ["partial", "damaged"])
def test_what_is_there_already_is_told(status):
    requirement = assess(TINY, PYTHON, replace(ABSENT, status=status, bytes_here=1000)).requirement("weights")
    assert requirement.items == (status,)
    assert requirement.bytes == TINY.source.bytes - (1000 if status == "partial" else 0)


def test_terms_and_a_login_are_asked_for_once():
    gated = replace(TINY, gated=True)
    assert needs(gated, PYTHON, replace(ABSENT, must_accept=True, is_accepted=True, has_login=True)) == ["weights"]
    assert needs(gated, PYTHON, replace(READY, must_accept=True)) == [], "what is there can be used"


@pytest.mark.parametrize(("choice", "expected"), [("auto", []), ("cuda", []), ("cpu", ["cpu"]), ("mps", [])])
def test_memory_is_a_warning_about_the_device_that_will_be_used(choice, expected):
    devices = DeviceReport((Device("cuda", "", 24 << 30), Device("cpu", "", 1 << 30)))
    found = assess(TINY, replace(PYTHON, devices=devices), READY, choice)
    assert [requirement.items[0] for requirement in found.missing] == expected
    assert found.is_ready


def test_a_device_that_does_not_say_its_memory_is_not_held_against():
    devices = DeviceReport((Device("cpu", "", 0),))
    assert assess(TINY, replace(PYTHON, devices=devices), READY).missing == ()


@given(
    st.sampled_from(sorted(CATALOGUE)),
    st.sets(st.sampled_from(sorted(VERSIONS))),
    st.sampled_from(["absent", "partial", "ready", "damaged"]),
    st.integers(0, 1 << 33),
    st.integers(0, 1 << 33),
    st.booleans(),
    st.booleans(),
)
def test_ready_means_that_nothing_but_memory_is_missing(model_id, missing, status, here, free, accepted, login):
    card = CATALOGUE[model_id]
    python = without(*missing)
    found = assess(card, python, Stored(status, here, free, card.license.must_accept, accepted, login))
    assert found.is_ready == (not [requirement for requirement in found.missing if requirement.need != "memory"])
    assert (found.requirement("weights") is None) == (status == "ready")
    assert all(requirement.bytes >= 0 for requirement in found.missing)
    told = {requirement_name(text) for text in found.missing_packages}
    wanted = {requirement_name(text) for text in requirements_of(card, to_download=status != "ready")}
    assert told <= wanted
    assert missing & wanted <= told


NEEDS = ("adapter", "python", "packages", "license", "gate", "room", "weights", "memory")
STEP_REMOVES = {"torch": "packages", "packages": "packages", "license": "license", "weights": "weights"}


def lacking(*needs, packages=("timm>=1.0",)):
    return Readiness(
        "x", tuple(MissingRequirement(need, items=packages if need == "packages" else ()) for need in needs)
    )


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
        missing = tuple(requirement for requirement in found.missing if requirement.need != gone)
        if step == "torch":
            missing = (MissingRequirement("packages", items=("timm",)), *missing)
        found = replace(found, missing=missing)
    assert step in ("done", "blocked", "gate")
    if step == "done" and with_weights:
        assert found.is_ready
