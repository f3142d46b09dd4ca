"""`models plan|download|verify|remove|import|export` against a Hub on loopback."""

import functools
import json

import pytest

from FoundationSegLib.hub import download, fetch
from FoundationSegLib.installation.packages import PackagePlan, PlannedPackage
from FoundationSegLib.requests.maintenance import RemovedCheckpoints, RemovePackagesRequest
from FoundationSegLib.worker.protocol import Answered
from Testing.unit.hub.hub_cases import FILES, QUICK, REPOSITORY, card_text
from Testing.unit.hub.loopback_hub import Fault, hub_of_the_client

TOTAL = sum(map(len, FILES.values()))


@pytest.fixture
def hub(monkeypatch, tmp_path, desk):
    (desk.cards / "far.toml").write_text(card_text())
    monkeypatch.setitem(fetch.FETCHERS, "hub", functools.partial(download.fetch_files, retries=QUICK))
    with hub_of_the_client(monkeypatch, tmp_path / "hf-cache") as hub:
        hub.commit = hub.add(REPOSITORY, FILES)
        yield hub


@pytest.fixture
def store(desk):
    return desk.folder.parent / "store"


def test_the_plan_is_shown_before_anything_travels(desk, hub):
    assert desk.run("models", "plan", "far") == 0
    text = desk.out
    parts = ("Fake Model (far): absent", hub.commit[:12], "MIT; commercial use: yes", "300 kB of 300 kB", "GB free")
    assert all(part in text for part in parts)
    assert "weights/model.safetensors (300 kB)" in text
    assert desk.err == ""
    assert hub.sent == 0


def test_the_plan_as_json(desk, hub):
    assert desk.run("models", "plan", "far", "--json") == 0
    plan = json.loads(desk.out)
    assert plan["bytes_to_fetch"] == plan["bytes"] == TOTAL
    assert plan["commit"] == hub.commit
    assert plan["asked_hub"]
    assert [file["path"] for file in plan["files"]] == list(FILES)
    assert desk.run("models", "plan", "fake", "--json") == 0
    assert json.loads(desk.out)["bytes_to_fetch"] == 0


def test_download_verify_and_remove(desk, hub, store):
    assert desk.run("models", "download", "far") == 0
    assert desk.err.splitlines()[-1] == "Fake Model is ready"
    assert desk.run("models", "download", "far") == 0
    assert desk.err.splitlines() == ["Fake Model is ready"], "nothing is announced that does not happen"
    assert desk.run("models", "verify", "far") == 0
    assert desk.out == "far: every file has the right hash\n"
    path = store / "models" / "far" / hub.commit / "config.json"
    path.write_bytes(b"x")
    assert desk.run("models", "verify") == 3
    assert "fake: every file has the right hash" in desk.out
    assert "far: the checkpoint file config.json of far is damaged" in desk.out
    assert len(desk.err.splitlines()) == 1
    assert desk.err == "foundationseg: not whole: 1 model of 2\n", "what is wrong stands above"
    assert desk.run("models", "verify", "far", "--json") == 3
    assert json.loads(desk.out)[0]["status"] == "damaged"
    hub.start_count()
    assert desk.run("models", "download", "far") == 0
    assert hub.sent == len(FILES["config.json"])
    assert desk.run("models", "remove", "far") == 0
    assert desk.out == "far: frees 301 kB\n"
    assert "--yes" in desk.err
    assert path.exists()
    assert desk.run("models", "remove", "far", "--yes", "--json") == 0
    (removed,) = json.loads(desk.out)
    assert removed["bytes_freed"] > TOTAL
    assert not path.exists()
    assert desk.run("models", "remove", "far") == 0
    assert desk.err == "there is nothing to remove\n"
    assert desk.run("models", "verify", "far") == 3


def test_remove_wants_a_name(desk, hub):
    assert desk.run("models", "remove") == 2
    assert desk.run("models", "remove", "nothing") == 2


def test_half_downloads_are_listed_and_removed(desk, hub, store):
    hub.faults.extend([Fault("cut", 200_000), *[Fault("status", code=500)] * 9])
    assert desk.run("models", "download", "far") == 3
    assert len(desk.err.splitlines()) == 2, "the announcement and the error"
    assert "what has arrived is kept" in desk.err
    assert desk.run("models", "remove", "--partial") == 0
    assert desk.out == "far: frees 200 kB\n"
    assert desk.run("models", "remove", "--partial", "--yes") == 0
    assert desk.run("models", "remove", "--partial") == 0
    assert desk.out == ""
    assert desk.run("models", "list", "--json") == 0
    assert {line["id"]: line["status"] for line in json.loads(desk.out)} == {"far": "absent", "fake": "ready"}


def test_terms_and_gates(desk, hub):
    (desk.cards / "far.toml").write_text(card_text(('"yes"', '"no"\nmust_accept = true')))
    assert desk.run("models", "download", "far") == 3
    assert "--accept-license" in desk.err
    assert len(desk.err.splitlines()) == 1
    assert desk.run("models", "plan", "far") == 0
    assert "its terms have to be accepted: 'foundationseg models download far --accept-license'" in desk.out
    hub.repositories[REPOSITORY].gated = "auto"
    assert desk.run("models", "download", "far", "--accept-license") == 3
    assert "hf auth login" in desk.err
    hub.repositories[REPOSITORY].gated = False
    assert desk.run("models", "download", "far") == 0, "accepted once is accepted"


