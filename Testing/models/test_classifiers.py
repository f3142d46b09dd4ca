import contextlib
import sys
from dataclasses import replace

import numpy as np
import pytest

from FoundationSegLib.catalog.catalogue import has_adapter
from FoundationSegLib.catalog.label_sets import label_set_of, read_label_sets
from FoundationSegLib.catalog.resource_files import resource_folder
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import Cancelled
from FoundationSegLib.imaging.geometry import Geometry
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.installation.inspection import peak_memory_mb
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.classification import ClassifyRequest, EvidenceWish, Subject
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.requests.scoring import Scoring
from FoundationSegLib.worker.client import ask
from FoundationSegLib.worker.process_client import ProcessClient
from FoundationSegLib.worker.protocol import Failed, Progressed
from Testing.models import small_worker
from Testing.models.small_models import CATALOGUE, WRITERS, load_small, stock

CLASSIFIERS = [card.id for card in CATALOGUE.values() if card.task == "classify"]
# MedSigLIP's tokenizer is in a format that only its own packages write; test_classifier_families.py has one.
# Models of whole volumes have Testing/unit/engine/test_whole_volumes.py, those of certain labels test_specialists.py.
SMALL = [
    name
    for name in CLASSIFIERS
    if name != "medsiglip" and not CATALOGUE[name].sees_volumes and not CATALOGUE[name].label_set
]
SETS = read_label_sets(resource_folder("LabelSets"))


def image(shape=(3, 40, 30), modality="CT", seed=0):
    rng = np.random.default_rng(seed)
    voxels = np.cumsum(rng.normal(0, 30, shape), axis=2).astype(np.int16)
    matrix = np.array([[0, -1.1, 0, 5], [0.9, 0, 0.2, 3], [0, 0, 2.5, 1], [0, 0, 0, 1]])
    return Volume(voxels, Geometry(matrix, shape), modality)


def pytest_generate_tests(metafunc):
    if "engine" in metafunc.fixturenames:
        families = {CATALOGUE[model_id].family: model_id for model_id in reversed(SMALL)}
        subjects = SMALL if metafunc.config.getoption("--full") else sorted(families.values())
        metafunc.parametrize("engine", subjects, indirect=True, scope="module")


@pytest.fixture(scope="module")
def engine(request, tmp_path_factory):
    card, store = stock(CATALOGUE[request.param], tmp_path_factory.mktemp(request.param))
    return Engine({card.id: card}, store, "cpu", load_model=load_small)


def classify(engine, volume, labels, **fields):
    (model_id,) = engine.catalogue
    if volume.key not in engine.volumes:
        engine.add_volume(volume)
    return engine.classify(ClassifyRequest(1, model_id, volume.key, labels, any_domain=True, **fields), Progress())


def test_every_card_to_classify_with_can_be_run():
    assert len(CLASSIFIERS) >= 5 and all(has_adapter(CATALOGUE[model_id]) for model_id in CLASSIFIERS)
    missing = {CATALOGUE[model_id].family for model_id in CLASSIFIERS} - WRITERS.keys()
    assert not missing, f"add {missing} to WRITERS in Testing/models/small_models.py; see CONTRIBUTING.md"


def test_a_card_gives_an_answer_that_can_be_repeated(engine):
    volume, findings = image(), SETS["chest-xray-findings"]
    found = classify(engine, volume, findings)
    (card,) = engine.catalogue.values()
    assert found.rule == ("sigmoid" if card.family == "siglip" else "pairs")
    assert np.isfinite(found.curves).all() and len(found.scores) == len(findings.labels)
    assert found.checkpoint.model_id == card.id and found.checkpoint.sha256 == card.source.files[0].sha256
    encoded = found.counts["images"]
    again = classify(engine, volume, findings, evidence=EvidenceWish(slices=2))
    assert [one.score for one in again.scores] == [one.score for one in found.scores]
    assert encoded == 9 and again.counts["images"] == 2 * 3, "the evidence alone"
    assert again.evidence[0].values.std() > 0
    exclusive = classify(engine, volume, SETS["modality"], subject=Subject("j", 10, 11))
    assert sum(one.score for one in exclusive.scores) == pytest.approx(1)
    concepts = classify(engine, volume, SETS["ct-abdomen-organs"], scoring=Scoring("concepts"))
    assert len({one.similarity for one in concepts.concepts}) > 10


