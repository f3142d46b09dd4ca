import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from FoundationSegLib.requests.maintenance import MemoryBudget


@pytest.fixture
def settings(rig):
    from FoundationSegPanel import settings

    return settings


def test_settings_are_kept_and_usual_ones_are_not_written(settings):
    import qt

    usual = settings.Settings()
    assert settings.read_settings() == usual
    chosen = settings.Settings("/opt/python", "cuda", 4096, "/data/models", False)
    settings.write_settings(chosen)
    assert settings.read_settings() == chosen and qt.QSettings().contains("FoundationSeg/workerPython")
    settings.write_settings(usual)
    assert settings.read_settings() == usual and not qt.QSettings().contains("FoundationSeg/workerPython")


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("device", "quantum", "device", "auto"),
        ("memoryMb", "much", "memory_mb", MemoryBudget().total >> 20),
        ("memoryMb", "12", "memory_mb", 1024),
        ("memoryMb", "4096", "memory_mb", 4096),
        ("encodeAhead", "false", "encode_ahead", False),
        ("encodeAhead", "", "encode_ahead", False),
        ("encodeAhead", "true", "encode_ahead", True),
    ],
)
def test_what_somebody_has_spoilt_counts_as_not_set(settings, key, value, field, expected):
    import qt

    qt.QSettings().setValue(f"FoundationSeg/{key}", value)
    assert getattr(settings.read_settings(), field) == expected


def test_the_worker_is_told_what_was_chosen(settings, tmp_path):
    chosen = settings.Settings("", "cpu", 2048, str(tmp_path), False)
    sent = settings.installation(chosen).settings
    assert (sent.device, sent.store_folder, sent.encode_ahead) == ("cpu", tmp_path, False)
    assert sent.budget == MemoryBudget.within(2048 << 20)
    usual = settings.installation(replace(chosen, store_folder="")).settings.store_folder
    assert usual == Path(os.environ["FOUNDATIONSEG_STORE"]), "another Python may have another usual folder"


def test_slicers_python_gets_slicers_environment_and_another_does_not(settings, rig):
    rig.patch.setenv("PYTHONHOME", "/slicer")
    rig.patch.setenv("OF_THE_USER", "yes")
    own = settings.installation(settings.Settings()).open_client()
    assert own.command[0] == sys.executable and own.inherited is None
    other = settings.installation(settings.Settings("/opt/python")).open_client()
    assert other.command[0] == "/opt/python" and other.inherited["OF_THE_USER"] == "yes"
    assert "PYTHONHOME" not in other.inherited and "PYTHONPATH" not in other.inherited
