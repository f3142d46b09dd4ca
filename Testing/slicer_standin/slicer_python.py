"""Slicer's own Python packages: the real ones when `SLICER_PYTHON_SOURCE` names their folder, else small ones of ours.

The folder is that of Slicer's source which holds `slicer/parameterNodeWrapper`, `slicer/ScriptedLoadableModule.py`,
`slicer/i18n.py` and `slicer/packaging.py`: `Base/Python`.
"""

import importlib
import os
import sys
import types
from pathlib import Path

import slicer

VARIABLE = "SLICER_PYTHON_SOURCE"
NAMES = ("i18n", "packaging", "ScriptedLoadableModule", "parameterNodeWrapper")


def source_folder() -> Path | None:
    """Where Slicer's own packages are, if they are to be used."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    folder = Path(named) / "slicer"
    if not (folder / "ScriptedLoadableModule.py").is_file():
        raise FileNotFoundError(f"{VARIABLE}={named}: it has no slicer/ScriptedLoadableModule.py")
    return folder


def install() -> None:
    """Make ``from slicer.ScriptedLoadableModule import ...`` and the others work."""
    folder = source_folder()
    if folder is not None and str(folder) not in slicer.__path__:
        slicer.__path__.append(str(folder))  # behind slicer-core's: its slicer.util is Slicer's already
    for name in NAMES:
        if f"slicer.{name}" in sys.modules:
            continue
        if folder is not None:
            importlib.import_module(f"slicer.{name}")
            continue
        ours = importlib.import_module(f"Testing.slicer_standin.slicer_packages.{name}")
        module = types.ModuleType(f"slicer.{name}", ours.__doc__)
        module.__dict__.update({key: value for key, value in vars(ours).items() if not key.startswith("__")})
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)


def uninstall() -> None:
    """Nothing of it is left."""
    folder = source_folder()
    if folder is not None and str(folder) in slicer.__path__:
        slicer.__path__.remove(str(folder))
    for name in [name for name in sys.modules if name.partition(".")[2].partition(".")[0] in NAMES]:
        if name.startswith("slicer."):
            del sys.modules[name]
            if hasattr(slicer, name.split(".")[1]):
                delattr(slicer, name.split(".")[1])
