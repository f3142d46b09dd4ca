import sys

import pytest

from FoundationSegLib.engine import memory
from FoundationSegLib.errors import DeviceLostError, InferenceError, MemoryShortageError


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (MemoryError(), MemoryShortageError),
        (MemoryError("Unable to allocate 8.00 GiB for an array"), MemoryShortageError),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), MemoryShortageError),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), MemoryShortageError),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
            MemoryShortageError,
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), MemoryShortageError),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), DeviceLostError),
        (RuntimeError("CUDA error: device-side assert triggered"), DeviceLostError),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), InferenceError),
    ],
)
def test_what_the_framework_throws_is_told_apart(fault, kind):
    def fail():
        raise fault

    with pytest.raises(InferenceError, match="the model could not answer: ") as caught:
        memory.guarded(fail)
    assert type(caught.value) is kind


def test_a_real_shortage_is_seen():
    torch = pytest.importorskip("torch")
    with pytest.raises(MemoryShortageError, match="allocate"):
        memory.guarded(lambda: torch.empty(2**60, dtype=torch.uint8))


def test_what_goes_well_comes_back():
    assert memory.guarded(lambda: 3) == 3


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells by files")
def test_free_memory_of_the_machine():
    assert 10**7 < memory.free_host_bytes() < 10**14
    assert memory.free_bytes("cpu") == pytest.approx(memory.free_host_bytes(), rel=0.5)
    assert 10**6 < memory.taken_bytes() < 10**12


def test_a_container_may_have_less(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_from_meminfo", lambda: 10**9)
    assert memory.free_host_bytes() == 10**9
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    (tmp_path / "memory.stat").write_text("anon 3\ninactive_file 2\n")
    assert memory.free_host_bytes() == 10**9
    (tmp_path / "memory.max").write_text("105\n")
    assert memory.free_host_bytes() == 102
    (tmp_path / "memory.current").write_text("200\n")
    assert memory.free_host_bytes() == 0


def test_nobody_may_say(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_from_meminfo", lambda: None)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.free_host_bytes() is None


def test_a_device_that_is_not_there_says_nothing():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        assert memory.free_bytes("cuda") is None
    memory.give_back("cpu")
