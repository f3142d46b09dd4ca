"""The first run, driven by its buttons: real workers; pip, the PyTorch extension and the Hub are local."""

import os
import signal
import sys
from dataclasses import replace

import pytest
import slicer

from FoundationSegLib.folders import PACKAGES_VARIABLE
from FoundationSegLib.hub.store import Store
from FoundationSegLib.installation.private_environment import PrivateFolder
from Testing.gui.model_rig import FILES, MUST_ACCEPT, NEEDS_NOTHING, NEEDS_SAMPLE, NEEDS_TORCH, PANEL, cells
from Testing.slicer_standin.dialogs import press
from Testing.unit.hub.hub_cases import content_of
from Testing.unit.worker.conftest import has_ended

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals between processes")


@pytest.fixture
def show(rig):
    """The dialog for the card ``far``, with some words replaced."""

    def make(*replacements):
        from FoundationSegPanel.setup_dialog import SetupDialog

        rig.card(*replacements)
        rig.ready = []
        return rig.show(SetupDialog(rig.open(), "far", lambda: rig.ready.append(1)))

    return make


def needed(first):
    return cells(first.ui.neededTable, 3)


def idle(first):
    return not first.setup.is_working


def message(first):
    return first.ui.messageLabel.text


def test_it_says_what_comes_how_large_from_where_and_to_where(rig, show, tmp_path):
    first = show(NEEDS_SAMPLE)
    assert needed(first) == [
        ("foundationseg_sample", "small", "the Python Package Index"),
        ("Fake Model, the model itself", "2 MB", "the Hugging Face Hub"),
    ]
    assert str(tmp_path / "rig" / "store") in first.ui.placesLabel.text
    assert "Slicer's own Python" in first.ui.placesLabel.text and rig.hub.requests == []
    assert not (tmp_path / "rig" / "store").exists(), "nothing happens before a click"


def test_packages_and_the_model_come_after_one_click(rig, show, tmp_path):
    first = show(NEEDS_SAMPLE)
    rig.desk.click(first.ui.installButton)
    assert not first.ui.installButton.enabled
    assert rig.stopped == 1, "packages are not installed under a running worker"
    rig.wait(lambda: rig.ready)
    assert content_of(Store(tmp_path / "rig" / "store"), first._card) == FILES and needed(first) == []
    assert "Everything that Fake Model needs is here" in message(first) and first.ui.closeButton.text == "Close"
    assert "Collecting foundationseg_sample" in first.ui.logEdit.plainText


def test_the_model_can_be_left_for_later(rig, show, tmp_path):
    first = show(NEEDS_SAMPLE)
    first.ui.weightsCheckBox.checked = False
    assert len(needed(first)) == 1
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: rig.ready)
    assert not (tmp_path / "rig" / "store").exists()


def test_pip_is_asked_for_sizes_only_on_request(rig, show):
    first = show(NEEDS_SAMPLE)
    rig.desk.click(first.ui.sizesButton)
    rig.wait(lambda: idle(first))
    assert needed(first)[0][0] == "foundationseg_sample 1.5"
    assert "does not say" in message(first), "a file of nowhere has no size"
    assert first.ui.installButton.enabled


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("fails", "No space left on device"),
        ("forgets", "still missing: foundationseg_sample>=1"),
        ("brings torch", "PyTorch"),
    ],
)
def test_where_pip_fails_it_can_go_on_later(rig, show, mode, reason):
    first = show(NEEDS_SAMPLE)
    rig.pip(mode)
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: idle(first))
    assert reason in message(first) and first.ui.installButton.text == "Continue"
    rig.pip("works")
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: rig.ready)


def test_a_pip_that_hangs_is_stopped(rig, show):
    first = show(NEEDS_SAMPLE)
    rig.pip("hangs")
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: "Collecting" in first.ui.logEdit.plainText)
    pid = first._installer.worker_pids[0]
    rig.desk.click(first.ui.stopButton)
    rig.wait(lambda: idle(first), 4)
    assert "Stopped" in message(first) and has_ended(pid)


def test_closing_the_window_stops_what_is_under_way(rig, show):
    first = show(NEEDS_SAMPLE)
    rig.pip("hangs")
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: "Collecting" in first.ui.logEdit.plainText)
    pid = first._installer.worker_pids[0]
    rig.desk.click(first.ui.closeButton)
    rig.wait(lambda: not first._installer.task, 4)
    assert has_ended(pid)
    first.show()
    assert idle(first) and first.ui.installButton.enabled


def test_another_extension_installs_at_the_moment(rig, show):
    first = show(NEEDS_SAMPLE)
    rig.patch.setattr(slicer.packaging, "isPipInstallInProgress", lambda: True)
    rig.desk.click(first.ui.installButton)
    assert "another extension" in message(first)


