"""The worker from outside: a prompt from request to written segment, the boundary's own cost, start and memory."""

import contextlib
import itertools
import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import InputError
from FoundationSegLib.hub.fetch import ensure_checkpoint
from FoundationSegLib.imaging.geometry import Box, geometry_from_spacing
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.models.protocols import load_model
from FoundationSegLib.mrml.scene import boot_scene
from FoundationSegLib.mrml.segments import SegmentWriter
from FoundationSegLib.mrml.volumes import add_volume_node
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import BoxPrompt, SegmentPrompts
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.requests.segmentation import PredictRequest
from FoundationSegLib.worker.client import Client, InlineClient, ask
from FoundationSegLib.worker.process_client import ProcessClient

from .timing import THREADS, Comparison, median_s
from .yardsticks import CARD, OFFICIAL_SCRIPT, STORE, run_yardstick

SHAPE = (300, 512, 512)
SLICE = 150
MEMORY = Path(__file__).with_name("memory.py")


def large_volume(seed: int = 0) -> Volume:
    """512 x 512 x 300 of a signed 16-bit image: 157 MB."""
    voxels = np.random.default_rng(seed).integers(-200, 300, SHAPE, dtype=np.int16)
    return Volume(voxels, geometry_from_spacing(SHAPE))


def box_request(volume: Volume, grown: int = 0) -> PredictRequest:
    """A box on the middle slice; ``grown`` makes it another one."""
    corners = ((150.0, 160.0, float(SLICE)), (290.0 + grown, 300.0, float(SLICE)))
    return PredictRequest(1, CARD.id, volume.key, (SegmentPrompts("Organ", (BoxPrompt(corners),)),), "ct-soft-tissue")


@contextlib.contextmanager
def worker_client() -> Iterator[ProcessClient]:
    """A client of a worker on the CPU."""
    with contextlib.closing(ProcessClient(WorkerSettings("cpu", STORE.folder))) as client:
        yield client


def prompt() -> list[Comparison]:
    """A further box on an encoded slice, from request to written segment, beside a neighbour that must keep its own."""
    torch.set_num_threads(THREADS)
    headless, volume = boot_scene(), large_volume()
    node = headless.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    writer = SegmentWriter(node, add_volume_node(headless.scene, volume))
    organ, neighbour = writer.add_segment("Organ"), writer.add_segment("Neighbour")
    writer.write(neighbour, np.ones((100, 100, 100), bool), Box((100, 100, 100), (200, 200, 200)))
    edited, grown = Box((SLICE, 0, 0), (SLICE + 1, *SHAPE[1:])), itertools.cycle(range(10))
    with worker_client() as client:
        client.send_volume(volume)
        finish_ahead(client, volume)
        ours = median_s(
            lambda: writer.write(organ, ask(client, box_request(volume, next(grown))).segments[0].mask, edited)
        )
    model = load_model(CARD, ensure_checkpoint(STORE, CARD, Progress()), "cpu")
    features = model.encode(np.zeros(SHAPE[1:], np.uint8)).features.contiguous()  # the layout that transformers likes
    boxes = torch.tensor([[[75.0, 80.0, 145.0, 150.0]]])

    def bare() -> None:
        with torch.inference_mode():
            model.decoder(image_embeddings=features, input_boxes=boxes, multimask_output=False)

    return [Comparison("a further prompt, to the written segment", ours, "transformers' bare decoder", median_s(bare))]


def finish_ahead(client: Client, volume: Volume) -> None:
    """Ask once, and give the worker the time to encode the slices around it."""
    ask(client, box_request(volume))
    for _ in range(20):
        client.wait(0.5)
        client.poll()


def boundary() -> list[Comparison]:
    """What the process costs: the same prompt in line, and the same image through multiprocessing's pickles."""
    torch.set_num_threads(THREADS)
    volume, grown = large_volume(), itertools.count()  # the same question twice would be answered from memory
    in_line = InlineClient(Engine({CARD.id: CARD}, STORE, "cpu"))
    in_line.send_volume(volume)
    with worker_client() as client:
        client.send_volume(volume)
        finish_ahead(client, volume)
        ours = median_s(lambda: ask(client, box_request(volume, next(grown) % 99)))
        theirs = median_s(lambda: ask(in_line, box_request(volume, next(grown) % 99)))
        crossing = median_s(lambda: hand_over(client, volume))
    return [
        Comparison("a further prompt through the worker", ours, "the same in line", theirs),
        Comparison("157 MB to the worker, checked", crossing, "multiprocessing's pickles", median_s(pickled(volume))),
    ]


def hand_over(client: Client, volume: Volume) -> None:
    """A volume that the worker has not seen, until it answers to it; with fingerprint, checksums and checks."""
    fresh = Volume(volume.array_kji, volume.geometry)
    client.remove_volume(volume.key)
    client.send_volume(fresh)
    request = PredictRequest(1, CARD.id, fresh.key, box_request(fresh).segments, "no such policy")
    with contextlib.suppress(InputError):
        ask(client, request)


def pickled(volume: Volume):
    """A volume through a pipe to a process that says when it has it."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=take_pickles, args=(far,), daemon=True)
    process.start()

    def work() -> None:
        near.send(volume.array_kji)
        near.recv()

    return work


def take_pickles(connection: Connection) -> None:
    """Say yes to whatever comes, until the other end is closed."""
    with contextlib.suppress(EOFError):
        while True:
            connection.recv()
            connection.send(True)


def start() -> list[Comparison]:
    """From nothing to the first mask on a slice of 512 x 512: our worker, and the official script."""
    voxels = np.random.default_rng(0).integers(-200, 300, (2, *SHAPE[1:]), dtype=np.int16)
    volume = Volume(voxels, geometry_from_spacing(voxels.shape))
    corners = ((150.0, 160.0, 0.0), (290.0, 300.0, 0.0))
    segment = SegmentPrompts("Organ", (BoxPrompt(corners),))

    def ours() -> None:
        with worker_client() as client:
            client.prepare(CARD.id)
            client.send_volume(volume)
            ask(client, PredictRequest(1, CARD.id, volume.key, (segment,), "ct-soft-tissue"))

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.npz"), Path(folder, "out.npz")
        images = np.clip(voxels[:1], 0, 255).astype(np.uint8)
        np.savez(source, images=images, boxes=np.array([[150, 160, 0, 290, 300, 0]]))
        theirs = median_s(lambda: run_yardstick(OFFICIAL_SCRIPT, str(source), str(target)), 3)
    return [Comparison("start to first mask", median_s(ours, 3), "the official script on one slice", theirs)]


def memory() -> list[str]:
    """The peaks of a client and of its worker on 512 x 512 x 300, each in a fresh process."""
    done = subprocess.run((sys.executable, "-m", f"{__package__}.{MEMORY.stem}"), check=True, capture_output=True)
    peaks = json.loads(done.stdout)
    return [
        f"memory of the client beyond what it held before: {peaks['client_mb']:.0f} MB; the volume: 157 MB",
        f"memory of the worker: {peaks['worker_mb']:.0f} MB at its peak",
    ]
