"""`models list` and `models show`."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from FoundationSegLib.catalog.catalogue import card_folder, read_catalogue
from FoundationSegLib.hub.store import STORE_VARIABLE
from Testing.unit.commands.conftest import add_card
from Testing.unit.fakes import WEIGHTS


@pytest.fixture
def store(desk):
    return desk.folder.parent / "store"


@pytest.mark.parametrize(
    ("damage", "status"),
    [
        (lambda folder: shutil.rmtree(folder), "absent"),
        (lambda folder: (folder / "complete.json").unlink(), "partial"),
        (lambda folder: (folder / "complete.json").write_text("{"), "partial"),
        (lambda folder: (folder / "fake.pth").unlink(), "damaged"),
        (lambda folder: (folder / "fake.pth").write_bytes(WEIGHTS[:-1]), "damaged"),
    ],
)
def test_the_status_is_that_of_the_store(desk, store, damage, status):
    damage(store / "models" / "fake" / "1.0")
    assert desk.run("models", "list", "--json") == 0
    assert json.loads(desk.out)[0]["status"] == status


def test_a_broken_card_is_named(desk):
    (desk.cards / "fake.toml").write_text("id = 3")
    assert desk.run("models", "list") == 1
    assert desk.err.startswith("foundationseg: fake.toml: ")
    assert len(desk.err.splitlines()) == 1


ROOT = Path(__file__).parents[3]
KEYS = ["id", "title", "task", "family", "prompts", "dimensions"]
KEYS += ["license", "commercial_use", "gated", "status", "bytes"]
FURTHER_KEYS = ["bytes_known", "runnable", "must_accept", "unverified"]


def test_the_table_shows_every_model_and_lines_up(desk):
    add_card(desk, "a-second-model", ('commercial_use = "yes"', 'commercial_use = "unclear"\nnote = "?"'))
    assert desk.run("models", "list") == 0
    header, first, second, _, remark = desk.out.splitlines()
    assert desk.err == ""
    assert "models show" in remark
    assert header.split() == ["ID", "PROMPTS", "LICENCE", "COMMERCIAL", "SIZE", "STATUS"]
    assert first.split() == ["a-second-model", "box", "MIT", "unclear", "400", "B", "absent"]
    assert second.split() == ["fake", "box", "MIT", "yes", "400", "B", "ready"]
    assert first.index("absent") == second.index("ready") == header.index("STATUS")


def test_the_json_has_the_keys_of_the_interface(desk):
    assert desk.run("models", "list", "--json") == 0
    (line,) = json.loads(desk.out)
    assert list(line) == KEYS + FURTHER_KEYS
    values = ["fake", "Fake Model", "segment", "lite-medsam", ["box"], [2], "MIT", "yes", False, "ready", len(WEIGHTS)]
    assert list(line.values()) == [*values, True, True, False, []]


@pytest.fixture
def real(desk, monkeypatch, tmp_path):
    """The desk with the cards that come along, and nothing downloaded."""
    desk.catalogue = read_catalogue
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "none"))
    return desk


def test_every_card_that_comes_along_is_listed_and_can_be_run(real):
    assert real.run("models", "list") == 0
    assert "cannot run them" not in real.out
    assert max(map(len, real.out.splitlines())) <= 100
    assert all(line == line.rstrip() for line in real.out.splitlines())
    rows = {line.split()[0]: line for line in real.out.splitlines() if line}
    assert "classifies by text" in rows["biomedclip"] and "classifies" not in rows["voxtell"]


def test_what_can_be_run_stands_first_and_the_rest_apart(desk):
    add_card(desk, "later", ('family = "lite-medsam"', 'family = "not-yet"'))
    assert desk.run("models", "list") == 0
    able, _, others = desk.out.partition("Described, but this version cannot run them yet:")
    assert "fake" in able and "later" not in able
    assert "later" in others


def test_a_long_card_keeps_to_the_columns(desk):
    add_card(desk, "a" * 64, ('prompts = ["box"]', 'prompts = ["box", "point", "scribble", "lasso", "mask", "text"]'))
    assert desk.run("models", "list") == 0
    assert max(map(len, desk.out.splitlines())) <= 100
    assert "…" in desk.out
    assert " ready" in desk.out


def test_json_says_what_is_runnable_certain_and_verified(real):
    assert real.run("models", "list", "--json") == 0
    lines = {line["id"]: line for line in json.loads(real.out)}
    assert list(lines) == list(read_catalogue())
    assert {line["status"] for line in lines.values()} == {"absent"}
    runnable = {line["family"] for line in lines.values() if line["runnable"]}
    segmenting = {"lite-medsam", "sam", "medsam", "sam2", "medsam2", "nninteractive", "vista3d", "voxtell"}
    assert runnable >= segmenting | {"clip", "siglip", "biomedclip"}
    assert (lines["voxtell"]["bytes"], lines["voxtell"]["bytes_known"]) == (0, False)
    assert (lines["sam-vit-base"]["bytes_known"], lines["sam-vit-base"]["unverified"]) == (True, [])
    assert lines["medsiglip"]["gated"] is True
    assert "source.files" in lines["medsiglip"]["unverified"]


@pytest.mark.parametrize("model_id", read_catalogue(card_folder()))
def test_show_tells_all_in_100_columns(real, model_id):
    card = read_catalogue()[model_id]
    assert real.run("models", "show", model_id) == 0
    assert real.err == ""
    assert max(len(line) for line in real.out.splitlines()) <= 100
    told = " ".join(real.out.split())
    for text in (card.title, card.good_at, card.bad_at, card.citation, card.license.note, *card.packages, *card.notes):
        assert " ".join(text.split()) in told
    for field in card.unverified:
        assert field in told
    assert all(repository in told and revision in told for repository, revision in card.source.origins)
    assert ("must be accepted before the download" in told) == card.license.must_accept
    assert ("accepted on the Hub" in told) == card.gated
    assert ("only if you trust its makers" in told) == card.full_pickle


def test_show_as_json_has_the_lists_keys_and_the_rest(real):
    assert real.run("models", "show", "voxtell", "--json") == 0
    told = json.loads(real.out)
    assert set(KEYS + FURTHER_KEYS) <= set(told)
    assert (told["license"], told["terms"]["commercial_use"], told["status"]) == ("CC-BY-NC-SA-4.0", "no", "absent")
    assert told["source"]["files"][0]["bytes"] is None
    assert told["memory_mb"] == {"cuda": 8000}
    assert told["memory_basis"] == {"cuda": "published"}
    assert told["runnable"] is True


def test_listing_needs_no_torch_and_little_time(bar, tmp_path):
    """The time, the best of a few since another process may be at work, is noted and not asserted."""
    code = """
import sys
from FoundationSegLib.commands.cli import main
code = main(["models", "list", "--json"])
heavy = {"torch", "transformers", "huggingface_hub", "SimpleITK", "slicer", "vtk"} & set(sys.modules)
sys.exit(f"{code} {heavy}" if code or heavy else 0)
"""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run = subprocess.run(
            (sys.executable, "-c", code), cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False
        )
        times.append(time.perf_counter() - start)
        assert run.returncode == 0, run.stderr
    assert len(json.loads(run.stdout)) == len(read_catalogue())
    bar("models list --json, s", min(times), "< 1")


def test_segment_says_in_one_line_that_a_model_cannot_be_run(desk, tmp_path):
    add_card(desk, "later", ('family = "lite-medsam"', 'family = "not-yet"'))
    desk.segment(model="later")
    desk.assert_refused(
        1, "later: this version cannot run it: there is no adapter for 'not-yet'; 'foundationseg models list' shows"
    )
    assert not (tmp_path / "store" / "models" / "later").exists()
