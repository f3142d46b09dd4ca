import getpass
from pathlib import Path

import pytest

from FoundationSegLib import __version__
from Testing.gui.model_rig import cells


@pytest.fixture
def show(rig):
    def make(python=""):
        from FoundationSegPanel.computer_dialogs import DiagnosisDialog
        from FoundationSegPanel.settings import Settings, write_settings

        rig.card()
        rig.light_torch()
        write_settings(Settings(worker_python=python))
        return rig.show(DiagnosisDialog(rig.open(), None))

    return make


def shown(dialog):
    return dict(cells(dialog.ui.factsTable, 2))


def test_it_tells_versions_devices_and_the_store(rig, show):
    dialog = show()
    assert not dialog.ui.copyButton.enabled and "Asking" in dialog.ui.messageLabel.text
    rig.wait(lambda: dialog.text)
    facts = shown(dialog)
    assert facts["FoundationSeg"] == __version__ and facts["Slicer"] == "5.12.3 (34000)"
    assert facts["torch"] and "threads" in facts["Device cpu"]
    assert "free" in facts["They take"] and facts["Offline mode"] == "off"


def test_the_copied_text_names_no_folder_and_no_person(rig, show, tmp_path, qt):
    dialog = show()
    rig.wait(lambda: dialog.text)
    rig.desk.click(dialog.ui.foldersCheckBox)
    assert shown(dialog)["Folder of the models"] == str(tmp_path / "rig" / "store")
    rig.desk.click(dialog.ui.copyButton)
    text = qt.QGuiApplication.clipboard().text()
    assert text == dialog.text and "FoundationSeg" in text
    for secret in (str(tmp_path), str(Path.home()), str(Path.cwd()), getpass.getuser()):
        assert secret not in text
    rig.desk.click(dialog.ui.foldersCheckBox)
    assert "Folder of the models" not in shown(dialog)


def test_a_python_that_is_missing_is_part_of_it(rig, show):
    dialog = show("/no/such/folder/python")
    rig.wait(lambda: dialog.text)
    assert "no answer (the Python 'python' cannot be started" in shown(dialog)["Python for the models"]
    assert "/no/such" not in dialog.text


def test_it_is_asked_again_on_request(rig, show):
    dialog = show()
    rig.wait(lambda: dialog.text)
    rig.patch.setenv("HF_HUB_OFFLINE", "1")
    rig.desk.click(dialog.ui.refreshButton)
    rig.wait(lambda: "nothing is downloaded" in shown(dialog)["Offline mode"])
