"""`evaluate` with a model made of a threshold: the table, the report, and what can go wrong."""

import io
import json
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from FoundationSegLib.commands.evaluate import FEWEST_VOXELS, choose_labels
from FoundationSegLib.errors import CheckpointError, InferenceError, InputError
from FoundationSegLib.hub.store import STORE_VARIABLE
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.prompts.kinds import BoxPrompt, Polarity
from FoundationSegLib.requests.segmentation import CheckpointRecord, Prediction, SegmentPrediction
from FoundationSegLib.worker.client import InlineClient
from Testing.unit.commands.conftest import SHAPE, START, block_mask
from Testing.unit.fakes import CARD_TOML, SHA256, fake_card, fill_store

FILES = {*START, "truth.nrrd"}
CLICKABLE = CARD_TOML.replace('prompts = ["box"]', 'prompts = ["box", "point"]\nnegative = ["point"]')


class Threshold:
    """An engine: what is bright within a box, and what hangs together with a click; a click against takes its cube."""

    def __init__(self, options):
        self.options, self.volumes, self.requests, self.error = options, {}, [], None

    def add_volume(self, volume):
        self.volumes[volume.key] = volume

    def remove_volume(self, volume_key):
        del self.volumes[volume_key]

    def prepare(self, model_id, progress):
        pass

    def predict(self, request, progress):
        self.requests.append(request)
        progress.step("slices", 1, 2)
        if self.error is not None:
            raise self.error
        volume = self.volumes[request.volume_key]
        bright = volume.array_kji > 100
        parts, _ = ndimage.label(bright)
        mask = np.zeros_like(bright)
        for prompt in request.segments[0].prompts:
            if isinstance(prompt, BoxPrompt):
                ends = np.sort([volume.geometry.nearest_voxel(corner)[::-1] for corner in prompt.corners], axis=0)
                inside = tuple(slice(a, b + 1) for a, b in ends.T)
                mask[inside] = bright[inside]
                continue
            k, j, i = volume.geometry.nearest_voxel(prompt.position)[::-1]
            if prompt.polarity is Polarity.POSITIVE:
                mask |= (parts == parts[k, j, i]) & bright
            else:
                mask[max(0, k - 1) : k + 2, max(0, j - 1) : j + 2, max(0, i - 1) : i + 2] = False
        record = CheckpointRecord(request.model_id, "nowhere", "1", "ab")
        answer = (SegmentPrediction(pack_mask(mask), 0.5),)
        timings_s = {"load": 0.0, "encode": 0.0, "decode": 0.0}
        return Prediction(1, answer, {"policy": request.intensity}, record, "cpu", "float32", ("a note",), timings_s)


@pytest.fixture
def bench(desk, tmp_path):
    """The desk with a label map of both blocks and of a speck, and engines that are remembered in ``engines``."""
    truth = block_mask("Left").astype(np.uint8) + 2 * block_mask("Right")
    truth[0, 0, :3] = 7
    desk.truth = desk.write_image("truth.nrrd", truth)
    desk.engines = []

    def connect(settings):
        desk.engines.append(Threshold(settings))
        return InlineClient(desk.engines[-1])

    def card(name, text=CARD_TOML):
        path = tmp_path / "cards" / f"{name}.toml"
        path.write_text(text.replace('id = "fake"', f'id = "{name}"'))

    def evaluate(*more, model="fake", protocol="box", image=None, label=None):
        models = [part for one in ([model] if isinstance(model, str) else model) for part in ("--model", one)]
        where = (str(image or desk.image), str(label or desk.truth))
        return desk.run("evaluate", *where, *models, "--protocol", protocol, *map(str, more))

    desk.card, desk.evaluate, desk.real_engine, desk.connect = card, evaluate, desk.connect, connect
    return desk


def ready(bench, tmp_path, name, text):
    """A further model with its checkpoint."""
    bench.card(name, text)
    fill_store(tmp_path / "store", fake_card(id=name))


def report_of(bench, *more, **options):
    assert bench.evaluate("--json", *more, **options) == 0, bench.err
    return json.loads(bench.out)


def test_a_box_is_one_answer_for_each_object(bench):
    assert bench.evaluate() == 0, bench.err
    lines = bench.out.splitlines()
    assert lines[0] == "box, 2 objects, means: Dice after each prompt, NSD at 2 mm after the last"
    assert lines[2].split() == ["model", "box", "NSD", "Dice", "AUC", "NSD", "AUC", "s/answer", "peak", "MB"]
    name, box, nsd, *areas, seconds, peak = lines[3].split()
    assert (name, box, nsd, areas) == ("fake", "1.000", "1.000", ["-", "-"])
    assert float(seconds) >= 0
    assert peak == "-" or float(peak) > 50
    rows = [["label", "voxels", "fake"], ["1", "64", "1.000"], ["2", "40", "1.000"]]
    assert [line.split() for line in lines[-3:]] == rows
    assert bench.err == f"note: left out, with less than {FEWEST_VOXELS} voxels: label 7\n"
    assert bench.files() == FILES


