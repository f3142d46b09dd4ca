"""Heads as values and files: they come back whole, damage is refused, and what remains is what was promised."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest

from FoundationSegLib.errors import InputError
from FoundationSegLib.requests.heads import (
    HEADS_VARIABLE,
    head_folder,
    head_names,
    read_head,
    remove_head,
    write_head,
)
from Testing.unit.reader_model import CHECKPOINT, make_head


def test_a_head_comes_back_from_its_file_as_it_was(tmp_path):
    head, vectors = make_head(), np.eye(5)
    path = write_head(head, tmp_path)
    again = read_head("contrast", tmp_path)
    assert path.name == "contrast.head" and head_names(tmp_path) == ("contrast",)
    assert np.array_equal(again.scores(vectors), head.scores(vectors))
    assert again.to_document() == head.to_document()
    assert again.fold_scores(vectors).shape == (2, 5, 2)
    assert np.allclose(again.scores(vectors).sum(axis=1), 1)
    with pytest.raises(InputError, match="there is a head"):
        write_head(head, tmp_path)
    remove_head("contrast", tmp_path)
    assert head_names(tmp_path) == ()
    with pytest.raises(InputError, match="no head is called 'contrast'; there are: none yet"):
        remove_head("contrast", tmp_path)


@pytest.mark.parametrize("name", ["../other", "", "a/b", "CON", "x" * 300])
def test_names_stay_in_the_folder(tmp_path, name):
    with pytest.raises(InputError, match="cannot be called"):
        write_head(make_head(name=name), tmp_path)
    with pytest.raises(InputError, match="no head is called"):
        read_head(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_damaged_files_are_refused(tmp_path):
    path = write_head(make_head(), tmp_path)
    whole = path.read_bytes()
    generator = np.random.default_rng(1)
    for _ in range(60):
        content = bytearray(whole)
        for position in generator.integers(0, len(whole), 3):
            content[position] ^= int(generator.integers(1, 256))
        path.write_bytes(bytes(content[: generator.integers(1, len(whole) + 1)]))
        try:
            again = read_head("contrast", tmp_path)
        except InputError:
            continue
        assert again.to_document() == make_head().to_document(), "a byte that means nothing was changed"
    start = whole.index(b"head.json") + len("head.json")
    path.write_bytes(whole[:start] + b"\xff" + whole[start + 1 :])
    with pytest.raises(InputError, match="damaged"):  # no block of deflate begins so
        read_head("contrast", tmp_path)


def test_a_file_of_another_name_and_a_bomb_are_refused(tmp_path):
    write_head(make_head(), tmp_path).rename(tmp_path / "other.head")
    with pytest.raises(InputError, match="holds the head 'contrast'"):
        read_head("other", tmp_path)
    with zipfile.ZipFile(tmp_path / "bomb.head", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("head.json", b" " * (65 * 2**20))
    with pytest.raises(InputError, match="at most 64 MB"):
        read_head("bomb", tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ("one",)},
        {"labels": ("same", "same")},
        {"weights": np.zeros((3, 2, 0))},
        {"weights": np.full((3, 2, 5), np.nan)},
        {"biases": np.zeros((2, 2))},
        {"slopes": np.ones(3)},
        {"concepts": ("a",)},
        {"method": "neighbours"},
    ],
)
def test_parts_that_do_not_agree_are_refused(changes):
    with pytest.raises(InputError, match="damaged"):
        make_head(**changes)


def test_vectors_of_other_weights_or_widths_are_refused():
    head = make_head()
    head.require_model(CHECKPOINT)
    for other, words in (
        (replace(CHECKPOINT, sha256="b" * 64), "not on another version"),
        (replace(CHECKPOINT, model_id="clip"), "not on clip"),
    ):
        with pytest.raises(InputError, match=words):
            head.require_model(other)
    with pytest.raises(InputError, match="vectors of 5 numbers"):
        head.scores(np.zeros((1, 4)))


def test_what_remains_is_at_the_rank_of_the_promise():
    head = make_head()  # 20 examples, 0.1 to 0.4: ceil(21 * 0.9) = 19th
    limit = np.linspace(0.1, 0.4, 20)[18]
    scores = np.array([[1.000001 - limit, limit], [0.999999 - limit, limit], [0.5, 0.5]])
    assert head.remaining(scores)[..., 1].tolist() == [[True, False], [False, False], [False, False]]
    assert head.knows(scores).tolist() == [[True, True], [False, False], [False, False]]
    assert head.remaining(scores, 0.99)[..., 1].all(), "20 examples promise no 99 %: everything remains"


def test_findings_have_an_answer_each():
    head = make_head(kind="findings", nonconformity=np.tile(np.linspace(0.1, 0.4, 20)[:, None], 2))
    scores = np.array([[0.9, 0.1], [0.5, 0.65]])
    assert head.remaining(scores).tolist() == [[[False, True], [True, False]], [[False, False], [False, True]]]
    assert head.knows(scores).tolist() == [[True, True], [False, True]]


def test_the_folder_is_the_users(monkeypatch, tmp_path):
    monkeypatch.setenv(HEADS_VARIABLE, str(tmp_path / "mine"))
    assert head_folder() == tmp_path / "mine" and head_names() == ()