def test_export_and_import(desk, hub, store, tmp_path, monkeypatch):
    desk.run("models", "download", "far")
    assert desk.run("models", "export", "far", str(tmp_path / "far.zip")) == 0
    assert desk.err == "Fake Model was written to far.zip\n"
    assert desk.run("models", "export", "far", str(tmp_path / "far.zip")) == 2
    assert desk.run("models", "export", "far", str(tmp_path / "far.rar")) == 2
    assert "far.rar: write a folder, or a .zip" in desk.err and not (tmp_path / "far.rar").exists()
    desk.run("models", "remove", "far", "--yes")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert desk.run("models", "import", "far", str(tmp_path / "far.zip")) == 0
    assert desk.run("models", "verify", "far") == 0
    (tmp_path / "empty").mkdir()
    desk.run("models", "remove", "far", "--yes")
    assert desk.run("models", "import", "far", str(tmp_path / "empty")) == 3
    assert "is not in empty" in desk.err
    assert str(tmp_path) not in desk.err


class Pip:
    """pip, with a plan of its own."""

    def __init__(self, *packages):
        self.entries = [
            {"metadata": {"name": name, "version": version}, "download_info": {"url": "file:///x"}}
            for name, version in packages
        ]
        self.installed = []

    def report(self, requirements, constraints, progress):
        return {"install": self.entries}

    def install(self, requirements, constraints, progress):
        self.installed.append(requirements)


def test_packages_are_shown_before_they_are_installed(desk, hub, monkeypatch):
    pip = Pip(("fakelib", "2.0"))
    desk.pip = lambda: pip
    assert desk.run("models", "plan", "far") == 0
    assert "packages fakelib missing; 'foundationseg models plan far --packages'" in desk.out
    assert desk.run("models", "plan", "far", "--packages") == 0
    assert "package  fakelib 2.0 (unknown size)" in desk.out
    assert pip.installed == []
    assert desk.run("models", "download", "far", "--with-packages") == 0
    assert desk.err.splitlines()[0] == "Installing fakelib 2.0 (unknown size)"
    assert pip.installed == [("fakelib",)]


def test_packages_that_would_replace_numpy_are_refused_before_the_download(desk, hub, monkeypatch):
    pip = Pip(("fakelib", "2.0"), ("numpy", "0.1"))
    desk.pip = lambda: pip
    assert desk.run("models", "plan", "far", "--packages", "--json") == 0
    assert json.loads(desk.out)["packages_that_would_harm"] == ["numpy"]
    assert desk.run("models", "download", "far", "--with-packages") == 1
    assert "would replace what is installed (numpy" in desk.err.splitlines()[-1]
    assert pip.installed == []
    assert hub.sent == 0


class PackageClient:
    """A worker that says what it is asked for, and changes nothing."""

    def __init__(self, settings):
        self.settings, self.requests, self.events = settings, [], ()

    @property
    def is_busy(self):
        return bool(self.events)

    def submit(self, request):
        self.requests.append(type(request).__name__)
        planned = (PlannedPackage("torch", "2.8.0+cu126", "", 888_000_000),)
        removal = isinstance(request, RemovePackagesRequest)
        answer = RemovedCheckpoints(5_000_000) if removal else PackagePlan((), (), planned)
        self.events = (Answered(request.request_id, answer),)

    def poll(self):
        events, self.events = self.events, ()
        return events

    cancel = wait = lambda *_: None
    close = cancel


def test_private_packages_are_shown_before_they_are_installed_and_can_be_removed(desk, tmp_path):
    clients = []
    desk.connect = lambda settings: clients.append(PackageClient(settings)) or clients[-1]
    folder = ("--folder", str(tmp_path / "F S"), "--wheels", str(tmp_path))
    assert desk.run("models", "packages", "fake", *folder) == 0
    effort = "1 package, 888 MB to download, 3.1 GB on the disk, 3 minutes at 50 Mbit/s, into"
    assert effort in desk.err and "nothing was installed; --install does it" in desk.err
    assert desk.out.splitlines() == ["0 packages, 0 B", "torch 2.8.0+cu126 is missing"]
    assert desk.run("models", "packages", "fake", "--install", *folder) == 0
    assert effort in desk.err and "is missing" not in desk.out
    assert desk.run("models", "packages", "--repair", *folder) == 0
    assert desk.run("models", "packages", "--remove", "--json", *folder) == 0
    assert json.loads(desk.out)["bytes_freed"] == 5_000_000
    plan, install, remove = "PlanPackagesRequest", "InstallPackagesRequest", "RemovePackagesRequest"
    assert [client.requests for client in clients] == [[plan], [plan, install], [plan, install], [remove]]
    settings = {(client.settings.packages_folder, client.settings.wheels_folder) for client in clients}
    assert settings == {(tmp_path / "F S", tmp_path)}
    assert desk.run("models", "packages", "--install", "--remove") == 2
