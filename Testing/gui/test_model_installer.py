"""What the panel and its dialogs know of models: one piece of work at a time, everybody told, nothing left behind."""

import sys
from dataclasses import replace

import pytest

from FoundationSegLib.errors import Cancelled, InputError
from FoundationSegLib.installation.inspection import PythonReport
from Testing.gui.model_rig import NEEDS_NOTHING
from Testing.unit.worker.conftest import has_ended


class Ends:
    """Who is told, and remembers."""

    def __init__(self):
        from FoundationSegPanel.model_installer import Callbacks

        self.results, self.errors, self.reports = [], [], []
        self.callbacks = Callbacks(self.results.append, self.errors.append, self.reports.append)


@pytest.fixture
def models(rig):
    rig.card(NEEDS_NOTHING)
    made = rig.open()
    made.seen = []
    made.observe(lambda: made.seen.append(made.task))
    return made


def test_nothing_is_asked_before_somebody_wants_it(models):
    assert models.python is None and models.readiness("far").requirement("weights")
    models.refresh()
    assert isinstance(models.python, PythonReport) and models.seen == [""]


def test_devices_once_found_are_remembered(models, rig):
    rig.light_torch()
    models.refresh(devices=True)
    assert models.python is None, "that takes a process"
    rig.wait(lambda: models.python)
    found = models.python.devices
    assert found.devices[-1].kind == "cpu"
    models.refresh()
    assert models.python.devices is found


def test_a_download_is_told_from_its_beginning_to_its_end(models, rig):
    ends = Ends()
    models.download("far", ends.callbacks)
    assert models.task == "download"
    rig.wait(lambda: ends.results)
    assert models.seen == ["download", ""] and {report.stage for report in ends.reports} >= {"download"}
    assert models.readiness("far").requirement("weights") is None


def test_one_thing_takes_the_place_of_another(models, rig):
    rig.hub.slow_s = 0.05
    first, second, third = Ends(), Ends(), Ends()
    models.download("far", first.callbacks)
    models.plan_packages(["foundationseg_sample"], second.callbacks)
    assert isinstance(first.errors[0], Cancelled)
    models.download("far", third.callbacks)
    assert isinstance(second.errors[0], Cancelled)
    rig.hub.slow_s = 0
    rig.wait(lambda: third.results)
    assert not first.results and not second.results


def test_a_stopped_installation_is_told_once(models, rig):
    rig.pip("hangs")
    ends = Ends()
    models.install_packages(["foundationseg_sample"], ends.callbacks)
    rig.wait(lambda: ends.reports)
    models.cancel()
    models.cancel()
    rig.wait(lambda: ends.errors)
    assert [type(error) for error in ends.errors] == [Cancelled]
    models.cancel()


def test_packages_go_into_the_chosen_python_and_checkpoints_do_not_need_it(models, rig, tmp_path):
    models.settings = replace(models.settings, worker_python=str(tmp_path / "gone"))
    ends = Ends()
    models.install_packages(["x"], ends.callbacks)
    rig.wait(lambda: ends.errors)
    assert isinstance(ends.errors[0], InputError) and "'gone' cannot be started" in str(ends.errors[0])
    assert models.task == ""
    models.remove_checkpoints(["far"], ends.callbacks)
    rig.wait(lambda: ends.results)


def test_other_settings_end_the_workers_and_are_told(models, rig):
    ends = Ends()
    rig.hub.slow_s = 0.05
    models.download("far", ends.callbacks)
    rig.wait(lambda: ends.reports)
    pid = models.worker_pids[0]
    models.change_settings(models.settings)
    assert rig.stopped == 0, "nothing has changed"
    models.change_settings(replace(models.settings, device="cpu"))
    assert rig.stopped == 1 and isinstance(ends.errors[0], Cancelled)
    rig.wait(lambda: has_ended(pid))
    models.change_settings(replace(models.settings, worker_python="/no/such/python"))
    rig.wait(lambda: models.problem)
    assert models.python is None and "cannot be started" in str(models.problem)
    models.change_settings(replace(models.settings, worker_python=sys.executable))
    rig.wait(lambda: models.python)
    assert models.problem is None


def test_closing_ends_everything_and_tells_nobody(models, rig):
    rig.pip("hangs")
    ends = Ends()
    models.plan_packages(["foundationseg_sample"], ends.callbacks)
    pid = models.worker_pids[0]
    models.refresh(devices=True)
    inspecting = models.worker_pids[1]
    models.close()
    rig.wait(lambda: has_ended(pid) and has_ended(inspecting))
    assert not ends.results and not ends.errors


def test_an_observer_that_leaves_is_not_told(models):
    told = []
    models.observe(told.append)
    models.forget(told.append)
    models.forget(told.append)
    models.notify()
    assert told == []


def test_readiness_is_quick(models, bar):
    import time

    models.refresh()
    models.readiness("far")
    start = time.perf_counter()
    for _ in range(20):
        models.readiness("far")
    bar("readiness of one model, ms", 1000 * (time.perf_counter() - start) / 20, "< 10")
