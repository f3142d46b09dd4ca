import contextlib
import getpass
import json
import random
import sys

import pytest

from FoundationSegLib import __version__
from FoundationSegLib.catalog.catalogue import CARDS_VARIABLE, find_card, read_catalogue
from FoundationSegLib.errors import CheckpointError, InputError, UnknownModelError
from FoundationSegLib.hub.fetch import accept, is_accepted
from FoundationSegLib.hub.store import STORE_VARIABLE
from FoundationSegLib.installation.inspection import Device, DeviceReport, PythonReport
from FoundationSegLib.model_management import (
    diagnose,
    download_model,
    inspect,
    model_state,
    models,
    open_store,
    package_names,
    readiness,
    removable,
    remove_model,
    run_diagnosis,
)
from FoundationSegLib.worker.process_client import ProcessClient
from Testing.unit.hub.hub_cases import REPOSITORY, card_text, content_of, tell_processes
from Testing.unit.hub.loopback_hub import run_hub
from Testing.unit.worker import hub_worker

FILES = {"weights/model.safetensors": random.Random(3).randbytes(300_000), "config.json": b'{"layers": 2}'}
MUST_ACCEPT = ('commercial_use = "yes"', 'commercial_use = "no"\nmust_accept = true')


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "store"))
    return open_store()


@pytest.fixture
def cards(tmp_path, monkeypatch):
    (tmp_path / "cards").mkdir()
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path / "cards"))
    (tmp_path / "cards" / "far.toml").write_text(card_text(MUST_ACCEPT, files=FILES))


@pytest.fixture
def downloader(store, tmp_path, monkeypatch, cards):
    with run_hub() as hub:
        hub.add(REPOSITORY, FILES)
        tell_processes(monkeypatch, hub, tmp_path / "hf")
        with contextlib.closing(ProcessClient(command=hub_worker.command(tmp_path / "full"))) as client:
            yield client


def put(store, model_id, count=1000):
    folder = store.all_of(find_card(read_catalogue(), model_id)) / "somewhere"
    folder.mkdir(parents=True)
    (folder / "part").write_bytes(bytes(count))


def test_a_store_is_the_users_usual_one_or_any_other(store, tmp_path):
    assert store.folder == tmp_path / "store"
    assert open_store(tmp_path).folder == tmp_path


def test_every_package_is_asked_for_once():
    names = package_names(read_catalogue())
    assert {"torch", "transformers", "numpy", "huggingface_hub", "timm"} <= set(names)
    assert len(set(names)) == len(names)


def test_the_catalogue_says_what_each_model_lacks(store):
    nothing = PythonReport("3.12.1", "Linux", {})
    found = {state["id"]: state for state in models(store, nothing)}
    assert list(found) == list(read_catalogue())
    tiny = found["sam2.1-hiera-tiny"]
    assert not tiny["ready"]
    assert [lack["need"] for lack in tiny["lacks"]] == ["packages", "weights"]
    assert tiny["lacks"][1]["bytes"] == tiny["bytes"] == 155915242
    assert json.loads(json.dumps(found)) == found
    assert model_state(read_catalogue()["sam2.1-hiera-tiny"], store, nothing) == tiny


def test_terms_that_were_accepted_are_not_missing(store):
    card = read_catalogue()["medsam2"]
    assert readiness(card, store, None).lack("license")
    accept(store, card)
    assert readiness(card, store, None).lack("license") is None


def test_a_model_is_downloaded_and_removed_again(downloader, store):
    reports = []
    with pytest.raises(CheckpointError, match="licence to accept"):
        download_model("far", store, downloader)
    assert not store.folder.exists(), "nothing was asked for"
    download_model("far", store, downloader, accept_license=True, on_progress=reports.append)
    card = read_catalogue()["far"]
    assert content_of(store, card) == FILES
    assert reports[-1].stage == "download"
    assert is_accepted(store, card)
    download_model("far", store, downloader)
    assert [(found.id, size) for found, size in removable(store, read_catalogue().values())] == [
        ("far", pytest.approx(sum(map(len, FILES.values())), abs=2000))
    ]
    assert remove_model("far", store) > 300_000
    assert store.status(card) == "absent"
    assert remove_model("far", store) == 0


@pytest.mark.parametrize("action", [remove_model, lambda name, store: download_model(name, store, None)])
def test_a_model_that_nobody_knows(action, store):
    with pytest.raises(UnknownModelError, match="no model is called 'sam3'"):
        action("sam3", store)


def test_the_running_python_is_asked_without_a_process(monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    assert inspect(read_catalogue()).packages["numpy"]


def test_another_python_is_asked_in_its_own_process():
    assert inspect(read_catalogue(), sys.executable).packages == inspect(read_catalogue()).packages
    with pytest.raises(InputError, match="cannot be started"):
        inspect(read_catalogue(), "/no/such/python")


def test_a_diagnosis_tells_everything_and_nobodys_name(store, monkeypatch, tmp_path):
    put(store, "medsam", 5000)
    found = run_diagnosis(store, software=[("Slicer", "5.12.3")])
    document = found.to_document()
    assert document["software"] == {"FoundationSeg": __version__, "Slicer": "5.12.3"}
    assert document["python"]["packages"]["torch"]
    assert document["python"]["devices"]["devices"][-1]["kind"] == "cpu"
    assert document["store_bytes"] == 5000
    assert document["models"] == {"medsam": "absent"}
    assert document["store_is_usual"]
    text = json.dumps(document)
    assert str(tmp_path) not in text
    assert str(store.folder) not in text


def test_a_python_that_gives_no_answer_is_part_of_the_diagnosis(store):
    found = run_diagnosis(store, "/no/such/python")
    assert found.python is None
    assert "cannot be started" in found.problem
    assert not found.is_own_python


def test_what_other_programs_say_is_told_without_folders_and_names(store, monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "jdoe")
    devices = DeviceReport((Device("cpu", "x", 1),), problem="OSError: /home/jdoe/lib/libc10.so of jdoe")
    report = PythonReport("3.12.1", "Linux", {}, devices=devices)
    document = diagnose(store, report, is_own_python=True).to_document()
    assert document["python"]["devices"]["problem"] == "OSError: …/libc10.so of (user)"
    problem = InputError("no /home/jdoe/bin/python")
    assert diagnose(store, problem, is_own_python=False).to_document()["problem"] == "no …/python"


def test_the_users_offline_mode_is_told(store):
    report = PythonReport("3.12.1", "Linux", {})
    assert diagnose(store, report, is_own_python=True, inherited={"HF_HUB_OFFLINE": "1"}).is_offline
    assert not diagnose(store, report, is_own_python=True, inherited={}).is_offline
