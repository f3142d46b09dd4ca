"""Cards that users add in a folder of their own."""

import pytest

from FoundationSegLib.catalog import catalogue as cards
from FoundationSegLib.catalog.catalogue import CARDS_VARIABLE, read_catalogue, user_card_folder
from FoundationSegLib.errors import CardError
from Testing.unit.fakes import CARD_TOML


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's folder of cards, beside one card that comes along."""
    (tmp_path / "shipped").mkdir()
    write(tmp_path / "shipped", "ant")
    monkeypatch.setattr(cards, "card_folder", lambda: tmp_path / "shipped")
    monkeypatch.setenv(CARDS_VARIABLE, str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def write(folder, model_id, replaces="", title="Fake Model"):
    text = CARD_TOML.replace('id = "fake"', f'id = "{model_id}"\nreplaces = "{replaces}"').replace("Fake Model", title)
    (folder / f"{model_id}.toml").write_text(text, encoding="utf-8")


def test_a_user_adds_cards(own):
    write(own, "aardvark")
    (own / "._aardvark.toml").write_bytes(b"what a Mac leaves")
    assert list(read_catalogue()) == ["ant", "aardvark"]
    assert list(read_catalogue(cards.card_folder())) == ["ant"]
    assert list(read_catalogue(own, cards.card_folder())) == ["aardvark", "ant"]


def test_a_users_card_replaces_one_only_where_it_says_so(own):
    write(own, "ant", title="Mine")
    with pytest.raises(CardError) as caught:
        read_catalogue()
    assert str(caught.value).startswith("your card ant.toml: id: 'ant' is the id of ant.toml, which comes with")
    assert 'replaces = "ant"' in str(caught.value)
    write(own, "ant", replaces="ant", title="Mine")
    assert [card.title for card in read_catalogue().values()] == ["Mine"]


def test_a_wrong_card_of_the_user_is_named_as_theirs(own):
    (own / "bee.toml").write_text("id = 3")
    with pytest.raises(CardError, match=r"^your card bee.toml: "):
        read_catalogue()


def test_a_chosen_folder_must_exist_and_the_usual_one_need_not(own, monkeypatch, tmp_path):
    own.rmdir()
    with pytest.raises(CardError, match=f"^{CARDS_VARIABLE} names no folder: own$"):
        read_catalogue()
    monkeypatch.delenv(CARDS_VARIABLE)
    for variable in ("XDG_CONFIG_HOME", "APPDATA", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "config"))
    assert list(read_catalogue()) == ["ant"]
    assert user_card_folder().parts[-2:] == ("FoundationSeg", "cards")
    assert user_card_folder().is_relative_to(tmp_path / "config")
