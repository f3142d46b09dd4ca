import numpy as np
import torch

from FoundationSegLib.models.classification.two_towers import Preparation, TextReader, grid, unit
from FoundationSegLib.models.preprocessing import Normalisation

PLAIN = Normalisation((0.0,) * 3, (1.0,) * 3)


class Words:
    """A tokenizer whose tokens are the lengths of words."""

    def __call__(self, texts, padding=False, max_length=None, truncation=False, return_tensors=None, verbose=True):
        ids = [[len(word) for word in text.split()] for text in texts]
        if not truncation:
            return {"input_ids": ids}
        ids = [one[:max_length] for one in ids]
        longest = max_length if padding == "max_length" else max(map(len, ids))
        return {"input_ids": torch.tensor([one + [0] * (longest - len(one)) for one in ids])}


def test_texts_come_back_in_order_and_in_batches_of_bounded_size():
    shapes = []

    def tower(tokens):
        shapes.append(tuple(tokens["input_ids"].shape))
        return torch.nn.functional.one_hot(tokens["input_ids"][:, 0], 10).float()

    texts = [" ".join(["x" * (n % 9 + 1)] * (n % 300 + 1)) for n in range(700)]
    read = TextReader(Words(), 256, is_padded=False).encode(texts, tower, lambda: None)
    assert [int(vector.argmax()) for vector in read.vectors] == [n % 9 + 1 for n in range(700)]
    assert read.truncated == tuple(n % 300 + 1 > 256 for n in range(700))
    assert all(rows * columns <= 2**13 for rows, columns in shapes)
    assert sum(rows for rows, _ in shapes) == 700 and len(shapes) < 20


def test_padded_texts_are_always_as_long_as_the_model_reads():
    seen = []

    def tower(tokens):
        seen.append(tokens["input_ids"].shape[1])
        return torch.ones(len(tokens["input_ids"]), 4)

    TextReader(Words(), 64, is_padded=True).encode(["a", "b c"], tower, lambda: None)
    assert seen == [64]


def test_pictures_of_any_shape_become_a_square_batch():
    rng = np.random.default_rng(0)
    shapes = [(5, 9), (40, 40, 3), (1, 1), (100, 3)]
    pictures = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    for by_pillow in (False, True):
        batch = Preparation(16, PLAIN, by_pillow=by_pillow)(pictures, "cpu")
        assert batch.shape == (4, 3, 16, 16) and batch.dtype == torch.float32
        assert batch.min() >= 0 and batch.max() <= 1
        assert torch.equal(batch[0, 0], batch[0, 2])


def test_the_two_ways_to_resize_differ_by_a_grey_level_at_most():
    picture = np.random.default_rng(1).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    one, other = (Preparation(40, PLAIN, by_pillow=way)([picture], "cpu") for way in (False, True))
    assert (one - other).abs().max() <= 1.01 / 255


def test_grids_go_row_by_row():
    parts = torch.arange(2 * 9 * 4.0).reshape(2, 9, 4)
    assert torch.equal(grid(parts)[1, 2, 0], parts[1, 6])
    assert np.allclose(np.linalg.norm(unit(parts + 1), axis=-1), 1)
