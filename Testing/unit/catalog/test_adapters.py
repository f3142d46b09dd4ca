import pytest

from FoundationSegLib.catalog import catalogue as adapters
from FoundationSegLib.catalog.catalogue import adapter_folder, has_adapter, require_adapter
from FoundationSegLib.errors import CardError
from Testing.unit.fakes import fake_card


def test_an_adapter_is_a_file_of_the_familys_name_that_can_load(monkeypatch, tmp_path):
    folder = tmp_path / "segmentation"
    folder.mkdir()
    (folder / "two_words.py").write_text("import os\n\n\ndef load(card, files, device): ...\n")
    (folder / "shared.py").write_text("def load_slice_model(card): ...\n\n\nclass A:\n    def load(self): ...\n")
    monkeypatch.setattr(adapters, "adapter_folder", lambda: tmp_path)
    found = {family: has_adapter(fake_card(family=family)) for family in ("two-words", "shared", "absent")}
    assert found == {"two-words": True, "shared": False, "absent": False}


def test_what_has_no_adapter_is_refused_in_one_line():
    require_adapter(fake_card(family="lite-medsam"))
    with pytest.raises(
        CardError, match=r"^fake: this version cannot run it: .* 'no-such'; 'foundationseg models list' shows"
    ):
        require_adapter(fake_card(family="no-such"))


@pytest.mark.parametrize(("task", "folder"), [("segment", "segmentation"), ("classify", "classification")])
def test_what_the_adapters_share_is_no_adapter(task, folder):
    """Every file beside the adapters is looked at: only those that the engine could call count."""
    families = [path.stem.replace("_", "-") for path in (adapter_folder() / folder).glob("[a-z]*.py")]
    runnable = {family for family in families if has_adapter(fake_card(family=family, task=task))}
    assert runnable == set(families) - {"two-towers"}
