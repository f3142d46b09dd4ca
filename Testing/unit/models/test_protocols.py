import sys
import types

import numpy as np
import pytest

from FoundationSegLib.errors import CardError
from FoundationSegLib.models.protocols import SliceAnswer, SlicePrompt, load_slice_model
from Testing.unit.fakes import fake_card


def adapter(monkeypatch, name, **members):
    """A module among the adapters."""
    whole = f"FoundationSegLib.models.segmentation.{name}"
    module = types.ModuleType(whole)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, whole, module)


def test_the_adapter_is_called_like_the_family(monkeypatch, tmp_path):
    adapter(monkeypatch, "fake_family", load=lambda *arguments: arguments)
    card, files = fake_card(family="fake-family"), {"fake/fake.pth": tmp_path}
    assert load_slice_model(card, files, "cpu") == (card, files, "cpu")


def test_a_family_without_an_adapter_is_named():
    with pytest.raises(CardError, match=r"fake: no adapter is called segmentation\.no_such_family"):
        load_slice_model(fake_card(family="no-such-family"), {}, "cpu")


def test_a_package_that_the_adapter_lacks_is_not_taken_for_the_adapter(monkeypatch, tmp_path):
    """Only a missing adapter is the card's fault."""
    (tmp_path / "lacking.py").write_text("import no_such_package")
    import FoundationSegLib.models.segmentation as models

    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path)])
    with pytest.raises(ModuleNotFoundError) as caught:
        load_slice_model(fake_card(family="lacking"), {}, "cpu")
    assert caught.value.name == "no_such_package"


def test_an_adapters_own_error_comes_through(monkeypatch):
    def load(*arguments):
        raise CardError("odd")

    adapter(monkeypatch, "odd", load=load)
    with pytest.raises(CardError, match=r"^odd$"):
        load_slice_model(fake_card(family="odd"), {}, "cpu")


def test_values_are_equal_and_cannot_be_changed():
    assert SlicePrompt((1, 2, 3, 4)) == SlicePrompt((1.0, 2.0, 3.0, 4.0))
    answer = SliceAnswer(np.ones((2, 2), bool), 0.5)
    with pytest.raises(AttributeError):
        answer.score = 1.0