def test_pytorch_comes_from_its_extension_and_the_rest_from_pip(rig, show):
    rig.extension()
    first = show(NEEDS_TORCH)
    assert needed(first)[0] == ("PyTorch", "0.2 GB (NVIDIA: up to 3.5 GB)", "the PyTorch extension")
    assert "Slicer does not react" in first.ui.placesLabel.text
    rig.desk.click(first.ui.installButton)
    assert "Slicer does not react" in message(first), "said before Slicer stands still"
    rig.wait(lambda: rig.ready)
    import PyTorchUtils

    assert PyTorchUtils.PyTorchUtilsLogic.asked == [(False, ">=99")]


def test_pytorch_that_cannot_be_installed_is_told_and_tried_again(rig, show):
    rig.extension()
    first = show(NEEDS_TORCH)
    (rig.site / "no network").touch()
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: idle(first))
    assert "PyTorch could not be installed" in message(first)
    (rig.site / "no network").unlink()
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: rig.ready)


def test_without_the_extension_the_way_to_it_is_shown(rig, show):
    first = show(NEEDS_TORCH)
    assert "extension 'PyTorch', which is not installed" in message(first) and not first.ui.installButton.enabled
    rig.desk.click(first.ui.extensionsButton)
    assert rig.desk.opened_modules == ["ExtensionsManager"]


def test_terms_are_shown_before_a_download_and_can_be_declined(rig, show, tmp_path):
    first = show(MUST_ACCEPT, NEEDS_NOTHING)
    rig.desk.click(first.ui.installButton)
    ui = first.license.ui
    assert first.license.dialog.visible and "Commercial use: no" in ui.termsBrowser.toPlainText()
    rig.desk.click(ui.declineButton)
    assert "was not accepted" in message(first) and rig.hub.requests == []
    rig.desk.click(first.ui.installButton)
    assert not ui.acceptButton.enabled, "the terms have to be read first"
    rig.desk.click(ui.agreeCheckBox)
    rig.desk.click(ui.acceptButton)
    rig.wait(lambda: rig.ready)
    assert content_of(Store(tmp_path / "rig" / "store"), first._card) == FILES


def test_a_download_that_is_stopped_goes_on_where_it_was(rig, show):
    first = show(NEEDS_NOTHING)
    rig.hub.slow_s = 0.05
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: first.ui.progressBar.maximum == 1000 and first.ui.progressBar.value > 200)
    rig.desk.click(first.ui.stopButton)
    rig.wait(lambda: idle(first))
    assert "Stopped" in message(first)
    rig.hub.slow_s = 0
    rig.hub.start_count()
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: rig.ready)
    assert rig.hub.sent < 0.9 * sum(map(len, FILES.values()))


@on_posix
def test_a_worker_that_is_killed_meanwhile_is_replaced(rig, show):
    first = show(NEEDS_NOTHING)
    rig.hub.slow_s = 0.05
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: first.ui.progressBar.maximum == 1000 and first.ui.progressBar.value > 200)
    os.kill(first._installer.worker_pids[0], signal.SIGKILL)
    rig.hub.slow_s = 0
    rig.wait(lambda: rig.ready)


def test_a_full_disk_is_told_and_the_download_goes_on_when_there_is_room(rig, show):
    first = show(NEEDS_NOTHING)
    rig.full_disk.touch()
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: idle(first))
    assert "No space left" in message(first)
    rig.full_disk.unlink()
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: rig.ready)


def test_no_network_is_told(rig, show):
    rig.patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    first = show(NEEDS_NOTHING)
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: idle(first))
    assert "check the network" in message(first) and first.ui.installButton.enabled


def test_the_users_offline_mode_is_kept(rig, show):
    rig.patch.setenv("HF_HUB_OFFLINE", "1")
    first = show(NEEDS_NOTHING)
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: idle(first))
    assert "offline mode is on" in message(first) and rig.hub.requests == []


def use(rig, first, path):
    first.ui.pythonPathEdit.currentPath = str(path)
    rig.desk.click(first.ui.usePythonButton)


def test_another_python_is_asked_in_its_own_process_and_remembered(rig, show, tmp_path):
    from FoundationSegPanel.settings import read_settings

    program = tmp_path / "environment" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    first = show(NEEDS_NOTHING)
    rig.desk.click(first.ui.otherPythonButton)
    assert "press Use" in message(first)
    assert not first.ui.installButton.enabled, "into which of the two?"
    use(rig, first, "/no/such/python")
    assert "no such program" in message(first) and read_settings().is_own_python
    use(rig, first, sys.executable)
    rig.wait(lambda: first._installer.python is not None)
    assert read_settings().worker_python == sys.executable and first.ui.installButton.enabled and message(first) == ""
    use(rig, first, tmp_path / "environment")
    assert read_settings().worker_python == str(program), "an environment is named by its folder, too"
    rig.desk.click(first.ui.ownPythonButton)
    assert read_settings().is_own_python and first.ui.installButton.enabled and not first.ui.usePythonButton.enabled


