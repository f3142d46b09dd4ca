import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from FoundationSegLib.engine import device as device_file
from FoundationSegLib.engine.device import choose_device, describe_devices
from FoundationSegLib.errors import InputError
from FoundationSegLib.installation.inspection import Device


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


def test_the_cpu_is_always_told():
    found = describe_devices()
    assert found.devices[-1].kind == "cpu"
    assert found.problem == ""


@pytest.mark.parametrize("memory", [(6 << 30, 8 << 30), None])
def test_a_graphics_card_is_told_with_its_memory_and_its_driver(monkeypatch, memory):
    def mem_get_info(number):
        if memory is None:
            raise RuntimeError("CUDA error: out of memory")
        return memory

    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        get_device_name=lambda number: "A Card",
        get_device_properties=lambda number: SimpleNamespace(total_memory=8 << 30),
        mem_get_info=mem_get_info,
    )
    monkeypatch.setattr(torch, "cuda", cuda)
    monkeypatch.setattr(device_file.shutil, "which", lambda name: sys.executable)
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda command, **options: run((command[0], "-c", "print('570.86.15')"), **options)
    )
    found = describe_devices()
    assert found.devices[0] == Device("cuda", "A Card", 8 << 30, memory[0] if memory else 0)
    assert found.driver == "570.86.15"


def test_apples_graphics_are_told_with_what_they_may_take(monkeypatch):
    monkeypatch.setattr(torch.backends, "mps", SimpleNamespace(is_available=lambda: True))
    monkeypatch.setattr(torch, "mps", SimpleNamespace(recommended_max_memory=lambda: 12 << 30))
    assert describe_devices().devices[0] == Device("mps", "Apple GPU", 12 << 30)


@pytest.mark.parametrize("error", [ImportError("no torch"), OSError("libcudnn.so.9: cannot open")])
def test_a_pytorch_that_cannot_be_imported_is_no_end(monkeypatch, error):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "torch":
                raise error

    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    found = describe_devices()
    assert str(error) in found.problem
    assert [device.kind for device in found.devices] == ["cpu"]


def test_a_driver_that_gives_no_answer(monkeypatch):
    monkeypatch.setattr(device_file.shutil, "which", lambda name: "/no/such/nvidia-smi")
    assert describe_devices().driver == ""


@pytest.fixture
def processors(monkeypatch, tmp_path):
    """How many the process may use, and what torch computes with; set by calling it."""
    told = []

    def have(affinity, quota, threads):
        monkeypatch.setattr(device_file.os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False)
        monkeypatch.setattr(device_file, "_CPU_MAX", tmp_path / "cpu.max")
        (tmp_path / "cpu.max").write_text(quota)
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.setattr(torch, "set_num_threads", told.append)
        device_file.limit_threads()
        return told[-1:]

    return have


@pytest.mark.parametrize(
    ("affinity", "quota", "threads", "told"),
    [
        (16, "max 100000", 16, [15]),
        (16, "max 100000", 8, []),
        (16, "300000 100000", 16, [3]),
        (16, "50000 100000", 16, [1]),
        (4, "max 100000", 8, [4]),
        (2, "nonsense", 2, []),
        (16, "max 100000", 1, []),
    ],
)
def test_no_more_threads_than_processors(processors, affinity, quota, threads, told):
    assert processors(affinity, quota, threads) == told
