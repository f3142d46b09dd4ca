import json
import sys

import pytest

from FoundationSegLib.catalog.label_sets import LABEL_SETS_VARIABLE, read_label_sets
from FoundationSegLib.catalog.resource_files import resource_folder
from FoundationSegLib.commands.cli import main

SHIPPED = read_label_sets(resource_folder("LabelSets"))


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(LABEL_SETS_VARIABLE, str(tmp_path))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # the command line sets its own
    return tmp_path


def test_sets_are_listed(capsys):
    assert main(["label-sets"]) == 0
    told = capsys.readouterr()
    assert [line.split()[0] for line in told.out.splitlines()] == list(SHIPPED)
    assert "README" in told.err
    assert main(["label-sets", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {one["id"]: tuple(one["labels"]) for one in listed} == {key: one.names for key, one in SHIPPED.items()}


@pytest.mark.parametrize("set_id", SHIPPED)
def test_a_set_is_shown_with_every_sentence(capsys, set_id):
    labels = SHIPPED[set_id]
    assert main(["label-sets", set_id]) == 0
    lines = capsys.readouterr().out.splitlines()
    for label in labels.labels:
        for mark, texts in (("+", labels.texts(label)), ("-", labels.negative_texts(label))):
            assert all(f"  {mark} {text}" in lines for text in texts)
        assert not label.code or any(label.code.value in line for line in lines)
    assert f"Source: {labels.source}" in lines
    assert main(["label-sets", set_id, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in shown["labels"]] == list(labels.names)
    assert all(one["texts"] and one["negative_texts"] for one in shown["labels"])


def test_sets_of_the_users_own_are_there_and_mistakes_are_named(capsys, own_folder):
    (own_folder / "mine.toml").write_text(
        'id = "mine"\ntitle = "Mine"\nkind = "findings"\n[[labels]]\nname = "Cyst"\n', encoding="utf-8"
    )
    assert main(["label-sets", "mine"]) == 0
    assert "Cyst" in capsys.readouterr().out
    assert main(["label-sets", "none"]) == 2
    assert "no label set is called 'none'" in capsys.readouterr().err
    (own_folder / "mine.toml").write_text('id = "mine"', encoding="utf-8")
    assert main(["label-sets"]) == 2
    assert "mine.toml: title is missing" in capsys.readouterr().err
