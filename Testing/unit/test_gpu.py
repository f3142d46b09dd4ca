"""The checks for a graphics card, run on the processor at small size: known to work before a card is met."""

import json

from Testing import gpu
from Testing.models.small_models import LIGHTEST, stock


def test_a_model_of_slices_and_a_classifier_pass_every_check(tmp_path, capsys):
    report = tmp_path / "gpu.json"
    families = ("--only", "edgetam", "clip", "merlin", "torchxrayvision")
    assert gpu.main(["--device", "cpu", "--small", *families, "--json", str(report)]) == 0
    document, printed = json.loads(report.read_text(encoding="utf-8")), capsys.readouterr().out
    assert document["machine"]["device"] == "cpu"
    checks = {row["check"] for row in document["rows"] if row["passed"]}
    assert {f"out of memory: {stage}" for stage in ("load", "encode", "prompt", "follow")} < checks
    assert {"cosines, device against CPU", "worker killed, then asked again", "cancelled, then asked again"} < checks
    assert all(row["check"] in printed for row in document["rows"])


def test_a_wrong_mask_fails_and_a_missing_package_is_named(tmp_path):
    subject = gpu.Subject(*stock(LIGHTEST["medsam"], tmp_path), "cpu")
    engines = iter([subject.engine(), subject.engine(change=lambda model: Mirrored(model))])
    answers = [subject.mask(subject.predict(engine)) for engine in engines]
    assert gpu.dice(*answers) < gpu.LEAST_AGREEMENT
    (row,) = gpu.checked_families(["not there"], "cpu", True)
    assert (row.check, row.passed) == ("skipped", None)


class Mirrored:
    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)

    def encode(self, image, check):
        return self._model.encode(image[:, ::-1].copy(), check)
