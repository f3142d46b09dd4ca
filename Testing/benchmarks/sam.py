"""SAM ViT-B and SAM 2.1 tiny at their true size with random weights, against transformers' own way of using them."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import Sam2VideoConfig, Sam2VideoInferenceSession, Sam2VideoModel, SamConfig

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.models.protocols import SlicePoint, SlicePrompt, load_model
from Testing.models import small_sam, small_sam2

from .timing import THREADS, Comparison, median_s, timed_s

SHAPE = (512, 512)
CLICK = SlicePrompt(points=(SlicePoint(250.0, 200.0),))
BOX = SlicePrompt((150.0, 140.0, 330.0, 300.0))
SLICES = 9  # so many that the memory is full at the last


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8)


def card_of(model_id: str) -> ModelCard:
    return read_catalogue()[model_id]


def sam() -> list[Comparison]:
    """An encoding, and a further click on an encoded slice of 512 x 512."""
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        files = small_sam.write_checkpoint(Path(folder), SamConfig())
        ours = load_model(card_of("sam-vit-base"), files, "cpu")
        reference = small_sam.random_model(SamConfig())
    pixels, image = torch.zeros(1, 3, 1024, 1024), picture()
    embedding = ours.encode(image)
    features = embedding.features.contiguous()
    points = torch.tensor([[[[500.0, 400.0]]]])
    asked = {"input_points": points, "input_labels": torch.ones(1, 1, 1, dtype=torch.int64)}

    @torch.inference_mode()
    def decode() -> None:
        """As transformers is used: the network, and its mask brought back to the slice."""
        coarse = reference(image_embeddings=features, **asked, multimask_output=True).pred_masks[0]
        square = torch.nn.functional.interpolate(coarse, (1024, 1024), mode="bilinear", align_corners=False)
        (torch.nn.functional.interpolate(square, SHAPE, mode="bilinear", align_corners=False) > 0).numpy()

    @torch.inference_mode()
    def encode() -> None:
        reference.get_image_embeddings(pixels)

    encoding = median_s(lambda: ours.encode(image), 3), "transformers", median_s(encode, 3)
    clicking = median_s(lambda: ours.decode(embedding, CLICK)), "transformers", median_s(decode)
    return [Comparison("SAM ViT-B, encode a slice", *encoding), Comparison("SAM ViT-B, a further click", *clicking)]


def sam2() -> list[Comparison]:
    """An object followed through a volume by SAM 2.1 tiny, and a second one through the same slices."""
    torch.set_num_threads(THREADS)
    network = Sam2VideoModel(Sam2VideoConfig()).eval()
    small_sam2.enliven(network, 0)
    with tempfile.TemporaryDirectory() as folder:
        files = small_sam2.write_checkpoint(Path(folder), network)
        ours = load_model(card_of("sam2.1-hiera-tiny"), files, "cpu")
    frames = [np.roll(picture(), n, axis=1) for n in range(SLICES)]
    embeddings = []

    def follow() -> None:
        memory = ours.remember(SLICES)
        memory.prompt(0, embeddings[0], BOX)
        for index in range(1, SLICES):
            memory.follow(index, embeddings[index], True)

    def first() -> None:
        embeddings.extend(ours.encode(frame) for frame in frames)
        follow()

    processor = small_sam2.video_processor(1024)
    video = torch.zeros(SLICES, 3, 1024, 1024)

    @torch.inference_mode()
    def theirs() -> None:
        rows, columns = SHAPE
        session = Sam2VideoInferenceSession(video, rows, columns, dtype=torch.float32)
        processor.add_inputs_to_inference_session(session, frame_idx=0, obj_ids=1, input_boxes=[[list(BOX.box)]])
        network(session, frame_idx=0)
        for _ in network.propagate_in_video_iterator(session, start_frame_idx=0):
            pass

    session_s, volume = timed_s(theirs), f"an object through {SLICES} slices"
    return [
        Comparison(f"SAM 2.1 tiny, {volume}", timed_s(first), "transformers' session", session_s),
        Comparison("another object, or a correction", timed_s(follow), "transformers' session anew", session_s),
    ]