def test_a_picture_is_evaluated_in_pixels(bench):
    plane, labels = (np.zeros((10, 12), np.uint8) for _ in range(2))
    plane[2:8, 2:9] = np.random.default_rng(0).integers(200, 250, (6, 7))
    plane[0, :3] = 1, 2, 3
    labels[2:8, 2:9] = 1
    picture, label = (bench.write_image(name, array) for name, array in (("a.png", plane), ("b.png", labels)))
    document = report_of(bench, image=picture, label=label)
    assert (document["units"], document["objects"]) == ("pixels", [{"label": 1, "voxels": 42, "volume_ml": None}])
    assert bench.evaluate(image=picture, label=label) == 0
    assert "NSD at 2 pixels after the last" in bench.out


def test_clicks_go_on_until_the_segment_is_perfect(bench, tmp_path):
    ready(bench, tmp_path, "clicker", CLICKABLE)
    document = report_of(bench, model="clicker", protocol="clicks")
    (model,) = document["models"]
    assert [[step["prompt"] for step in one["steps"]] for one in model["objects"]] == [
        ["positive click", "none", "none", "none", "none"]
    ] * 2
    assert model["dice"] == [1.0] * 5
    assert (model["dice_auc"], model["nsd_auc"]) == (4, 4)
    first = bench.engines[0].requests[0].segments[0].prompts[0]
    assert first.plane == "k"
    assert len(bench.engines[0].requests) == 2


def test_a_box_with_clicks_has_columns_for_both(bench, tmp_path):
    ready(bench, tmp_path, "clicker", CLICKABLE)
    assert bench.evaluate("--clicks", 2, model="clicker", protocol="box+clicks") == 0, bench.err
    assert "AUC: area under the curve of the 2 clicks, 1 at most" in bench.out
    assert bench.out.splitlines()[3].split()[:6] == ["model", "box", "click", "1", "click", "2"]


@pytest.mark.parametrize("protocol", ["clicks", "box+clicks"])
def test_clicks_go_through_the_real_engine(bench, tmp_path, protocol):
    """The click on one slice becomes a volume; further clicks do no harm where the model does as it is told."""
    bench.connect = bench.real_engine
    ready(bench, tmp_path, "clicker", CLICKABLE)
    (model,) = report_of(bench, model="clicker", protocol=protocol)["models"]
    assert model["model"]["sha256"] == SHA256
    for scores in model["objects"]:
        assert [step["error"] for step in scores["steps"]] == [None] * len(scores["steps"])
        assert scores["steps"][-1]["dice"] > 0.85, scores


def test_the_report_says_what_was_done_with_what(bench, tmp_path):
    path = bench.folder / "report.json"
    code = bench.evaluate("--report", path, "--label", 2, "--intensity", "ct-lung", "--nsd-tolerance-mm", 1.5)
    assert code == 0, bench.err
    document = json.loads(path.read_text(encoding="utf-8"))
    fields = ("version", "command", "settings", "units", "objects", "models", "notes", "timings_s", "software")
    assert (tuple(document), document["units"]) == (fields, "mm")
    assert (document["version"], document["command"]) == (1, "evaluate")
    settings = {"protocol": "box", "clicks": 5, "nsd_tolerance_mm": 1.5, "intensity": "ct-lung", "seed": 42}
    assert document["settings"] == settings
    assert document["objects"] == [{"label": 2, "voxels": 40, "volume_ml": 0.08}]
    (model,) = document["models"]
    assert model["model"] == {"id": "fake", "source": "nowhere", "revision": "1", "sha256": "ab"}
    assert (model["device"], model["precision"], model["error"]) == ("cpu", "float32", None)
    assert model["intensity"] == {"policy": "ct-lung"}
    (scores,) = model["objects"]
    assert (scores["label"], scores["notes"]) == (2, ["a note"])
    step = {"prompt": "box", "index_ijk": None, "dice": 1.0, "nsd": 1.0, "seconds": 0, "error": None}
    assert scores["steps"][0] | {"seconds": 0} == step
    assert {"monai", "scipy", "torch"} <= set(document["software"])
    assert str(bench.folder) not in path.read_text(encoding="utf-8")


def test_several_models_share_a_table_each_with_a_worker_of_its_own(bench, tmp_path):
    ready(bench, tmp_path, "other", CARD_TOML)
    assert bench.evaluate(model=("fake", "other", "fake")) == 0, bench.err
    rows = [line.split()[0] for line in bench.out.splitlines() if line]
    assert rows.count("fake") == rows.count("other") == 1
    assert bench.out.splitlines()[-3].split() == ["label", "voxels", "fake", "other"]
    assert len(bench.engines) == 2


