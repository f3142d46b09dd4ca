"""The device, what it fails of, and its precision; what is not proven here is CUDA itself."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.engine.device import (
    choose_device,
    describe_devices,
    free_bytes,
    free_host_bytes,
    limit_threads,
    taken_bytes,
)
from FoundationSegLib.engine.memory_planning import framework_errors
from FoundationSegLib.engine.propagation import has_memory
from FoundationSegLib.engine.slice_inference import (
    LeanModel,
    agreement_of,
    best_precision,
    choose_precision,
    example_slice,
)
from FoundationSegLib.errors import DeviceLostError, InferenceError, InputError, MemoryShortageError
from FoundationSegLib.installation.inspection import Device
from FoundationSegLib.models.protocols import SliceAnswer, SlicePrompt, unstoppable
from FoundationSegLib.models.segmentation import sam, sam2
from Testing.models import small_sam, small_sam2


@pytest.fixture
def machine(monkeypatch):
    """A machine with some devices, and what torch says of their parts."""

    def has(*devices, **parts):
        said = {
            "cuda": SimpleNamespace(is_available=lambda: "cuda" in devices, **parts),
            "mps": SimpleNamespace(recommended_max_memory=lambda: 12 << 30),
            "backends": SimpleNamespace(mps=SimpleNamespace(is_available=lambda: "mps" in devices)),
        }
        for name, value in said.items():
            monkeypatch.setattr(torch, name, value)

    return has


@pytest.fixture
def driver(monkeypatch):
    """The program that NVIDIA's driver brings."""
    return lambda program: monkeypatch.setattr(shutil, "which", lambda name: program)


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


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
@pytest.mark.parametrize("memory", [(6 << 30, 8 << 30), None])
def test_a_graphics_card_is_told_with_its_memory_and_its_driver(machine, driver, tmp_path, memory):
    def mem_get_info(number):
        if memory is None:
            raise RuntimeError("CUDA error: out of memory")
        return memory

    machine(
        "cuda",
        device_count=lambda: 1,
        get_device_name=lambda number: "A Card",
        get_device_properties=lambda number: SimpleNamespace(total_memory=8 << 30),
        mem_get_info=mem_get_info,
    )
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 570.86.15\n")
    program.chmod(0o755)
    driver(str(program))
    found = describe_devices()
    assert found.devices[0] == Device("cuda", "A Card", 8 << 30, memory[0] if memory else 0)
    assert found.driver == "570.86.15"


def test_apples_graphics_are_told_with_what_they_may_take(machine):
    machine("mps")
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


def test_a_driver_that_gives_no_answer(driver):
    driver("/no/such/nvidia-smi")
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


@dataclass(frozen=True)
class Features:
    features: torch.Tensor
    maps: tuple[torch.Tensor, ...] = ()
    shape: tuple[int, int] = (256, 256)


@dataclass
class Rounding:
    """A model that finds what a matrix product lifts above a level: as sensitive to rounding as it is told to be."""

    scale: float
    device: str = "cpu"
    precision: str = "float32"
    seen: list[torch.dtype] = field(default_factory=list)

    def encode(self, image, check=unstoppable):
        pixels = torch.from_numpy(image).float() / 255
        product = pixels @ torch.eye(256)
        self.seen.append(product.dtype)
        return Features(product, (product,))

    def decode(self, embedding, prompt, previous=None):
        assert embedding.features.dtype == embedding.maps[0].dtype == torch.float32
        lifted = torch.sin(embedding.features * self.scale) if self.scale > 1 else embedding.features
        return SliceAnswer((lifted > 0.6).numpy(), 0.5)


@pytest.mark.parametrize(
    ("capability", "wanted"), [((9, 0), "bfloat16"), ((8, 0), "bfloat16"), ((7, 5), "float16"), ((6, 1), "float32")]
)
def test_what_a_device_is_made_for(machine, capability, wanted):
    machine("cuda", get_device_capability=lambda: capability)
    assert best_precision("cuda") == wanted
    assert best_precision("cpu") == best_precision("mps") == "float32"


def test_where_masks_agree_the_encoder_is_lean():
    model = Rounding(scale=1)
    lean, notes = choose_precision(model, "bfloat16")
    assert (lean.precision, lean.device, notes) == ("bfloat16", "cpu", ())
    assert model.seen == [torch.float32, torch.bfloat16]
    assert choose_precision(model, "float32") == (model, ())


def test_where_they_do_not_it_stays_as_it_is():
    chosen, (note,) = choose_precision(model := Rounding(scale=3000), "bfloat16")
    assert chosen is model
    assert note.startswith("the model computes in float32: in bfloat16 its masks would differ (Dice 0.")


@pytest.mark.parametrize(
    "answer", [SliceAnswer(np.zeros((256, 256), bool), 0.5), SliceAnswer(np.ones((2, 2), bool), np.nan)]
)
def test_nothing_found_is_no_agreement(answer):
    class Silent(Rounding):
        def decode(self, embedding, prompt, previous=None):
            return answer

    assert agreement_of(Silent(1), Silent(1)) == 0


@pytest.mark.parametrize("family", ["sam", "sam2"])
@pytest.mark.parametrize("numbers", ["bfloat16", "float16"])
def test_every_embedding_comes_back_in_32_bits(tmp_path, family, numbers):
    """Of the true networks with random weights; on a CPU, which can compute so, if slowly."""
    if family == "sam":
        small_sam.write_checkpoint(tmp_path, small_sam.small_config(256))
        files = {path.name: path for path in tmp_path.iterdir()}
        model = sam.load(read_catalogue()["sam-vit-base"], files, "cpu")
    else:
        files = small_sam2.write_checkpoint(tmp_path, small_sam2.small_network(size=128))
        model = sam2.load(read_catalogue()["sam2.1-hiera-tiny"], files, "cpu")
    lean, prompt = LeanModel(model, numbers), SlicePrompt((60.0, 50.0, 180.0, 190.0))
    image = example_slice()[0]
    whole, short = model.encode(image), lean.encode(image)
    first, second = ((one.features,) if family == "sam" else one.maps for one in (whole, short))
    for one, other in zip(first, second, strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert 0 < (one - other).abs().max() < 0.1 * one.abs().max()
    assert lean.decode(short, prompt).mask.shape == image.shape
    assert has_memory(lean) == has_memory(model) == (family == "sam2")
    if family == "sam2":
        memory = lean.remember(3)
        assert memory.prompt(0, short, prompt).mask.shape == memory.follow(1, short, True).mask.shape == image.shape


def test_devices_are_described_without_any_package():
    """The diagnosis is there for a Python that has none yet."""
    code = (
        "import sys\nsys.modules.update(dict.fromkeys(('numpy', 'torch')))\n"
        "from FoundationSegLib.engine.device import describe_devices\nassert describe_devices().problem"
    )
    subprocess.run((sys.executable, "-c", code), check=True, cwd=Path(__file__).resolve().parents[3])
