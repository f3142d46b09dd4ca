import sys
import types

import pytest

from FoundationSegLib.errors import CardError
from FoundationSegLib.models.protocols import load_model
from Testing.unit.fakes import fake_card


def test_the_adapter_is_called_like_the_family(monkeypatch, tmp_path):
    adapter = types.SimpleNamespace(load=lambda *arguments: arguments)
    monkeypatch.setitem(sys.modules, "FoundationSegLib.models.segmentation.fake_family", adapter)
    card, files = fake_card(family="fake-family"), {"fake/fake.pth": tmp_path}
    assert load_model(card, files, "cpu") == (card, files, "cpu")


def test_a_family_without_an_adapter_is_named():
    with pytest.raises(CardError, match=r"fake: no adapter is called segmentation\.no_such_family"):
        load_model(fake_card(family="no-such-family"), {}, "cpu")


def test_a_package_that_the_adapter_lacks_is_not_taken_for_the_adapter(monkeypatch):
    """Only a missing adapter is the card's fault."""
    monkeypatch.delitem(sys.modules, "FoundationSegLib.models.segmentation.vista3d", raising=False)
    monkeypatch.setitem(sys.modules, "monai.apps.vista3d.inferer", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        load_model(fake_card(family="vista3d"), {}, "cpu")
    assert caught.value.name == "monai.apps.vista3d.inferer"
