"""Scripts: the documentation's as they are written there, sessions, classification by rules, and models."""

import importlib
import json
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib import __version__, api
from FoundationSegLib.api import Installation, choose, choose_labels, classify, open_session, package_names
from FoundationSegLib.catalog.catalogue import CARDS_VARIABLE, read_catalogue
from FoundationSegLib.catalog.label_sets import label_set_of
from FoundationSegLib.catalog.model_cards import find_card
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import CheckpointError, InferenceError, InputError, UnknownModelError
from FoundationSegLib.hub.fetch import accept, is_accepted
from FoundationSegLib.hub.store import STORE_VARIABLE
from FoundationSegLib.installation.inspection import Device, DeviceReport, PythonReport
from FoundationSegLib.prompts.kinds import BoxPrompt, PointPrompt
from FoundationSegLib.requests.classification import EvidenceWish, Subject
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.requests.scoring import Aggregation
from FoundationSegLib.session.segments import SegmentSession, next_segment
from FoundationSegLib.worker import process_client
from FoundationSegLib.worker.client import InlineClient
from Testing.unit.fakes import fill_store, volume_of
from Testing.unit.hub.hub_cases import REPOSITORY, card_text, content_of, tell_processes
from Testing.unit.hub.loopback_hub import run_hub
from Testing.unit.reader_model import ReaderModel, reader_card
from Testing.unit.session.session_cases import FakeClient, mask_of, ras, small_volume

PAGE = (Path(__file__).resolve().parents[2] / "Resources/Documentation/scripting.md").read_text(encoding="utf-8")
SCRIPTS = re.findall(r"```python\n(.*?)```", PAGE[PAGE.index("## Sessions") :], re.S)
FILES = {"weights/model.safetensors": random.Random(3).randbytes(300_000), "config.json": b'{"layers": 2}'}
MUST_ACCEPT = ('commercial_use = "yes"', 'commercial_use = "no"\nmust_accept = true')


class FakeEngine:
    """The answers of the fake client, behind the real in-line client."""

    def __init__(self, fault=None):
        self.volumes, self.fault = {}, fault

    def add_volume(self, volume):
        self.volumes[volume.key] = volume

    def remove_volume(self, volume_key):
        del self.volumes[volume_key]

    def predict(self, request, progress):
        if self.fault:
            raise self.fault
        return FakeClient(self.volumes[request.volume_key]).prediction(request)


def test_the_readme_runs_as_it_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process_client, "ProcessClient", lambda: InlineClient(FakeEngine()))
    for name in ("ct", "other"):
        voxels = np.arange(30 * 100 * 120, dtype=np.int16).reshape(30, 100, 120)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), tmp_path / f"{name}.nii.gz")
    session = {}
    exec(SCRIPTS[0], session)
    assert [session["session"].segment_name(key) for key in "123"] == ["Liver", "Nodule 1", "Nodule 2"]
    assert session["mask_kji"].sum() == 59 * 61 * 21
    batch = {}
    exec(SCRIPTS[1], batch)
    assert len(capsys.readouterr().out.splitlines()) == 2 * 3
    replay = {}
    exec(SCRIPTS[2], replay)
    assert np.array_equal(mask_of(replay["again"]), mask_of(replay["first"]))
    assert replay["again"].prompts == replay["first"].prompts
    assert len(SCRIPTS) == 4, "the fourth needs Slicer: Testing/mrml/test_session_store.py"


def test_the_earlier_names_of_scripting_are_found_with_a_warning():
    scripting = importlib.import_module("FoundationSegLib.scripting")
    for earlier in ("choose", "open_session", "segment_volumes", "classify_volume", "choose_labels"):
        with pytest.warns(DeprecationWarning, match="FoundationSegLib.api"):
            assert getattr(scripting, earlier) is getattr(api, earlier.replace("classify_volume", "classify"))
    with pytest.raises(AttributeError):
        _ = scripting.nothing


