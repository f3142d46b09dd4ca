from dataclasses import replace

import pytest

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.installation.packages import PackagePlan, PlannedPackage
from FoundationSegLib.installation.readiness import MissingRequirement, Readiness
from FoundationSegLib.progress import ProgressReport

CARDS = read_catalogue()
TINY = CARDS["sam2.1-hiera-tiny"]


@pytest.fixture
def texts(rig):
    from FoundationSegPanel import model_texts

    return model_texts


@pytest.mark.parametrize(
    ("requirement", "state", "sentence"),
    [
        (MissingRequirement("adapter"), "Not in this version", "cannot run this model yet"),
        (
            MissingRequirement("python", items=("3.9.1",)),
            "Python is too old",
            "version 3.9.1; it has to be 3.11 or newer",
        ),
        (
            MissingRequirement("packages", items=("timm>=1", "scipy")),
            "Python packages are missing",
            "installed: timm, scipy.",
        ),
        (MissingRequirement("license"), "Licence to accept", "Apache-2.0"),
        (MissingRequirement("gate"), "Needs a Hugging Face login", "https://huggingface.co/facebook/sam2.1-hiera-tiny"),
        (MissingRequirement("room", 2_000_000), "Disk is too full", "2 MB more are needed"),
        (MissingRequirement("weights", 5), "To download", "156 MB"),
        (MissingRequirement("weights", 5, ("partial",)), "Partly downloaded", "156 MB"),
        (MissingRequirement("weights", 5, ("damaged",)), "Damaged, download again", "156 MB"),
        (
            MissingRequirement("memory", 3 * 10**9, ("cpu",)),
            "Ready, but may need more memory",
            "about 3.0 GB are missing",
        ),
    ],
)
def test_what_is_missing_reads_as_what_to_do(texts, requirement, state, sentence):
    assert texts.state_text(Readiness(TINY.id, (requirement,))) == state
    assert sentence in texts.requirement_text(requirement, TINY)
    assert sentence.replace("'", "&#x27;") in texts.card_html(TINY, Readiness(TINY.id, (requirement,)))


def test_the_first_thing_to_do_is_the_state(texts):
    missing = (
        MissingRequirement("packages", items=("timm",)),
        MissingRequirement("license"),
        MissingRequirement("weights"),
    )
    assert texts.state_text(Readiness(TINY.id, missing)) == "Python packages are missing"
    assert texts.state_text(Readiness(TINY.id, missing[1:])) == "Licence to accept"
    assert texts.state_text(Readiness(TINY.id, ())) == "Ready"


def test_a_size_that_is_not_certain_says_so(texts):
    assert texts.size_text(TINY) == "156 MB"
    doubtful = next(card for card in CARDS.values() if card.source.bytes and not card.bytes_certain)
    assert texts.size_text(doubtful).startswith("about ")
    unknown = next(card for card in CARDS.values() if not card.source.bytes)
    assert texts.size_text(unknown) == "unknown"


def test_every_cards_terms_can_be_shown_and_nothing_in_them_is_markup(texts):
    for card in CARDS.values():
        found = texts.terms_html(replace(card, title="<b>&"))
        assert "<h3>&lt;b&gt;&amp;</h3>" in found and texts.commercial_text(card.license) in found
        assert ("from memory" in found) == card.is_unverified("license")


@pytest.mark.parametrize(
    "stage", ["download", "packages", "verify", "import", "remove", "wait", "restart", "devices", "something new"]
)
def test_every_stage_has_words(texts, stage):
    assert texts.progress_text(ProgressReport(stage, 1_000_000, 2_000_000), "M")


def test_a_package_that_pip_would_replace_is_told(rig):
    from FoundationSegPanel.model_texts import planned_rows

    packages = (PlannedPackage("timm", "1.0.22", "0.9", 2_500_000), PlannedPackage("scipy", "1.0.22", "", 0))
    rows = planned_rows(PackagePlan((), (), packages))
    index = "the Python Package Index"
    assert rows == [("timm 1.0.22, replaces 0.9", "2 MB", index), ("scipy 1.0.22", "unknown", index)]
    builds = PackagePlan((), (), (PlannedPackage("torch", "2.8.0+cu126", "", 888_000_000),))
    assert planned_rows(builds) == [("torch 2.8.0+cu126", "888 MB", "PyTorch's own index")]


def test_what_pip_needs_is_told_about(rig):
    from FoundationSegPanel.model_texts import needed_rows

    missing = Readiness(
        TINY.id, (MissingRequirement("packages", items=("torch>=2.4", "transformers>=4.57,<6", "sentencepiece")),)
    )
    own = needed_rows(TINY, missing, is_own_python=True, with_weights=True)
    assert own[0][2] == "the PyTorch extension"
    assert own[1] == ("transformers", "about 30 MB", "the Python Package Index")
    assert own[2][:2] == ("sentencepiece", "small")
    assert needed_rows(TINY, missing, is_own_python=False, with_weights=True)[0][2] == "the Python Package Index"


def test_a_diagnosis_of_anything_has_words(rig):
    from FoundationSegPanel.computer_dialogs import facts

    devices = {
        "devices": [{"kind": "cuda", "name": "Card", "bytes": 8 * 10**9, "free_bytes": 6 * 10**9}],
        "driver": "570.1",
        "runtime": "12.8",
        "problem": "OSError: x",
    }
    python = {"version": "3.12.1", "system": "Linux", "packages": {"timm": ""}, "is_managed": True, "devices": devices}
    told = {
        "software": {"FoundationSeg": "1"},
        "python": python,
        "problem": "",
        "is_own_python": False,
        "store_bytes": 5_000_000,
        "free_bytes": 10**9,
        "store_is_usual": False,
        "models": {"a": "ready", "b": "partial", "c": "damaged", "d": "absent"},
        "is_offline": True,
    }
    text = "".join(f"{label}: {fact}\n" for label, fact in facts(told))
    for part in (
        "another one, 3.12.1",
        "belong to the operating system",
        "timm: not installed",
        "cannot be used: OSError: x",
        "Device cuda: Card, 8.0 GB, 6.0 GB free",
        "Graphics driver: 570.1",
        "a folder of the user's choice",
        "b: partly downloaded",
        "c: damaged",
        "d: another version",
        "nothing is downloaded",
    ):
        assert part in text
    python["devices"] = None
    assert "Device" not in dict(facts(told))
