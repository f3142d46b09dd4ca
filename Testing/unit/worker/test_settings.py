import json
import sys
from pathlib import Path

from FoundationSegLib.core.requests import MemoryBudget
from FoundationSegLib.worker.settings import WorkerSettings, worker_command


def test_settings_cross_as_json():
    for settings in (
        WorkerSettings(),
        WorkerSettings("cuda", Path("models") / "é", "official", False, MemoryBudget(1, 2, 3)),
    ):
        assert WorkerSettings.from_document(json.loads(json.dumps(settings.to_document()))) == settings


def test_the_worker_runs_with_the_python_that_is_wanted(monkeypatch):
    assert worker_command()[0] == sys.executable
    assert worker_command(Path("PythonSlicer"))[0] == "PythonSlicer"
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.setattr("shutil.which", {"PythonSlicer": "/bin/PythonSlicer"}.get)
    assert worker_command()[0] == "/bin/PythonSlicer"
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert worker_command()[0] == "PythonSlicer", "so that what cannot be started is named"
    assert worker_command()[-1] == "FoundationSegLib.worker.main"
