import pytest

from FoundationSegLib.commands import checkpoints
from FoundationSegLib.commands.checkpoints import announce_missing
from FoundationSegLib.engine import device
from FoundationSegLib.errors import CheckpointError, InputError, PackageMissingError
from FoundationSegLib.hub.store import STORE_VARIABLE
from Testing.unit.fakes import fake_card, fake_document, fill_store


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(checkpoints, "installed_version", lambda name: "1")
    return tmp_path


def test_what_is_there_is_not_announced(folder, capsys):
    fill_store(folder)
    announce_missing(fake_card(), "auto")
    assert capsys.readouterr() == ("", "")


def test_what_is_missing_is_announced(folder, capsys):
    announce_missing(fake_card(), "auto")
    assert capsys.readouterr().err.startswith("Downloading Fake Model")


def test_terms_come_before_the_announcement(folder, capsys):
    card = fake_card(license=fake_document()["license"] | {"must_accept": True})
    with pytest.raises(CheckpointError, match="a licence to accept"):
        announce_missing(card, "auto")
    assert capsys.readouterr().err == ""


def test_a_device_that_is_not_there_comes_before_the_announcement(folder, capsys, monkeypatch):
    def no_device(choice):
        raise InputError(f"the device {choice} is not available here")

    monkeypatch.setattr(device, "choose_device", no_device)
    with pytest.raises(InputError, match="cuda is not available"):
        announce_missing(fake_card(), "cuda")
    assert capsys.readouterr().err == ""


def test_packages_that_are_not_there_come_before_the_announcement(folder, capsys, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv(STORE_VARIABLE, str(folder))
    told = r"Fake Model needs packages that are not installed \(fakelib\); 'models download fake --with-packages'"
    with pytest.raises(PackageMissingError, match=told):
        announce_missing(fake_card(packages=["numpy", "fakelib"]), "auto")
    assert capsys.readouterr().err == ""
