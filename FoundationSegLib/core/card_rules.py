"""What must hold of a card beyond the types of its fields."""

import re
from collections.abc import Sequence
from typing import get_args

from .card_schema import check
from .card_values import TRANSLATIONS, CheckpointFile, License, ModelCard, PromptKind, Source
from .errors import CardError, InputError
from .intensity import check_policy
from .names import is_hub_repository, is_pypi_name, is_safe_name, is_safe_path

_ID = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
_FAMILY = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_SHA256 = re.compile(r"([0-9a-f]{64})?")
# A name, extras and a version range of PEP 508: no address and no option, since it is handed to pip.
_PACKAGE = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[a-z0-9,._-]+\])?"
    r"((===?|!=|<=|>=|<|>|~=)[0-9][A-Za-z0-9.*+!]*(,(===?|!=|<=|>=|<|>|~=)[0-9][A-Za-z0-9.*+!]*)*)?"
)
_FIELD_STEP = re.compile(r"(?:^|\.)([a-z0-9_]+)|\[([0-9]{1,4})\]")
_LONGEST_ID = 64
_DEVICES = {"cpu", "cuda", "mps"}


def check_card(card: ModelCard, origin: str) -> None:
    """Hold a card against the rules.

    Raises:
        CardError: one is broken; the message names the field.
    """
    _check_identity(card, origin)
    _check_abilities(card, origin)
    _check_memory(card, origin)
    for n, package in enumerate(card.packages):
        check(
            bool(_PACKAGE.fullmatch(package)), f"{origin}: packages[{n}]: {package!r} is no name with a version range"
        )
    _check_source(card.source, f"{origin}: source")
    _check_license(card.license, f"{origin}: license")
    for n, name in enumerate(card.unverified):
        check(_has_field(card, name), f"{origin}: unverified[{n}]: the card has no field {name!r}")


def _check_identity(card: ModelCard, origin: str) -> None:
    is_id = bool(_ID.fullmatch(card.id)) and is_safe_name(card.id) and len(card.id) <= _LONGEST_ID
    check(is_id, f"{origin}: id: {card.id!r} needs small letters, digits, dots and dashes, and no name of a device")
    is_family = bool(_FAMILY.fullmatch(card.family)) and is_safe_name(card.family)
    check(is_family, f"{origin}: family: {card.family!r} is not a name")
    check(card.replaces in ("", card.id), f"{origin}: replaces: must be the card's own id, {card.id!r}, or empty")


def _check_abilities(card: ModelCard, origin: str) -> None:
    unknown = set(card.prompts) - set(get_args(PromptKind))
    check(not unknown, f"{origin}: prompts: unknown kinds {sorted(unknown)}")
    check(bool(card.prompts) or card.task == "classify", f"{origin}: prompts: a model to segment with needs one")
    check(set(card.negative) <= set(card.prompts), f"{origin}: negative: names kinds that prompts does not")
    _check_translations(card, origin)
    is_list = not card.classes or bool(_FAMILY.fullmatch(card.classes) and "class" in card.prompts)
    check(is_list, f"{origin}: classes: {card.classes!r} is no name, or the model understands no class names")
    check(bool(card.dimensions) and set(card.dimensions) <= {2, 3}, f"{origin}: dimensions: must be 2, 3 or both")
    check(bool(card.channels) and set(card.channels) <= {1, 3}, f"{origin}: channels: must be 1, 3 or both")
    for name in ("prompts", "negative", "dimensions", "channels", "modalities", "packages", "unverified"):
        _check_distinct(getattr(card, name), f"{origin}: {name}")
    _check_ct_channels(card, origin)
    try:
        check_policy(card.intensity)
    except InputError as error:
        raise CardError(f"{origin}: intensity: {error}") from error


def _check_ct_channels(card: ModelCard, origin: str) -> None:
    are_windows = all(len(window) == 2 and window[0] < window[1] for window in card.ct_channels)
    fits = not card.ct_channels or (len(card.ct_channels) == 3 and card.task == "classify" and 3 in card.channels)
    check(are_windows and fits, f"{origin}: ct_channels: needs the lowest and highest value of red, green and blue")


