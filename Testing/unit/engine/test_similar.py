"""Objects like an example, found by a model that sees brightness and answers with what is bright in its box."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

from FoundationSegLib.api_adaptation import find_similar
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import InputError
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.models.protocols import SliceAnswer
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.adaptation import SimilarRequest
from FoundationSegLib.worker.client import InlineClient
from Testing.toy_adaptation import ToyModel, toy_engine
from Testing.unit.fakes import volume_of


@dataclass(slots=True)
class BrightModel(ToyModel):
    def decode(self, embedding, prompt, previous=None):
        mask = np.zeros(embedding.shape, np.bool_)
        x0, y0, x1, y1 = map(round, prompt.box)
        mask[y0 : y1 + 1, x0 : x1 + 1] = embedding.levels.numpy()[y0 : y1 + 1, x0 : x1 + 1] > 0.5
        return SliceAnswer(mask, 0.8, None)


@dataclass(slots=True)
class RememberingModel(BrightModel):
    """Follows what is bright wherever it is, once it was shown a slice."""

    fresh_each_way = largest_part_only = False

    def remember(self, slices):
        def follow(index, embedding, upwards):
            mask = embedding.levels.numpy() > 0.5
            return SliceAnswer(mask, 0.8, absent=not mask.any())

        def prompt(index, embedding, prompt):
            return self.decode(embedding, prompt) if prompt.box else follow(index, embedding, True)

        return SimpleNamespace(prompt=prompt, follow=follow)


def image(*blocks, shape=(12, 24, 30)):
    """A dark image with bright blocks, each its first voxel and its size, and the block's mask by number."""
    array = np.random.default_rng(0).normal(40, 5, shape)
    masks = []
    for (k, j, i), size in blocks:
        masks.append(np.zeros(shape, np.bool_))
        masks[-1][k : k + size, j : j + size, i : i + size] = True
        array[masks[-1]] += 150
    return volume_of(array.astype(np.int16)), masks


@pytest.fixture
def engine(tmp_path):
    made = toy_engine(tmp_path, [])
    return Engine(made.catalogue, made.store, "cpu", load_model=lambda *_: BrightModel())


def found(answer, key, masks):
    """The numbers of the blocks that proposals in an image are."""
    proposals = [proposal.mask for proposal in answer.proposals if proposal.volume_key == key]
    return sorted(masks_of.index(mask) for mask in proposals for masks_of in [list(map(pack_mask, masks))])


def test_it_finds_what_is_like_the_example_and_as_large_in_all_images(engine):
    volume, masks = image(((1, 2, 2), 4), ((6, 12, 3), 4), ((2, 14, 20), 5), ((9, 1, 28), 1))
    other, more = image(((3, 5, 9), 4))
    answer = find_similar(volume, masks[0], InlineClient(engine), "fake", [volume, other])
    assert found(answer, volume.key, masks) == [1, 2], "neither the example nor what is much smaller"
    assert found(answer, other.key, more) == [0]
    alike = [proposal.likeness for proposal in answer.proposals]
    assert alike == sorted(alike, reverse=True) and min(alike) > 0
    assert {proposal.score for proposal in answer.proposals} == {0.8} and answer.checkpoint.model_id == "fake"
    one = find_similar(volume, pack_mask(masks[0]), InlineClient(engine), "fake", most=1)
    assert len(one.proposals) <= 1 and "left out" in one.notes[0]


def test_a_memory_follows_the_example_into_another_image(tmp_path):
    made = toy_engine(tmp_path, [])
    engine = Engine(made.catalogue, made.store, "cpu", load_model=lambda *_: RememberingModel())
    volume, masks = image(((1, 2, 2), 4))
    other, _ = image(((3, 5, 9), 4), ((8, 14, 3), 3))
    for each in (volume, other):
        engine.add_volume(each)
    request = SimilarRequest(1, "fake", volume.key, pack_mask(masks[0]), (other.key,))
    answer = engine.similar(request, Progress())
    assert len(answer.proposals) == 2 and all(proposal.mask.voxels for proposal in answer.proposals)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((12, 24, 30)), "is empty"),
        (np.ones((13, 24, 30)), "reaches out"),
        (np.ones((12, 24, 30)), "nothing around it"),
    ],
)
def test_an_example_of_which_nothing_can_be_learned_is_refused(engine, mask, message):
    volume, _ = image(((1, 2, 2), 4))
    with pytest.raises(InputError, match=message):
        find_similar(volume, mask, InlineClient(engine), "fake")


def test_a_model_without_boxes_is_refused(engine):
    volume, masks = image(((1, 2, 2), 4))
    card = replace(engine.catalogue["fake"], prompts=("point",))
    engine.catalogue = {**engine.catalogue, "fake": card}
    with pytest.raises(InputError, match="takes boxes"):
        find_similar(volume, masks[0], InlineClient(engine), "fake")


def test_no_part_of_a_question_to_the_model_is_told_as_a_part_of_the_answer(engine):
    (volume, masks), parts = image(((1, 2, 2), 4), ((6, 12, 3), 4)), []
    engine.add_volume(volume)
    question = SimilarRequest(1, "fake", volume.key, pack_mask(masks[0]), (volume.key,))
    assert found(engine.similar(question, Progress(partial=parts.append, part_s=0)), volume.key, masks) == [1]
    assert not parts