def test_prompts_become_a_session_and_a_segment_goes_on_by_its_name():
    volume = small_volume()
    corners = [[1, 1, 3], [8, 9, 3]]
    prompts = [{"name": "Liver", "prompts": [{"type": "box", "corners": corners}]}]
    document = {"version": 1, "space": "ijk", "segments": prompts}
    session = api.segment(volume, document, InlineClient(FakeEngine()), "lite-medsam")
    before = mask_of(api.find_segment(session, "Liver")).sum()
    api.propagate(session, "Liver")
    assert before and mask_of(api.find_segment(session, "Liver")).sum() > before
    with pytest.raises(InputError, match="0 segments"):
        api.propagate(session, "Spleen")


def test_a_script_gets_the_error():
    session = open_session(small_volume(), InlineClient(FakeEngine(InferenceError("no memory"))), "lite-medsam")
    segment = next_segment(session)
    with pytest.raises(InferenceError, match="no memory"):
        segment.add(PointPrompt(ras(3, 4, 5)))
    assert segment.steps == () and session.request_id is None
    assert not mask_of(SegmentSession(session, segment.segment_id)).any()


def test_a_script_is_asked_nothing():
    session = open_session(small_volume(), InlineClient(FakeEngine()), choose("sam-vit-base"))
    segment = next_segment(session)
    (key,) = segment.add(BoxPrompt((ras(3, 1, 1), ras(3, 8, 9))))
    segment.move(key, BoxPrompt((ras(3, 1, 1), ras(3, 2, 2))))
    assert mask_of(segment).sum() == 4


# Classification


@pytest.fixture
def reader(monkeypatch, tmp_path):
    model, card = ReaderModel(), reader_card()
    engine = Engine({card.id: card}, fill_store(tmp_path, card), "cpu", load_model=lambda *_: model)
    return InlineClient(engine)


def bright_volume():
    voxels = np.random.default_rng(0).integers(0, 200, (4, 16, 16)).astype(np.int16)
    voxels[2] += 800
    return volume_of(voxels, modality="MR")


def test_one_call_classifies(reader):
    reports = []
    answer = classify(bright_volume(), reader, reader_card(), ["bright", "dark"], on_progress=reports.append)
    assert answer.label_set == "custom" and answer.curves.shape == (4, 2) and reports
    assert answer.curves[:, 0].argmax() == 2
    again = classify(
        bright_volume(),
        reader,
        reader_card(),
        "modality",
        subject=Subject(start=1, stop=3),
        aggregation=Aggregation("max"),
        evidence=EvidenceWish("CT", slices=1),
    )
    assert len(again.scores) == 13 and again.slices == (1, 2) and again.evidence[0].label == "CT"
    assert again.counts["images"] == 1, "the evidence; the slices were seen before"


def test_labels_are_a_set_its_id_or_words():
    own = label_set_of(["a", "b"])
    assert choose_labels(own) is own
    assert choose_labels("body-part").id == "body-part"
    assert choose_labels(["a", "b"]) == own
    with pytest.raises(InputError, match="no label set is called 'nothing'"):
        choose_labels("nothing")


# Models


@pytest.fixture
def installation(tmp_path, monkeypatch):
    (tmp_path / "cards").mkdir()
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path / "cards"))
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "store"))
    (tmp_path / "cards" / "far.toml").write_text(card_text(MUST_ACCEPT, files=FILES))
    return Installation()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with run_hub() as hub:
        hub.add(REPOSITORY, FILES)
        tell_processes(monkeypatch, hub, tmp_path / "hf")
        yield hub


@pytest.mark.parametrize(
    "action",
    [
        choose,
        lambda name: classify(bright_volume(), InlineClient(FakeEngine()), name, "modality"),
        Installation().download,
        Installation().remove,
        Installation().model_state,
    ],
)
def test_unknown_models_are_named(action):
    with pytest.raises(UnknownModelError, match="no model is called 'sam3'"):
        action("sam3")


def test_a_store_is_the_users_usual_one_or_any_other(installation, tmp_path):
    assert installation.store.folder == tmp_path / "store"
    assert Installation(WorkerSettings(store_folder=tmp_path)).store.folder == tmp_path


def test_every_package_is_asked_for_once():
    names = package_names(read_catalogue())
    assert {"torch", "transformers", "numpy", "huggingface_hub", "timm"} <= set(names)
    assert len(set(names)) == len(names)