def test_of_several_models_one_that_cannot_be_evaluated_has_a_row_that_says_why(bench, tmp_path):
    ready(bench, tmp_path, "clicker", CLICKABLE)
    bench.card("closed", CLICKABLE.replace("[license]", "[license]\nmust_accept = true"))
    bench.card("strange", CARD_TOML.replace('family = "lite-medsam"', 'family = "unheard-of"'))
    assert bench.evaluate(model=("fake", "clicker", "closed", "strange"), protocol="clicks") == 0, bench.err
    assert "fake: not evaluated: fake understands boxes, but no clicks for and against: use --protocol box" in bench.out
    assert "closed: not evaluated: closed has a licence to accept" in bench.out
    assert "strange: not evaluated: this version cannot run it" in bench.out
    assert len(bench.engines) == 1
    document = report_of(bench, model=("fake", "clicker"), protocol="clicks")
    fake, clicker = document["models"]
    assert fake["model"] == {"id": "fake"}
    assert "no clicks" in fake["error"]
    assert (fake["dice"], fake["dice_auc"], fake["objects"]) == ([], None, [])
    assert clicker["error"] is None


@pytest.mark.parametrize(
    ("changes", "code", "told"),
    [
        (("[license]", "[license]\nmust_accept = true"), 3, "closed has a licence to accept"),
        (('prompts = ["box"]', 'prompts = ["text"]'), 2, "understands neither boxes nor clicks"),
        (('family = "lite-medsam"', 'family = "unheard-of"'), 1, "this version cannot run it"),
        (('task = "segment"', 'task = "classify"'), 2, "is a model to classify with"),
    ],
)
def test_a_single_model_that_cannot_be_evaluated_is_an_error(bench, changes, code, told):
    bench.card("closed", CARD_TOML.replace(*changes))
    bench.evaluate("--label", 1, model="closed")
    bench.assert_refused(code, told, files=FILES)


def test_where_no_model_can_be_evaluated_the_first_ones_error_counts(bench):
    for name in ("closed", "shut"):
        bench.card(name, CARD_TOML.replace("[license]", "[license]\nmust_accept = true"))
    assert bench.evaluate("--label", 1, model=("closed", "shut")) == 3
    assert bench.err.splitlines()[-1] == "foundationseg: none of 2 models could be evaluated"
    assert [line.split(":")[0] for line in bench.out.splitlines()[-2:]] == ["closed", "shut"]


def failing(bench, monkeypatch, error, at=()):
    """Models fail; with ``at``, only at these requests, counted from 1."""
    real = Threshold.predict

    def predict(self, request, progress):
        self.error = error if not at or len(self.requests) + 1 in at else None
        return real(self, request, progress)

    monkeypatch.setattr(Threshold, "predict", predict)


def test_a_step_that_fails_counts_as_nothing_found(bench, monkeypatch):
    failing(bench, monkeypatch, InferenceError("the worker died"), at=(2,))
    path = bench.folder / "report.json"
    assert bench.evaluate("--report", path) == 0
    assert "note: fake: a step failed and counts as 0 (1 times); first: the worker died" in bench.err
    (model,) = json.loads(path.read_text(encoding="utf-8"))["models"]
    assert model["dice"] == [0.5]
    assert model["objects"][1]["steps"][0]["error"] == "the worker died"


@pytest.mark.parametrize(
    ("error", "code"), [(InferenceError("no memory"), 1), (CheckpointError("damaged"), 3), (InputError("no device"), 2)]
)
def test_a_model_that_never_answers_is_an_error(bench, monkeypatch, error, code):
    failing(bench, monkeypatch, error)
    bench.evaluate("--label", 1)
    bench.assert_refused(code, str(error), files=FILES)


def test_a_failed_model_leaves_the_others_alone(bench, monkeypatch, tmp_path):
    ready(bench, tmp_path, "other", CARD_TOML)
    real = Threshold.predict

    def predict(self, request, progress):
        self.error = CheckpointError("damaged") if request.model_id == "fake" else None
        return real(self, request, progress)

    monkeypatch.setattr(Threshold, "predict", predict)
    assert bench.evaluate(model=("fake", "other")) == 0
    assert "fake: not evaluated: damaged" in bench.out
    assert bench.out.splitlines()[-1].split() == ["2", "40", "1.000"]