def test_a_volume_permuted_and_flipped_in_memory_is_classified_alike(engine):
    volume, labels = image((2, 16, 16)), label_set_of(["a liver", "a kidney", "nothing"])
    stored = np.ascontiguousarray(np.transpose(volume.array_kji, (2, 0, 1))[:, ::-1])
    matrix = volume.geometry.ijk_to_ras @ np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 0, 1.0]])
    other = Volume(stored, Geometry(matrix, stored.shape), "CT")
    one = classify(engine, volume, labels, subject=Subject("k"))
    two = classify(engine, other, labels, subject=Subject("j"))
    assert np.allclose(one.curves, two.curves[::-1], atol=1e-5)


def test_colour_pictures_are_taken(engine):
    voxels = np.random.default_rng(0).integers(0, 256, (1, 50, 70, 3)).astype(np.uint8)
    found = classify(engine, Volume(voxels, Geometry(np.eye(4), (1, 50, 70))), SETS["endoscopy-views"])
    assert found.looks[0]["name"] == "colour" and found.slices == (0,)


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    card, store = stock(CATALOGUE["clip-vit-base-patch32"], tmp_path_factory.mktemp("worker"))
    settings = WorkerSettings("cpu", store.folder, encode_ahead=False)
    with contextlib.closing(ProcessClient(settings, small_worker.command(card.id))) as client:
        yield client


def asked(volume, labels, number=1, **fields):
    return ClassifyRequest(number, "clip-vit-base-patch32", volume.key, labels, **fields)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of another process is known on Linux alone")
@pytest.mark.usefixtures("only_in_the_full_run")
def test_many_slices_in_a_worker_take_no_more_memory_than_few(worker, bar):
    count = 300
    volume, labels = image((count, 64, 64), "MR"), SETS["modality"]
    worker.send_volume(volume)
    ask(worker, asked(volume, labels, subject=Subject(stop=16)))
    few = peak_memory_mb(worker.worker_pid)
    reports = []
    found = ask(worker, asked(volume, labels, 2), reports.append)
    assert found.counts["images"] == count - 16 and len(found.slices) == count
    assert [report.done for report in reports if report.stage == "classify"][-1] == count - 16
    more = peak_memory_mb(worker.worker_pid) - few
    bar(f"{count} slices classified, memory beyond that of the first 16, MB", more, "< 20")
    assert more < 20
    again = ask(worker, asked(volume, label_set_of([f"label {n}" for n in range(100)]), 3))
    assert again.counts == {"images": 0, "image_batches": 0, "texts": 100, "text_batches": 1}


def test_a_cancelled_volume_goes_on_where_it_was(worker):
    volume, labels = image((200, 64, 64), "MR", 1), label_set_of(["bone", "air"])
    worker.send_volume(volume)
    worker.submit(asked(volume, labels))
    done = 0
    while not done:
        worker.wait(0.1)
        reports = [event.report for event in worker.poll() if isinstance(event, Progressed)]
        done = max((report.done for report in reports if report.stage == "classify"), default=0)
    worker.cancel(1)
    events = []
    while not events:
        worker.wait(0.1)
        events = [event for event in worker.poll() if isinstance(event, Failed)]
    assert isinstance(events[0].error, Cancelled)
    found = ask(worker, replace(asked(volume, labels), request_id=2))
    assert 0 < found.counts["images"] < 200 and np.isfinite(found.curves).all()