def test_the_catalogue_says_what_each_model_lacks(installation):
    states = {state["id"]: state for state in api.models()}
    assert list(states) == list(read_catalogue())
    tiny = states["sam2.1-hiera-tiny"]
    assert not tiny["ready"] and tiny["lacks"][-1]["need"] == "weights"
    assert tiny["lacks"][-1]["bytes"] == tiny["bytes"] == 155915242
    assert json.loads(json.dumps(states)) == states
    assert installation.model_state("sam2.1-hiera-tiny") == tiny
    readiness = installation.readiness(find_card(read_catalogue(), tiny["id"]), PythonReport("3.12.1", "Linux", {}))
    assert [requirement.need for requirement in readiness.missing] == ["packages", "weights"]


def test_terms_that_were_accepted_are_not_missing(installation):
    card = read_catalogue()["medsam2"]
    assert installation.readiness(card, None).requirement("license")
    accept(installation.store, card)
    assert installation.readiness(card, None).requirement("license") is None


def test_a_model_is_downloaded_and_removed_again(hub, installation):
    store, card, reports = installation.store, read_catalogue()["far"], []
    with pytest.raises(CheckpointError, match="licence to accept"):
        api.download("far")
    assert not store.folder.exists(), "nothing was asked for"
    installation.download("far", accept_license=True, on_progress=reports.append)
    assert content_of(store, card) == FILES
    assert reports[-1].stage == "download"
    assert is_accepted(store, card)
    api.download("far")
    size = pytest.approx(sum(map(len, FILES.values())), abs=2000)
    assert [(one.id, count) for one, count in installation.removable(read_catalogue().values())] == [("far", size)]
    assert installation.remove("far") > 300_000
    assert store.status(card) == "absent"
    assert installation.remove("far") == 0


def test_a_python_is_asked_in_its_own_process_unless_it_runs_already(monkeypatch):
    assert Installation(python=sys.executable).inspect().packages == Installation().inspect().packages
    with pytest.raises(InputError, match="cannot be started"):
        Installation(python="/no/such/python").inspect()
    monkeypatch.setattr("subprocess.Popen", None)
    assert Installation().inspect().packages["numpy"]


def test_a_diagnosis_has_everything_and_nobodys_name(installation, tmp_path):
    folder = installation.store.all_of(find_card(read_catalogue(), "medsam")) / "somewhere"
    folder.mkdir(parents=True)
    (folder / "part").write_bytes(bytes(5000))
    document = installation.diagnosis([("Slicer", "5.12.3")])
    assert document["software"] == {"FoundationSeg": __version__, "Slicer": "5.12.3"}
    assert document["python"]["packages"]["torch"]
    assert document["python"]["devices"]["devices"][-1]["kind"] == "cpu"
    assert (document["store_bytes"], document["models"]) == (5000, {"medsam": "absent"})
    assert document["store_is_usual"]
    assert str(tmp_path) not in json.dumps(document)


def test_a_python_that_gives_no_answer_is_part_of_the_diagnosis(installation):
    document = Installation(python="/no/such/python").diagnosis()
    assert document["python"] is None and not document["is_own_python"]
    assert "cannot be started" in document["problem"]


def test_texts_of_other_programs_lose_folders_and_names(installation, monkeypatch):
    monkeypatch.setenv("LOGNAME", "jdoe")
    devices = DeviceReport((Device("cpu", "x", 1),), problem="OSError: /home/jdoe/lib/libc10.so of jdoe")
    document = installation.diagnosis(report=PythonReport("3.12.1", "Linux", {}, devices=devices))
    assert document["python"]["devices"]["problem"] == "OSError: …/libc10.so of (user)"
    assert installation.diagnosis(report=InputError("no /home/jdoe/bin/python"))["problem"] == "no …/python"


@pytest.mark.parametrize("inherited", [{"HF_HUB_OFFLINE": "1"}, {}])
def test_the_users_offline_mode_is_in_the_diagnosis(installation, inherited):
    document = Installation(inherited=inherited).diagnosis(report=PythonReport("3.12.1", "Linux", {}))
    assert document["is_offline"] == bool(inherited)
