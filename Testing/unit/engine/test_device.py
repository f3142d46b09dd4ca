from types import SimpleNamespace

import pytest
import torch

from FoundationSegLib.core.errors import InputError
from FoundationSegLib.engine.device import choose_device


@pytest.fixture
def machine(monkeypatch):
    def has(*devices):
        monkeypatch.setattr(torch, "cuda", SimpleNamespace(is_available=lambda: "cuda" in devices))
        mps = SimpleNamespace(is_available=lambda: "mps" in devices)
        monkeypatch.setattr(torch, "backends", SimpleNamespace(mps=mps))

    return has


@pytest.mark.parametrize(
    ("devices", "chosen"), [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda"), (("cuda", "mps"), "cuda")]
)
def test_auto_takes_the_best_that_is_there(machine, devices, chosen):
    machine(*devices)
    assert choose_device("auto") == chosen
    for device in (*devices, "cpu"):
        assert choose_device(device) == device


@pytest.mark.parametrize(
    ("devices", "wanted", "usable"),
    [((), "cuda", "cpu"), (("cuda",), "mps", "cuda, cpu"), (("mps",), "cuda", "mps, cpu")],
)
def test_a_device_that_is_not_there_is_refused_and_the_others_named(machine, devices, wanted, usable):
    machine(*devices)
    with pytest.raises(InputError, match=rf"the device {wanted} is not available here; available: {usable}$"):
        choose_device(wanted)
