import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from FoundationSegLib.engine.device import (
    choose_device,
    describe_devices,
    framework_errors,
    free_bytes,
    free_host_bytes,
    limit_threads,
    release_memory,
    taken_bytes,
)
from FoundationSegLib.errors import DeviceLostError, InferenceError, InputError, MemoryShortageError
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
    monkeypatch.setattr(shutil, "which", lambda name: sys.executable)
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
    monkeypatch.setattr(shutil, "which", lambda name: "/no/such/nvidia-smi")
    assert describe_devices().driver == ""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
@pytest.mark.parametrize(
    ("affinity", "quota", "threads", "limited"),
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
def test_no_more_threads_than_processors(monkeypatch, tmp_path, affinity, quota, threads, limited):
    numbers = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    (tmp_path / "cpu.max").write_text(quota)
    limit_threads(tmp_path)
    assert numbers == limited


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (MemoryError(), MemoryShortageError),
        (MemoryError("Unable to allocate 8.00 GiB for an array"), MemoryShortageError),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), MemoryShortageError),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), MemoryShortageError),
        (RuntimeError("[at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), MemoryShortageError),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), MemoryShortageError),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), DeviceLostError),
        (RuntimeError("CUDA error: device-side assert triggered"), DeviceLostError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), InferenceError),
    ],
)
def test_errors_of_the_framework_are_told_apart(fault, kind):
    with pytest.raises(InferenceError, match="the model could not answer: ") as caught, framework_errors():
        raise fault
    assert type(caught.value) is kind


def test_a_real_shortage_is_seen():
    with pytest.raises(MemoryShortageError, match="allocate"), framework_errors():
        torch.empty(2**60, dtype=torch.uint8)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells by files")
def test_free_memory_is_that_of_the_machine_or_of_its_container(tmp_path):
    assert 10**7 < free_host_bytes() < 10**14
    assert free_bytes("cpu") == pytest.approx(free_host_bytes(), rel=0.5)
    assert 10**6 < taken_bytes() < 10**12
    meminfo = tmp_path / "meminfo"
    assert free_host_bytes(tmp_path, meminfo) is None, "nobody says"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable: 1000 kB\n")
    (tmp_path / "memory.current").write_text("5\n")
    (tmp_path / "memory.stat").write_text("anon 3\ninactive_file 2\n")
    for limit, free in (("max", 1024000), ("105", 102), ("2", 0)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        assert free_host_bytes(tmp_path, meminfo) == free


def test_a_device_that_is_not_there_says_nothing():
    if not torch.cuda.is_available():
        assert free_bytes("cuda") is None
    release_memory("cpu")