def _check_translations(card: ModelCard, origin: str) -> None:
    for kind, target in card.translations.items():
        place = f"{origin}: translations.{kind}"
        check(kind not in card.prompts, f"{place}: is a kind that prompts names")
        known = TRANSLATIONS.get(kind, {})
        check(target in known, f"{place}: must be one of {', '.join(known) or 'nothing at all'}, not {target!a}")
        check(set(known.get(target, ())) <= set(card.prompts), f"{place}: leads to kinds that prompts does not name")


def _check_distinct(values: Sequence[object], place: str) -> None:
    check(len(set(values)) == len(values), f"{place}: names something twice")


def _check_memory(card: ModelCard, origin: str) -> None:
    memory, basis = card.memory_mb or {}, card.memory_basis or {}
    check(set(memory) <= _DEVICES, f"{origin}: memory_mb: must be of cpu, cuda or mps")
    for device, amount in memory.items():
        check(0 < amount < 10**7, f"{origin}: memory_mb.{device}: must be above 0 and below 10 TB")
    check(0 <= card.bytes_per_voxel < 10**4, f"{origin}: bytes_per_voxel: must be 0 or above, and below 10 kB")
    check(
        card.sees_volumes or not (card.bytes_per_voxel or card.can_be_tiled),
        f"{origin}: bytes_per_voxel, can_be_tiled: say something of models of whole volumes only",
    )
    check(set(basis) == set(memory), f"{origin}: memory_basis: must say of every number of memory_mb how it is known")


def _check_source(source: Source, place: str) -> None:
    _check_origin(source.kind, source.repository, source.revision, place)
    check(source.download_bytes is None or source.download_bytes > 0, f"{place}: download_bytes must be above 0")
    check(bool(source.files), f"{place}: files: is empty")
    for n, file in enumerate(source.files):
        _check_file(file, source, f"{place}: files[{n}]")
        # The store keeps a model's files side by side, and some systems do not tell case apart.
        earlier = {other.name.casefold() for other in source.files[:n]}
        check(file.name.casefold() not in earlier, f"{place}: files[{n}]: path: the name stands twice")


def _check_file(file: CheckpointFile, source: Source, place: str) -> None:
    check(bool(_SHA256.fullmatch(file.sha256)), f"{place}: sha256: must be 64 hexadecimal digits or empty")
    check(file.bytes is None or file.bytes > 0, f"{place}: bytes: must be above 0")
    check(is_safe_path(file.path), f"{place}: path: {file.path!r} leaves its folder or names no file")
    check(bool(file.repository) == bool(file.revision), f"{place}: revision: goes with a repository of the file's own")
    if file.repository:
        check(source.kind == "hub", f"{place}: repository: only files from the Hub have one of their own")
        _check_origin(source.kind, file.repository, file.revision, place)


def _check_origin(kind: str, repository: str, revision: str, place: str) -> None:
    is_name = is_hub_repository(repository) if kind == "hub" else is_pypi_name(repository)
    form = "owner/name" if kind == "hub" else "a project's name"
    check(is_name, f"{place}: repository: {repository!r} is not {form}")
    # The revision names a folder of the store.
    check(
        is_safe_name(revision) and " " not in revision, f"{place}: revision: {revision!r} is no commit, tag or branch"
    )


def _check_license(terms: License, place: str) -> None:
    check(
        not terms.url or re.fullmatch(r"https://\S+", terms.url) is not None, f"{place}: url: must begin with https://"
    )
    check(bool(terms.version), f"{place}: version: is empty")
    needs_note = terms.commercial_use == "unclear"
    check(bool(terms.note) or not needs_note, f"{place}: note: must quote the texts that leave commercial use unclear")


def _has_field(card: ModelCard, field: str) -> bool:
    """True where a path such as ``source.files[0].bytes`` leads to something in the card."""
    steps = _FIELD_STEP.findall(field)
    if not steps or "".join(f".{name}" if name else f"[{index}]" for name, index in steps) != f".{field}":
        return False
    value: object = card
    for name, index in steps:
        if index:
            if not isinstance(value, tuple) or int(index) >= len(value):
                return False
            value = value[int(index)]
        elif isinstance(value, dict):
            if name not in value:
                return False
            value = value[name]
        elif name in getattr(type(value), "__dataclass_fields__", {}):
            value = getattr(value, name)
        else:
            return False
    return True
