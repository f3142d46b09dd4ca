import numpy as np

from FoundationSegLib.imaging.masks import EMPTY_MASK, pack_mask
from FoundationSegLib.prompts.kinds import MaskPrompt, PointPrompt, PromptSet, SegmentPrompts
from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction, SegmentPrediction, seeded, seeds_of

LIVER, SPLEEN = MaskPrompt("a.seg.nrrd", "Liver"), MaskPrompt("a.seg.nrrd", "Spleen")
CLICK = PointPrompt((1.0, 2.0, 3.0))


def test_what_one_model_found_starts_another():
    mask = pack_mask(np.ones((2, 3, 4)))
    found = tuple(SegmentPrediction(one, None) for one in (mask, EMPTY_MASK))
    prediction = Prediction(1, found, {}, CheckpointRecord("a", "b", "c", "d"), "cpu", "float32")
    (seed,) = seeds_of(("Liver", "Spleen"), prediction)
    assert (seed.segment, seed.voxels) == ("Liver", mask)


def test_a_seed_comes_before_the_prompts_of_its_segment():
    prompts = PromptSet((SegmentPrompts("Spleen", (CLICK,)), SegmentPrompts("Kidney", (CLICK,))), "ijk")
    assert seeded(prompts, (LIVER, SPLEEN)) == PromptSet(
        (SegmentPrompts("Spleen", (SPLEEN, CLICK)), SegmentPrompts("Kidney", (CLICK,))), "ijk"
    )


def test_without_prompts_each_seed_is_a_segment():
    wanted = PromptSet((SegmentPrompts("Liver", (LIVER,)), SegmentPrompts("Spleen", (SPLEEN,))))
    assert seeded(PromptSet(()), (LIVER, SPLEEN)) == wanted