def test_private_packages_are_installed_repaired_and_removed(rig, show, tmp_path):
    from FoundationSegPanel.settings import Settings, read_settings

    rig.patch.setenv(PACKAGES_VARIABLE, str(tmp_path / "FSeg"))
    first = show(NEEDS_TORCH)
    ui, before = first.ui, sorted(rig.site.rglob("*"))
    assert not ui.privateCheckBox.checked, "Slicer's Python has PyTorch already, and goes on with it"
    ui.weightsCheckBox.checked = False
    rig.desk.click(ui.privateCheckBox)
    assert needed(first)[0] == ("PyTorch", "0.2 GB (NVIDIA: up to 3.5 GB)", "PyTorch's own index")
    text = ui.placesLabel.text
    assert f"go into {tmp_path / 'FSeg'}," in text and "stay as they are" in text and "min at 50 Mbit/s" in text
    assert not ui.repairButton.enabled and not (tmp_path / "FSeg").exists() and ui.installButton.enabled
    rig.desk.click(ui.installButton)
    rig.wait(lambda: idle(first), 120)
    assert rig.ready, message(first)
    folder = PrivateFolder(tmp_path / "FSeg")
    assert {"torch", "numpy", "foundationseg-sample", "packaging"} <= set(folder.versions())
    assert sorted(rig.site.rglob("*")) == before and str(folder.packages) not in sys.path
    assert replace(read_settings(), packages_in="").packages_root == tmp_path / "FSeg", "from now on it is the usual"
    assert Settings(worker_python="/usr/bin/python3").packages_root is None, "another Python has its own"
    (folder.packages / "torch-99.5.dist-info" / "METADATA").unlink()
    rig.desk.click(ui.repairButton)
    rig.wait(lambda: idle(first) and not first._installer.task, 60)
    assert message(first) == "The private packages are whole." and folder.versions()["torch"] == "99.5"
    rig.desk.answer_dialogs(press("Ok", containing="Models stay"))
    rig.desk.click(ui.removeButton)
    rig.wait(lambda: idle(first) and not first._installer.task, 60)
    assert "were removed" in message(first) and folder.versions() == {} and ui.installButton.enabled


def test_on_a_mac_a_native_python_is_asked_for_before_anything_is_installed(rig, show):
    first = show(NEEDS_SAMPLE)
    first._installer.python = replace(first._installer.python, system="macOS 15.1 (x86_64)")
    first._installer.notify()
    assert "native (arm64) Python" in message(first) and not first.ui.installButton.enabled
    first._installer.python = replace(first._installer.python, system="macOS 15.1 (arm64)")
    first._installer.notify()
    assert message(first) == "" and first.ui.installButton.enabled


def test_nothing_is_started_while_somebody_types(rig, show, tmp_path):
    first = show(NEEDS_NOTHING)
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    rig.desk.click(first.ui.otherPythonButton)
    first.ui.pythonPathEdit.currentPath = str(program)
    rig.desk.process_events()
    assert first._installer.settings.is_own_python and not (tmp_path / "started").exists()


def test_a_program_that_is_no_python_is_told(rig, show, tmp_path):
    first = show(NEEDS_NOTHING)
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    rig.desk.click(first.ui.otherPythonButton)
    use(rig, first, program)
    rig.wait(lambda: first._installer.problem is not None)
    assert "ended with code 3" in message(first) and not first.ui.installButton.enabled


def test_the_event_loop_goes_on_meanwhile(rig, show, bar):
    """What it takes at most between two rounds of events; noted, since other processes may be at work."""
    import time

    first, longest = show(NEEDS_SAMPLE), 0.0
    rig.desk.click(first.ui.installButton)
    last = time.monotonic()
    while not rig.ready:
        rig.desk.process_events()
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        time.sleep(0.002)
    bar("event loop blocked while a model is set up, ms", 1000 * longest, "< 100")
    assert longest < 1


def test_a_defect_is_told_and_does_not_leave_the_dialog_stuck(rig, show):
    rig.extension()
    (rig.site / "defect").touch()
    first = show(NEEDS_TORCH)
    rig.desk.click(first.ui.installButton)
    rig.wait(lambda: idle(first))
    assert "a defect of FoundationSeg: ZeroDivisionError: nobody thought of it" in message(first)
    assert first.ui.installButton.enabled


def test_nothing_of_slicer_is_used_before_it_is_imported():
    """In Slicer, ``slicer.packaging`` is there once somebody has imported it; the stand-in has it from the start."""
    for path in PANEL.rglob("*.py"):
        assert "slicer.packaging." not in path.read_text(encoding="utf-8"), path.name
