import contextlib
import json
from functools import partial

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("monai", reason="the package monai is absent")

from FoundationSegLib.catalog.catalogue import CARDS_VARIABLE
from FoundationSegLib.commands.cli import main
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import PromptError
from FoundationSegLib.hub.store import STORE_VARIABLE
from FoundationSegLib.io.segmentations import read_mask_prompt
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import ClassPrompt, PointPrompt, Polarity, SegmentPrompts, TextPrompt
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.requests.segmentation import PredictRequest
from FoundationSegLib.session.segment_store import ArrayStore, Options, Refused
from FoundationSegLib.session.segments import SegmentSession, add_named
from FoundationSegLib.session.session import Session
from FoundationSegLib.session.steps import ModelChoice
from FoundationSegLib.worker.client import InlineClient, ask, finish
from FoundationSegLib.worker.process_client import ProcessClient
from Testing.models.small_models import CATALOGUE, load_small, stock, write_card
from Testing.models.stored_volumes import noise

pytestmark = [pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def stocked(tmp_path_factory):
    return stock(CATALOGUE["vista3d"], tmp_path_factory.mktemp("vista3d"))


@pytest.fixture(scope="module")
def engine(stocked):
    card, store = stocked
    return Engine({card.id: card}, store, "cpu", load_model=load_small)


VOLUME = noise("LPS", (16, 22, 24))


def predicted(engine, *segments):
    engine.add_volume(VOLUME)
    return engine.predict(PredictRequest(1, "vista3d", VOLUME.key, segments), Progress())


def alone(engine, *prompts):
    return predicted(engine, SegmentPrompts("A", prompts)).segments[0].mask


def new_session(engine, card):
    """A session that waits, and what it told."""
    client, told = InlineClient(engine), []
    options = Options(ModelChoice.of(card), ask_above=None)
    return Session(
        VOLUME, ArrayStore(VOLUME.geometry), client, options, told.append, partial(finish, client=client)
    ), told


def program(engine, card, store, folder, monkeypatch):
    """The command line, for which the small checkpoint is the model of that name."""
    cards = folder / "cards"
    cards.mkdir()
    write_card(card, cards)
    monkeypatch.setenv(CARDS_VARIABLE, str(cards))
    monkeypatch.setenv(STORE_VARIABLE, str(store.folder))
    return lambda *arguments: main(arguments, lambda settings: InlineClient(engine))


def masks(session):
    return {session.segment_name(key): session.read(key) for key in session.segment_ids}


def test_the_engine_asks_all_classes_at_once_and_texts_as_classes(engine):
    asked = [SegmentPrompts(name, (ClassPrompt(name),)) for name in ("liver", "spleen")]
    asked.append(SegmentPrompts("K", (TextPrompt("Kidneys"),)))
    found = predicted(engine, *asked)
    assert found.counts["decodes"] == 1
    assert found.checkpoint.model_id == "vista3d"
    assert found.intensity["policy"] == "auto"
    assert [one.score for one in found.segments] == [None] * 3
    assert any("became the class 'kidney'" in note for note in found.notes)
    assert any(note.startswith("segments[0]: looked at as") for note in found.notes)
    shape = VOLUME.geometry.shape_kji
    assert np.sum([one.mask.expand(shape) for one in found.segments], axis=0).max() == 1


def test_a_session_makes_a_segment_for_each_class_and_changes_it_by_words_and_clicks(engine, stocked):
    pytest.importorskip("skimage", reason="MONAI finds connected parts by the package scikit-image, which is absent")
    card, _ = stocked
    session, told = new_session(engine, card)
    add_named(session, card, ["spleen", "right kidney"])
    both = predicted(engine, *(SegmentPrompts(n, (ClassPrompt(n),)) for n in ("spleen", "right kidney")))
    shape = VOLUME.geometry.shape_kji
    assert list(masks(session)) == ["spleen", "right kidney"]
    for mask, wanted in zip(masks(session).values(), both.segments, strict=True):
        assert np.array_equal(mask, wanted.mask.expand(shape))
    spleen = SegmentSession(session, session.segment_ids[0])
    click = PointPrompt(tuple(VOLUME.geometry.to_ras((12, 10, 13))), Polarity.NEGATIVE)
    (key,) = spleen.add(click)
    corrected = alone(engine, ClassPrompt("spleen"), click).expand(shape) & ~masks(session)["right kidney"]
    assert np.array_equal(masks(session)["spleen"], corrected)
    spleen.remove(key)
    spleen.move("1", ClassPrompt("3"))
    again = alone(engine, ClassPrompt("spleen")).expand(shape) & ~masks(session)["right kidney"]
    assert np.array_equal(masks(session)["spleen"], again)
    assert not any(isinstance(one, Refused) for one in told)


def test_what_waits_at_the_same_time_does_not_change_what_a_class_is(engine, stocked):
    """Classes that are asked together share no voxel, so that only one action's are."""
    card, _ = stocked

    class Later(InlineClient):
        requests = ()

        def submit(self, request):
            self.requests = (*self.requests, request)
            super().submit(request)

    client = Later(engine)
    session = Session(VOLUME, ArrayStore(VOLUME.geometry), client, Options(ModelChoice.of(card)))
    for name in ("liver", "spleen", "right kidney"):
        add_named(session, card, [name])
    finish(session, client)
    assert [len(request.segments) for request in client.requests] == [1, 1, 1]


def test_a_worker_of_its_own_gives_the_same_voxels(stocked, full):
    """In windows of 128 voxels, as always: with a network this narrow that takes seconds each."""
    if not full:
        pytest.skip("in windows of the true size only in the full run")
    card, store = stocked
    segments = tuple(SegmentPrompts(name, (ClassPrompt(name),)) for name in ("liver", "spleen"))
    request = PredictRequest(1, card.id, VOLUME.key, segments)
    whole = Engine({card.id: card}, store, "cpu")
    whole.add_volume(VOLUME)
    wanted = whole.predict(request, Progress())
    with contextlib.closing(ProcessClient(WorkerSettings("cpu", store.folder))) as client:
        client.send_volume(VOLUME)
        found = ask(client, request, lambda _: None)
    assert found.segments == wanted.segments
    assert any(one.mask.voxels for one in found.segments)


def test_the_command_line_writes_classes_with_slicers_terms(engine, stocked, tmp_path, monkeypatch, capsys):
    pytest.importorskip("slicer", reason="slicer-core is absent")
    card, store = stocked
    image = sitk.GetImageFromArray(VOLUME.array_kji)
    image.SetSpacing((0.9, 1.1, 2.0))
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    run, report = program(engine, card, store, tmp_path, monkeypatch), tmp_path / "report.json"
    out = tmp_path / "out.seg.nrrd"
    asked = ("--model", "vista3d", "--classes", "everything", "--report", str(report), "--output", str(out))
    assert run("segment", str(tmp_path / "ct.nrrd"), *asked) == 0, capsys.readouterr().err
    told = json.loads(report.read_text())
    names = [one["name"] for one in told["segments"]]
    assert 5 < len(names) < 117
    whole = sum(read_mask_prompt(out, name)[0].astype(int) for name in names)
    assert whole.max() == 1
    header = sitk.ReadImage(str(out))
    terms = {header.GetMetaData(f"Segment{n}_Name"): header.GetMetaData(f"Segment{n}_Tags") for n in range(len(names))}
    sided = next(name for name in names if name.startswith("left "))
    assert "Left" in terms[sided]


@pytest.fixture(scope="module")
def saying(tmp_path_factory):
    """An engine with the small VoxTell, and its card."""
    pytest.importorskip("voxtell", reason="the package voxtell is absent")
    card, store = stock(CATALOGUE["voxtell"], tmp_path_factory.mktemp("voxtell"))
    return Engine({card.id: card}, store, "cpu", load_model=load_small), card, store


def test_texts_and_names_of_classes_make_and_change_segments(saying):
    engine, card, _ = saying
    session, _ = new_session(engine, card)
    ids = add_named(session, card, ["left kidney"], ["Spleen", "tumor in the left lung"])
    found = masks(session)
    assert list(found) == ["left kidney", "Spleen", "tumor in the left lung"]
    engine.add_volume(VOLUME)
    for n, text in enumerate(("left kidney", "spleen", "tumor in the left lung")):
        asked = PredictRequest(9, card.id, VOLUME.key, (SegmentPrompts("A", (TextPrompt(text),)),))
        alone = engine.predict(asked, Progress())
        rest = np.any([found[name] for name in list(found)[:n]], axis=0) if n else False
        assert alone.counts["encodes"] == 0, "the image is viewed already"
        assert np.array_equal(found[list(found)[n]], alone.segments[0].mask.expand(VOLUME.geometry.shape_kji) & ~rest)
    with pytest.raises(PromptError, match="'a livr' is none of them"):
        SegmentSession(session, ids[1]).add(TextPrompt("a livr"))
    before = masks(session)["Spleen"].sum()
    SegmentSession(session, ids[1]).add(TextPrompt("liver"))
    assert masks(session)["Spleen"].sum() > before
    assert session.undo(ids[1])
    assert masks(session)["Spleen"].sum() == before


def test_the_command_line_writes_a_segment_for_each_text(saying, tmp_path, monkeypatch, capsys):
    pytest.importorskip("slicer", reason="slicer-core is absent")
    engine, card, store = saying
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME.array_kji), str(tmp_path / "ct.nrrd"))
    run, report = program(engine, card, store, tmp_path, monkeypatch), tmp_path / "report.json"
    out = tmp_path / "out.seg.nrrd"
    said = ("--text", "Liver", "--text", "tumor in the left lung", "--report", str(report), "--output", str(out))
    image = ("segment", str(tmp_path / "ct.nrrd"), "--model", "voxtell")
    assert run(*image, *said) == 0, capsys.readouterr().err
    told = json.loads(report.read_text())
    assert [one["name"] for one in told["segments"]] == ["Liver", "tumor in the left lung"]
    assert all(one["voxels"] for one in told["segments"])
    assert told["prompts"]["segments"][1]["prompts"] == [{"type": "text", "text": "tumor in the left lung"}]
    assert run(*image, "--text", "x", "--output", str(out)) == 2
    assert "'x' is none of them" in capsys.readouterr().err