def test_another_grid_is_refused(bench):
    shifted = bench.write_image("shifted.nrrd", np.ones(SHAPE, np.uint8), spacing=(1.0, 1.0, 2.5))
    smaller = bench.write_image("smaller.nrrd", np.ones((5, 10, 12), np.uint8), spacing=(1.0, 1.0, 2.0))
    for label, told in ((shifted, "or elsewhere in space"), (smaller, "(12 x 10 x 5 voxels, not 12 x 10 x 6")):
        bench.evaluate(label=label)
        bench.assert_refused(
            2, "lies on another grid than ct.nrrd", told, files={*FILES, "shifted.nrrd", "smaller.nrrd"}
        )


def test_a_label_map_with_other_axes_on_the_same_voxels_is_the_same_grid(bench):
    plain = sitk.ReadImage(str(bench.folder / "truth.nrrd"))
    sitk.WriteImage(sitk.DICOMOrient(plain, "IRA"), str(bench.folder / "turned.nrrd"))
    sitk.WriteImage(plain[:, :, :5], str(bench.folder / "cropped.seg.nrrd"))  # without its empty margin
    assert bench.evaluate() == 0
    table = bench.out.splitlines()[-2:]  # the line above has times
    for name in ("turned.nrrd", "cropped.seg.nrrd"):
        assert bench.evaluate(label=bench.folder / name) == 0
        assert bench.out.splitlines()[-2:] == table


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--label", "9"], "truth.nrrd has no label 9; it has 1, 2, 7"),
        (["--label", "x"], "--label"),
        (["--clicks", "0"], "must be a whole number from 1 to 100"),
        (["--clicks", "1.5"], "must be a whole number from 1 to 100"),
        (["--seed", "-1"], "must be a whole number from 0 to 4294967295"),
        (["--nsd-tolerance-mm", "nan"], "must be a number from 0 to 1000"),
        (["--nsd-tolerance-mm", "-1"], "must be a number from 0 to 1000"),
        (["--intensity", "nonsense"], "nonsense"),
        (["--protocol", "scribbles"], "--protocol"),
        (["--model", "unheard-of"], "unheard-of"),
        (["--report", "truth.nrrd"], "--report truth.nrrd would replace the label map"),
        (["--report", "nowhere/report.json"], "report.json"),
    ],
)
def test_bad_usage_is_refused(bench, monkeypatch, arguments, told):
    monkeypatch.chdir(bench.folder)
    bench.evaluate(*arguments)
    bench.assert_refused(2, told, files=FILES)


def test_progress_is_shown_on_a_terminal(bench, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert bench.evaluate() == 0
    shown = terminal.getvalue().split("\r")
    assert [text.strip() for text in shown if text.startswith("Evaluating")][-1] == "Evaluating 2/2"


def test_a_sheared_grid_is_told(bench):
    for path in (bench.image, bench.truth):
        image = sitk.ReadImage(str(path))
        image.SetDirection((1, 0.2, 0, 0, 1, 0, 0, 0, 1))
        sitk.WriteImage(image, str(path))
    assert bench.evaluate("--label", 1) == 0
    assert bench.err.startswith("note: the grid is sheared")


def test_a_missing_package_is_named(bench, monkeypatch):
    monkeypatch.delattr("FoundationSegLib.evaluation.simulated_prompts", raising=False)
    monkeypatch.setitem(sys.modules, "FoundationSegLib.evaluation.simulated_prompts", None)
    bench.evaluate("--label", 1)
    bench.assert_refused(1, "evaluate needs the package", files=FILES)


def test_a_checkpoint_that_has_to_be_downloaded_is_announced(bench, monkeypatch, tmp_path):
    monkeypatch.setenv(STORE_VARIABLE, str(tmp_path / "empty"))
    assert bench.evaluate("--label", 1, "--download") == 0
    assert bench.err.startswith("Downloading Fake Model")


def test_labels_are_all_that_are_no_specks_or_those_that_are_named():
    labels = np.zeros((4, 10, 10), np.int16)
    labels[0], labels[1, :3, :9], labels[2, 0, 0], labels[3, 0, 0] = 5, 2, 9, -1
    assert choose_labels(labels, None, "x") == ({2: 27, 5: 100}, ("left out, with less than 27 voxels: label 9",))
    assert choose_labels(labels, [9, 5, 9], "x") == ({9: 1, 5: 100}, ())
    with pytest.raises(InputError, match="has no label 3; it has 2, 5, 9"):
        choose_labels(labels, [3], "x")
    with pytest.raises(InputError, match="no label with at least 27 voxels"):
        choose_labels(np.zeros((3, 3, 3), np.uint8), None, "x")
    with pytest.raises(InputError, match="it has none"):
        choose_labels(np.zeros((3, 3, 3), np.uint8), [1], "x")
    many = np.repeat(np.arange(100), 30)[None, None]
    with pytest.raises(InputError, match=r"it has 1, .*, 20, \.\.\.$"):
        choose_labels(many, [1000], "x")
