"""The diagnosis as labels and texts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from slicer.i18n import tr as _

from FoundationSegLib.progress import bytes_text

Fact = tuple[str, str]


def facts(diagnosis: Mapping[str, Any]) -> list[Fact]:
    """What a diagnosis tells, as JSON values; without folders and names of persons."""
    return [
        *diagnosis["software"].items(),
        *_python_facts(diagnosis),
        *_store_facts(diagnosis),
        (_("Offline mode"), _("on: nothing is downloaded") if diagnosis["is_offline"] else _("off")),
    ]


def _python_facts(diagnosis: Mapping[str, Any]) -> Iterator[Fact]:
    label, python = _("Python for the models"), diagnosis["python"]
    which = _("Slicer's own") if diagnosis["is_own_python"] else _("another one")
    if python is None:
        yield label, _("{which}: no answer ({reason})").format(which=which, reason=diagnosis["problem"])
        return
    yield label, _("{which}, {version}").format(which=which, version=python["version"])
    yield _("System"), python["system"]
    if python["is_managed"]:
        yield _("Note"), _("its packages belong to the operating system; pip adds none to it")
    devices = python["devices"]
    if devices is not None:
        yield from _device_facts(devices)
    for name, version in python["packages"].items():
        yield name, version or _("not installed")


def _device_facts(devices: Mapping[str, Any]) -> Iterator[Fact]:
    if devices["problem"]:
        yield _("PyTorch"), _("cannot be used: {reason}").format(reason=devices["problem"])
    for device in devices["devices"]:
        yield _("Device {kind}").format(kind=device["kind"]), _device_text(device)
    yield _("Graphics driver"), devices["driver"] or _("none found")
    yield _("CUDA of PyTorch"), devices["runtime"] or _("none")


def _device_text(device: Mapping[str, Any]) -> str:
    text = device["name"]
    if device["bytes"]:
        text = _("{name}, {size}").format(name=text, size=bytes_text(device["bytes"]))
    if device["free_bytes"] is not None:
        text = _("{device}, {size} free").format(device=text, size=bytes_text(device["free_bytes"]))
    return text


def _store_facts(diagnosis: Mapping[str, Any]) -> Iterator[Fact]:
    place = _("the usual folder") if diagnosis["store_is_usual"] else _("a folder of the user's choice")
    yield _("Models are in"), place
    sizes = bytes_text(diagnosis["store_bytes"]), bytes_text(diagnosis["free_bytes"])
    yield _("They take"), _("{size}; {free} are free").format(size=sizes[0], free=sizes[1])
    for model, status in diagnosis["models"].items():
        yield (
            model,
            {
                "ready": _("ready"),
                "partial": _("partly downloaded"),
                "absent": _("another version than this one needs"),
            }.get(status, _("damaged")),
        )


def as_text(found: Sequence[Fact]) -> str:
    """The facts as lines to be pasted elsewhere."""
    return "".join(f"{label}: {text}\n" for label, text in found)
