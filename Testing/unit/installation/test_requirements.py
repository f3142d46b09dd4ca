import subprocess
import sys

import pytest

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.errors import PackageError
from FoundationSegLib.installation.packages import (
    is_satisfied,
    missing_requirements,
    requirement_name,
    requirements_of,
    shipped_requirements,
)


@pytest.mark.parametrize(
    ("requirement", "version", "expected"),
    [
        ("torch>=2.4,!=2.9.*", "2.8.0+cu128", True),
        ("torch>=2.4,!=2.9.*", "2.9.1+cpu", False),
        ("torch>=2.4,!=2.9.*", "2.2.2", False),
        ("transformers>=4.57,<6", "5.23.0", True),
        ("transformers>=4.57,<6", "6.0.0", False),
        ("pillow", "0.1", True),
        ("pillow", "", False),
        ("pillow>=10", "unknown", False),
        ("light[extra]>=1.0", "1.2rc1", True),
    ],
)
def test_what_cards_ask_for(requirement, version, expected):
    assert is_satisfied(requirement, version) is expected


def test_pips_copy_of_packaging_will_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    assert is_satisfied("torch>=2.4,!=2.9.*", "2.8.0+cu128") and not is_satisfied("torch>=2.4", "2.2.2")


def test_what_is_missing_is_told_by_its_whole_requirement():
    versions = {"torch": "2.2.2", "timm": "1.0.17"}
    asked = ("torch>=2.4", "timm>=1.0.17,<1.0.23", "scipy>=1.10")
    assert missing_requirements(asked, versions) == ("torch>=2.4", "scipy>=1.10")


def test_a_download_from_the_hub_needs_its_client_and_a_wheel_does_not():
    catalogue = read_catalogue()
    hub, wheel = catalogue["sam2.1-hiera-tiny"], catalogue["lite-medsam"]
    client = next(line for line in shipped_requirements() if line.startswith("huggingface_hub"))
    numpy = next(line for line in shipped_requirements() if line.startswith("numpy"))
    assert requirements_of(hub, to_download=True) == (*hub.packages, numpy, client)
    assert requirements_of(hub, to_download=False) == (*hub.packages, numpy)
    assert requirements_of(wheel, to_download=True) == (*wheel.packages, numpy)


def test_every_card_names_each_package_once():
    for card in read_catalogue().values():
        names = [requirement_name(text) for text in requirements_of(card, to_download=True)]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("text", ["", "--index-url=x", "../here"])
def test_what_names_no_package_is_refused(text):
    with pytest.raises(PackageError, match="names no package"):
        requirement_name(text)


def test_a_python_without_numpy_can_read_this():
    code = "import sys; sys.modules['numpy'] = None; import FoundationSegLib.installation.packages"
    subprocess.run((sys.executable, "-c", code), check=True)
