"""The README's scripts, as they are written there, with a fast model in the place of the worker's."""

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from FoundationSegLib.errors import Cancelled, InferenceError, UnknownModelError
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.prompts.kinds import BoxPrompt, PointPrompt
from FoundationSegLib.scripting import choose, open_session
from FoundationSegLib.session.segments import SegmentSession, next_segment
from FoundationSegLib.worker import process_client
from FoundationSegLib.worker.client import InlineClient
from Testing.unit.session.session_cases import FakeClient, mask_of, ras, small_volume

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
SCRIPTS = re.findall(r"```python\n(.*?)```", README[README.index("### Sessions") :], re.S)


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


class Silent(InlineClient):
    """A client that was closed: it answers nothing."""

    def submit(self, request):
        pass


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


def test_a_script_gets_the_error():
    volume = small_volume()
    session = open_session(volume, InlineClient(FakeEngine(InferenceError("no memory"))), choose("lite-medsam"))
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


def test_a_client_that_was_closed_ends_the_waiting():
    client = Silent(FakeEngine())
    session = open_session(small_volume(), client, choose("lite-medsam"))
    with pytest.raises(Cancelled, match="closed"):
        next_segment(session).add(PointPrompt(ras(3, 4, 5)))


def test_unknown_models_are_named():
    with pytest.raises(UnknownModelError):
        choose("no-such-model")


def test_oblique_volumes_are_ordinary():
    geometry = Geometry([[0, 0, 2.5, 1], [0, -0.7, 0, 2], [0.9, 0, 0, 3], [0, 0, 0, 1]], (8, 10, 12))
    volume = Volume(np.arange(960, dtype=np.int16).reshape(8, 10, 12), geometry)
    session = open_session(volume, InlineClient(FakeEngine()), choose("lite-medsam"))
    segment = next_segment(session)
    corners = tuple(tuple(geometry.to_ras(corner)) for corner in ((2, 3, 4), (5, 6, 4)))
    segment.add(BoxPrompt(corners))
    assert mask_of(segment)[4, 3:7, 2:6].all() and mask_of(segment).sum() == 16
