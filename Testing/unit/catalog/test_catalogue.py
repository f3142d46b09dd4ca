import pytest

from FoundationSegLib.catalog import catalogue
from FoundationSegLib.catalog.model_cards import LearnedFrom
from FoundationSegLib.errors import CardError
from Testing.unit.fakes import CARD_TOML, fake_card

SHIPPED = list(catalogue.read_catalogue(catalogue.card_folder()))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's folder of cards, beside those that come along."""
    monkeypatch.setenv(catalogue.CARDS_VARIABLE, str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    return tmp_path / "own"


def write(folder, model_id, replaces="", title="Fake Model"):
    text = CARD_TOML.replace('id = "fake"', f'id = "{model_id}"\nreplaces = "{replaces}"').replace("Fake Model", title)
    (folder / f"{model_id}.toml").write_text(text, encoding="utf-8")


def test_a_user_adds_cards(own):
    write(own, "aardvark")
    (own / "._aardvark.toml").write_bytes(b"what a Mac leaves")
    assert list(catalogue.read_catalogue()) == [*SHIPPED, "aardvark"]
    assert list(catalogue.read_catalogue(catalogue.card_folder())) == SHIPPED
    assert list(catalogue.read_catalogue(own, catalogue.card_folder())) == ["aardvark", *SHIPPED]


def test_a_users_card_replaces_one_only_where_it_says_so(own):
    write(own, "medsam", title="Mine")
    with pytest.raises(CardError) as caught:
        catalogue.read_catalogue()
    assert str(caught.value).startswith("your card medsam.toml: id: 'medsam' is the id of medsam.toml, which")
    assert 'replaces = "medsam"' in str(caught.value)
    write(own, "medsam", replaces="medsam", title="Mine")
    assert list(catalogue.read_catalogue()) == SHIPPED and catalogue.read_catalogue()["medsam"].title == "Mine"


def test_a_wrong_card_of_the_user_is_named_as_theirs(own):
    (own / "bee.toml").write_text("id = 3")
    with pytest.raises(CardError, match=r"^your card bee.toml: "):
        catalogue.read_catalogue()


def test_a_chosen_folder_must_exist_and_the_usual_one_need_not(own, monkeypatch, tmp_path):
    own.rmdir()
    with pytest.raises(CardError, match=f"^{catalogue.CARDS_VARIABLE} names no folder: own$"):
        catalogue.read_catalogue()
    monkeypatch.delenv(catalogue.CARDS_VARIABLE)
    for variable in ("XDG_CONFIG_HOME", "APPDATA", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "config"))
    assert list(catalogue.read_catalogue()) == SHIPPED
    assert catalogue.user_card_folder().parts[-2:] == ("FoundationSeg", "cards")
    assert catalogue.user_card_folder().is_relative_to(tmp_path / "config")


def test_an_adapter_is_a_file_of_the_familys_name_that_can_load(tmp_path):
    folder = tmp_path / "segmentation"
    folder.mkdir()
    (folder / "two_words.py").write_text("import os\n\n\ndef load(card, files, device): ...\n")
    (folder / "shared.py").write_text("def load_model(card): ...\n\n\nclass A:\n    def load(self): ...\n")
    is_there = {
        family: catalogue.has_adapter(fake_card(family=family), tmp_path)
        for family in ("two-words", "shared", "absent")
    }
    assert is_there == {"two-words": True, "shared": False, "absent": False}


def test_what_has_no_adapter_is_refused_in_one_line():
    catalogue.require_adapter(fake_card(family="lite-medsam"))
    with pytest.raises(
        CardError, match=r"^fake: this version cannot run it: .* 'no-such'; 'foundationseg models list' shows"
    ):
        catalogue.require_adapter(fake_card(family="no-such"))


@pytest.mark.parametrize(("task", "folder"), [("segment", "segmentation"), ("classify", "classification")])
def test_what_the_adapters_share_is_no_adapter(task, folder):
    """Every file beside the adapters is looked at: only those that the engine could call count."""
    families = [path.stem.replace("_", "-") for path in (catalogue.adapter_folder() / folder).glob("[a-z]*.py")]
    runnable = {family for family in families if catalogue.has_adapter(fake_card(family=family, task=task))}
    assert runnable == set(families) - {"two-towers"}


@pytest.mark.parametrize(
    ("chosen", "kind", "offered", "when_slow"),
    [
        ("lite-medsam", "point", "edgetam", "edgetam"),
        ("medsam2", "point", "edgetam", "edgetam"),
        ("lite-medsam", "box", None, "edgetam"),
        ("sam2.1-hiera-tiny", "point", None, "edgetam"),
        ("voxtell", "point", None, None),  # it looks at whole volumes
        ("biomedclip", "point", None, None),
        ("edgetam", "box", None, None),  # light itself
    ],
)
def test_a_light_model_is_offered_for_a_click_that_the_chosen_one_only_knows_as_a_box(chosen, kind, offered, when_slow):
    cards = catalogue.read_catalogue(catalogue.card_folder())
    card = catalogue.light_model_for(kind, cards[chosen], cards)
    assert (card and card.id) == offered
    slow = catalogue.light_model_for(kind, cards[chosen], cards, is_slow=True)
    assert (slow and slow.id) == when_slow
    without = {name: other for name, other in cards.items() if name != "edgetam"}
    smaller = catalogue.light_model_for(kind, cards[chosen], without)
    assert (smaller and smaller.id) == (offered and "mobile-sam")


@pytest.mark.parametrize(
    ("kinds", "prompts", "negative", "translations"),
    [
        (("box",), ("box",), (), {"point": "box", "scribble": "box", "lasso": "box", "mask": "box"}),
        (("point",), ("point",), (), {"scribble": "points"}),
        (("box", "point", "correction"), ("box", "point"), ("point",), {"scribble": "points", "lasso": "box"}),
    ],
)
def test_an_adapted_model_takes_what_it_is_better_at_in_place_of_the_bases_translations(
    kinds, prompts, negative, translations
):
    base = catalogue.read_catalogue()["lite-medsam"]
    learned_from = LearnedFrom("0" * 64, 1, 1, 300, "2026-01-01", "0", ())
    card = catalogue.make_card(base, "mine", kinds, learned_from, "1" * 64, 9)
    assert (card.prompts, card.negative, card.translations) == (prompts, negative, translations)
    assert (card.id, card.base, card.license.name) == ("lite-medsam+mine", base.id, base.license.name)
