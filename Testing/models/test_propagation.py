"""One 3-D box with the real weights: the default rule against that of the official script, on images with labels."""

import numpy as np
import pytest

from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.segmentation import PredictRequest
from Testing.models.cases import ALL_CASES, CASES, CT, HEART, box_of, box_prompt, dice, values_of

# The reduced run takes the two smallest objects; the full one every label that the bars name.
REDUCED = [(HEART, (1,)), (CT, (4,))]
FULL = [(case, tuple(case.labels)) for case in CASES]


def reached(engine, volume, labels, case, value):
    """The Dice with one 3-D box around a label."""
    engine.add_volume(volume)
    mask = labels == value
    request = PredictRequest(1, "lite-medsam", volume.key, (box_prompt(volume, box_of(mask)),), case.intensity)
    return dice(engine.predict(request, Progress()).segments[0].mask.expand(labels.shape), mask)


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
