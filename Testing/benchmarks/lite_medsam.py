"""LiteMedSAM against the wheel's network and the official script."""

import contextlib
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from FoundationSegLib.hub.fetch import ensure_checkpoint
from FoundationSegLib.imaging.intensity import resolve_intensity
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.models.protocols import SliceModel, SlicePrompt, load_model
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import BoxPrompt, SegmentPrompts
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.requests.segmentation import PredictRequest
from FoundationSegLib.worker.client import Client, ask
from FoundationSegLib.worker.process_client import ProcessClient
from Testing.conftest import SHARED
from Testing.demo_data import demo_image
from Testing.models.cases import SLICES, box_of, dice, one_slice

from .timing import THREADS, Comparison, median_s, timed_s
from .yardsticks import CARD, OFFICIAL_SCRIPT, STORE, WHEEL_NETWORK, run_yardstick

HEART = ((225, 232, 5), (402, 400, 18))  # opposite corners (i, j, k) in the demo's image


def encode() -> list[Comparison]:
    """One slice of the demo's image, from 8 bits to its embedding; and whether the masks stay the network's."""
    torch.set_num_threads(THREADS)
    model = load_model(CARD, ensure_checkpoint(STORE, CARD, Progress()), "cpu")
    volume = read_volume(demo_image()[0])
    image = resolve_intensity("auto", volume).to_uint8(volume.array_kji[24])
    ours = median_s(lambda: model.encode(image))
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "seconds.json")
        run_yardstick(WHEEL_NETWORK, str(answer))
        theirs = json.loads(answer.read_text())
    return [
        Comparison("encode a slice", ours, "the wheel's network", theirs, f"; {model.precision}{_lowest_dice(model)}")
    ]


def _lowest_dice(model: SliceModel) -> str:
    """The lowest Dice between our masks and the wheel's network's, over the slices that the tests name."""
    if not SHARED.is_dir():
        return ""
    reached = {}
    for name, place in SLICES.items():
        images, label = one_slice(SHARED.joinpath, *place)
        box = box_of(label)
        ours = model.decode(model.encode(images[0]), SlicePrompt(tuple(float(box[n]) for n in (0, 1, 3, 4)))).mask
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "in.npz"), Path(folder, "out.npz")
            np.savez(source, images=images, boxes=box[None])
            run_yardstick(OFFICIAL_SCRIPT, str(source), str(target))
            reached[name] = dice(ours, np.load(target)["masks"][0, 0])
    lowest = min(reached, key=reached.get)
    return f", lowest Dice {reached[lowest]:.4f} ({lowest})"


def organ() -> list[Comparison]:
    """The heart in the demo's image, 14 slices from one 3-D box, nothing encoded before; once each."""
    volume = read_volume(demo_image()[0])

    def segment(client: Client, *corners: tuple[int, int, int]) -> None:
        first, second = (tuple(float(n) for n in volume.geometry.to_ras(corner)) for corner in corners)
        prompts = SegmentPrompts("Heart", (BoxPrompt((first, second)),))
        ask(client, PredictRequest(1, CARD.id, volume.key, (prompts,), "ct-soft-tissue"))

    settings = WorkerSettings("cpu", STORE.folder, encode_ahead=False)
    with contextlib.closing(ProcessClient(settings)) as client:
        client.send_volume(volume)
        segment(client, (225, 232, 40), (402, 400, 40))  # loads the model, on a slice that the heart does not reach
        ours = timed_s(lambda: segment(client, *HEART))
    images = resolve_intensity("ct-soft-tissue", volume).to_uint8(volume.array_kji)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.npz"), Path(folder, "out.npz")
        np.savez(source, images=images, boxes=np.array([[*HEART[0], *HEART[1]]]))
        run_yardstick(OFFICIAL_SCRIPT, str(source), str(target))
        theirs = float(np.load(target)["seconds"][0])
    return [Comparison("a whole organ", ours, "the official script", theirs)]
