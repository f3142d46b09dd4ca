"""Names that stay inside the store."""

import pytest

from FoundationSegLib.errors import CheckpointError
from FoundationSegLib.folders import is_safe_path
from FoundationSegLib.hub.records import folder_name, require_inside, safe_path

FOLDERS = {"0.1.1": "0.1.1", "main": "main", "refs/pr/1": "refs_pr_1", "..": "_", "": "_", "../../x": "_.._.._x"}
FOLDERS |= {"con": "_con", "nul.1": "_nul.1", "a" * 500: "a" * 120, ".hidden": "_.hidden"}


def test_paths_that_lead_elsewhere_are_refused():
    assert safe_path("weights/model.safetensors") == "weights/model.safetensors"
    for path in ("../x", "/etc/passwd", "a/com1.txt", ""):
        with pytest.raises(CheckpointError, match="not one that a checkpoint may have"):
            safe_path(path)


@pytest.mark.parametrize(("text", "name"), FOLDERS.items())
def test_any_text_makes_a_harmless_folder(text, name):
    assert folder_name(text) == name
    assert is_safe_path(name)


def test_a_link_out_of_the_store_is_found(tmp_path):
    (tmp_path / "store" / "models").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "store" / "models" / "fake").symlink_to(tmp_path / "elsewhere")
    require_inside(tmp_path / "store", tmp_path / "store" / "models" / "new")
    with pytest.raises(CheckpointError, match="leads out of it"):
        require_inside(tmp_path / "store", tmp_path / "store" / "models" / "fake" / "file")
