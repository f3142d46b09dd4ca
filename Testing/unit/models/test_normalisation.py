"""What a preprocessor_config.json may say of intensities, and what is refused."""

import json

import pytest

from FoundationSegLib.errors import CheckpointError
from FoundationSegLib.models.preprocessing import IMAGENET, Normalisation, read_normalisation
from Testing.models.small_sam import preprocessor


@pytest.fixture
def path(tmp_path):
    return tmp_path / "preprocessor_config.json"


def test_what_it_says_is_taken_and_the_rest_is_usual(path, sam_card):
    path.write_text(json.dumps({"image_mean": [0.1, 0.2, 0.3], "rescale_factor": 1}))
    assert read_normalisation({path.name: path}, sam_card, {}) == Normalisation((0.1, 0.2, 0.3), factor=1)
    assert read_normalisation({}, sam_card, {}) == IMAGENET


def test_a_shape_may_be_left_out_and_not_be_another(path, sam_card):
    shape = {"size": {"longest_edge": 256}}
    for document in ({}, shape):
        path.write_text(json.dumps(document))
        assert read_normalisation({path.name: path}, sam_card, shape) == IMAGENET
    path.write_text(json.dumps({"size": {"longest_edge": 512}}))
    with pytest.raises(CheckpointError, match="asks for a preparation"):
        read_normalisation({path.name: path}, sam_card, shape)


@pytest.mark.parametrize(
    "changes",
    [
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_resize": False},
        {"resample": 3},
        {"image_mean": [0.5]},
        {"image_mean": 0.5},
        {"image_mean": "grey"},
        {"image_std": ["a", "b", "c"]},
        {"image_std": [[1.0]]},
        {"image_std": [0.2, 0.2, 0]},
        {"rescale_factor": 0},
        {"rescale_factor": None},
        {"rescale_factor": "1/255"},
    ],
    ids=str,
)
def test_what_no_family_does_is_refused(path, sam_card, changes):
    path.write_text(json.dumps(preprocessor(256, **changes)))
    with pytest.raises(CheckpointError, match=r"SAM ViT-B: preprocessor_config\.json asks for"):
        read_normalisation({path.name: path}, sam_card, {})
