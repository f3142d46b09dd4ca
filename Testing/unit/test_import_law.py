"""Who may import whom: the table below is the law, and every file of the library and of the module keeps it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "FoundationSegLib"
IMAGING, PROMPTS, CATALOG, REQUESTS, SESSION, INSTALLATION = (
    f"{LIBRARY}.{name}" for name in ("imaging", "prompts", "catalog", "requests", "session", "installation")
)
HUB, MODELS, ENGINE, WORKER, IO, MRML = (
    f"{LIBRARY}.{name}" for name in ("hub", "models", "engine", "worker", "io", "mrml")
)
GROUND = tuple(f"{LIBRARY}.{name}" for name in ("errors", "progress", "folders", "codec", "page"))
VALUES = (*GROUND, IMAGING, PROMPTS, CATALOG, REQUESTS)
TORCH = ("torch", "torchvision", "transformers", "monai", "timm")
TORCH += ("open_clip", "safetensors", "nnInteractive", "voxtell")
ANYTHING = ""
CLIENT_SIDE = tuple(f"{WORKER}.{name}" for name in ("client", "process_client", "protocol", "process"))


# What scripts and the panel have in common, and what the panel consists of.
PANEL_SIDE = (
    f"{LIBRARY}.controller",
    f"{LIBRARY}.api",
    f"{LIBRARY}.api_nodes",
    f"{LIBRARY}.api_adaptation",
    f"{LIBRARY}.agent_session",
    f"{LIBRARY}.monitoring",
    f"{LIBRARY}.__version__",
    "FoundationSegPanel",
    "FoundationSeg.FoundationSegPanel",
    "FoundationSegEffect",
)


@dataclass(frozen=True)
class Rule:
    """What files may import beside the standard library: at any place, and in functions alone."""

    always: tuple[str, ...]
    lazily: tuple[str, ...] = ()


# The longest name that fits a file decides.
LAW = {
    LIBRARY: Rule(()),
    **{name: Rule(GROUND, lazily=("numpy",)) for name in GROUND},
    f"{LIBRARY}.page": Rule(GROUND, lazily=("PIL",)),
    f"{LIBRARY}.monitoring": Rule(GROUND),
    IMAGING: Rule((*GROUND, IMAGING, "numpy")),
    CATALOG: Rule((*GROUND, IMAGING, CATALOG)),
    PROMPTS: Rule((*GROUND, IMAGING, CATALOG, PROMPTS, "numpy")),
    REQUESTS: Rule((*VALUES, "numpy")),
    SESSION: Rule((*VALUES, SESSION, "numpy")),
    INSTALLATION: Rule((*GROUND, CATALOG, REQUESTS, INSTALLATION), lazily=("packaging", "pip")),
    HUB: Rule((*GROUND, CATALOG, REQUESTS, HUB), lazily=("huggingface_hub",)),
    MODELS: Rule(
        (*VALUES, INSTALLATION, MODELS, "numpy", "PIL", "SimpleITK", *TORCH), lazily=("huggingface_hub", "peft")
    ),
    ENGINE: Rule((*VALUES, INSTALLATION, HUB, MODELS, ENGINE, "numpy", "torch"), lazily=("scipy",)),
    **{
        # The training draws prompts and splits as the evaluation does.
        f"{ENGINE}.{name}": Rule(
            (*VALUES, HUB, MODELS, ENGINE, f"{LIBRARY}.evaluation", f"{LIBRARY}.__version__", "numpy", "torch")
        )
        for name in ("adaptation", "course")
    },
    WORKER: Rule((*VALUES, INSTALLATION, WORKER)),
    f"{WORKER}.server": Rule(
        (*VALUES, INSTALLATION, WORKER), lazily=(HUB, ENGINE, f"{LIBRARY}.evaluation", f"{LIBRARY}.mcp_server")
    ),
    IO: Rule((f"{LIBRARY}.__version__", *VALUES, IO, "numpy", "SimpleITK", "nibabel"), lazily=("highdicom", "pydicom")),
    MRML: Rule((*VALUES, SESSION, MRML, "numpy", "slicer", "vtk")),
    f"{LIBRARY}.evaluation": Rule(
        (
            *VALUES,
            f"{LIBRARY}.evaluation",
            f"{LIBRARY}.cohorts",
            IO,
            "numpy",
            "scipy",
            "sklearn",
            "threadpoolctl",
            "monai",
            "torch",
        ),
        lazily=("matplotlib",),
    ),
    f"{LIBRARY}.cohorts": Rule(
        (f"{LIBRARY}.__version__", *GROUND, f"{LIBRARY}.cohorts", IO), lazily=("distributed", "dask")
    ),
    f"{LIBRARY}.commands": Rule((ANYTHING,)),
    f"{LIBRARY}.api_adaptation": Rule((*VALUES, HUB, f"{WORKER}.client")),
    f"{LIBRARY}.api": Rule(
        (f"{LIBRARY}.__version__", f"{LIBRARY}.api_adaptation", *VALUES, SESSION, INSTALLATION, HUB, *CLIENT_SIDE)
    ),
    f"{LIBRARY}.api_nodes": Rule((f"{LIBRARY}.api", *VALUES, SESSION, *CLIENT_SIDE, MRML)),
    f"{LIBRARY}.agent_session": Rule(
        (f"{LIBRARY}.api", f"{LIBRARY}.controller", HUB, *VALUES, SESSION, *CLIENT_SIDE, MRML)
    ),
    f"{LIBRARY}.mcp_server": Rule(
        (f"{LIBRARY}.__version__", *VALUES, *CLIENT_SIDE), lazily=("mcp", "mcp_types", "pydantic", "anyio", "uvicorn")
    ),
    f"{LIBRARY}.scripting": Rule((f"{LIBRARY}.api",)),
    f"{LIBRARY}.controller": Rule((f"{LIBRARY}.__version__", *VALUES, SESSION, *CLIENT_SIDE, MRML)),
    f"{LIBRARY}.__main__": Rule((ANYTHING,)),
    "FoundationSeg": Rule(
        (*VALUES, SESSION, *CLIENT_SIDE, MRML, *PANEL_SIDE, "slicer", "vtk", "qt", "ctk"),
        lazily=("numpy", "PyTorchUtils"),
    ),
    # Imported at Slicer's start: nothing of the panel and the library before somebody chooses the effect.
    "FoundationSeg.FoundationSegEffect": Rule(
        ("slicer", "qt", "SegmentEditorEffects"),
        lazily=("FoundationSegPanel", "qSlicerSegmentationsEditorEffectsPythonQt"),
    ),
}
# What importing these modules may load beside the standard library, however many steps away.
LIGHT = {LIBRARY, "numpy"}
LIGHT_PACKAGES = (*VALUES, SESSION, INSTALLATION, HUB, WORKER)
LIGHT_PACKAGES += tuple(f"{LIBRARY}.{name}" for name in ("engine.engine", "commands.cli", "api"))


def is_under(name: str, prefix: str) -> bool:
    return prefix == ANYTHING or name == prefix or name.startswith(f"{prefix}.")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST, package: str, lazy: bool = False) -> Iterator[tuple[int, str, bool]]:
    """Line, absolute name, and whether it happens in a function, of every import; relative ones resolved."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (start, node.module) if part)
            yield from ((node.lineno, f"{base}.{alias.name}", lazy) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            yield from ((node.lineno, name.value, lazy) for name in node.args[:1] if isinstance(name, ast.Constant))
        is_later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        is_for_types = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        yield from imports_of(node, package, lazy or is_later or is_for_types)


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What a module's source imports against the law, one line each."""
    key = max((key for key in LAW if is_under(module, key)), key=len)
    rule = LAW[key]
    found = []
    for line, name, lazy in imports_of(ast.parse(source), module if is_package else module.rpartition(".")[0]):
        allowed = rule.always + (rule.lazily if lazy else ())
        lawful = name.split(".")[0] in sys.stdlib_module_names or name == f"{LIBRARY}.__version__"
        if not lawful and not any(is_under(name, prefix) for prefix in allowed):
            where = "in functions, " if not lazy and any(is_under(name, prefix) for prefix in rule.lazily) else ""
            found.append(f"{module}:{line} imports {name}; {key} may import it only {where}of: {', '.join(allowed)}")
    return found


def test_every_import_keeps_the_law():
    paths = [*ROOT.glob(f"{LIBRARY}/**/*.py"), *ROOT.glob("FoundationSeg/**/*.py")]
    assert {module_name(path) for path in paths} >= {LIBRARY, f"{IMAGING}.geometry", f"{WORKER}.client"}
    found = [
        line
        for path in sorted(paths)
        for line in violations(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "culprit"),
    [
        ("imaging.masks", "import torch", "torch"),
        ("imaging.masks", "def f():\n    from torch.nn import functional", "torch.nn.functional"),
        ("imaging.masks", "from ..hub.store import Store", f"{HUB}.store.Store"),
        ("imaging.masks", "from .. import hub", HUB),
        ("imaging.masks", "import FoundationSegLib.engine", ENGINE),
        ("imaging.masks", "import importlib\nimportlib.import_module('torch')", "torch"),
        (
            "imaging.masks",
            "if True:\n    try:\n        import scipy.ndimage\n    except ImportError:\n        pass",
            "scipy",
        ),
        ("imaging.masks", "import math, numpy as np\nfrom .geometry import Box\nfrom .. import __version__", None),
        ("hub.fetch", "import huggingface_hub", "huggingface_hub"),
        ("hub.fetch", "async def f():\n    from huggingface_hub import HfApi", None),
        ("models.sam", "from ..engine.device import choose_device", ENGINE),
        ("worker.server", "from ..engine.engine import Engine", "only in functions"),
        ("worker.server", "def f():\n    from ..engine.engine import Engine", None),
        ("mrml.rendering.window", "from ...io import images", IO),
        ("novel.thing", "import numpy", "numpy"),
    ],
)
def test_a_planted_import_is_caught(tmp_path, module, source, culprit):
    path = tmp_path / "planted.py"
    path.write_text(source, encoding="utf-8")
    found = violations(path.read_text(encoding="utf-8"), f"{LIBRARY}.{module}")
    assert len(found) == (culprit is not None)
    assert culprit is None or culprit in found[0]


def test_a_package_counts_its_dots_from_itself():
    assert violations("from .masks import Edit", IMAGING, is_package=True) == []
    assert violations("from ..hub import store", IMAGING, is_package=True) != []


def modules_of(package: str) -> list[str]:
    """The modules of a package, or the module of that name."""
    place = ROOT / package.replace(".", "/")
    return [module_name(path) for path in sorted(place.rglob("*.py")) or [place.with_suffix(".py")]]


def load(*modules: str, beyond: str = "numpy") -> tuple[float, set[str]]:
    """Import modules in a Python of its own: a processor's milliseconds beyond others, and the packages that came."""
    code = f"""
import gc, sys, time, {beyond}
gc.collect()  # what is there already is not ours
before, start = set(sys.modules), time.process_time()
import {", ".join(modules)}
print((time.process_time() - start) * 1000, *set(sys.modules) - before)
"""
    run = subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=True)
    taken, *loaded = run.stdout.split()
    # SimpleITK's wrapper leaves swig_runtime_data behind
    return float(taken), {name.split(".")[0] for name in loaded if not name.startswith("swig_runtime_data")}


def heavy_imports(*packages: str) -> set[str]:
    """The third parties' packages that importing ours loads."""
    _, loaded = load(*(name for package in packages for name in modules_of(package)))
    return loaded - sys.stdlib_module_names - LIGHT


def test_importing_the_light_parts_loads_nothing_heavy():
    """All of them in one Python; each in one of its own only where the culprit is looked for."""
    if heavy_imports(*LIGHT_PACKAGES):
        heavy = {package: heavy_imports(package) for package in LIGHT_PACKAGES}
        pytest.fail("\n".join(f"importing {name} loads {', '.join(sorted(of))}" for name, of in heavy.items() if of))


def test_an_adaptation_loads_none_of_the_packages_that_measure_segments():
    assert "monai" not in load(f"{ENGINE}.adaptation")[1]


def test_nothing_on_slicers_side_loads_torch():
    _, loaded = load(
        *(name for part in (*VALUES, SESSION) for name in modules_of(part)), *modules_of(MRML), *modules_of(WORKER)
    )
    assert {"slicer", LIBRARY} <= loaded
    assert not loaded & set(TORCH)


def test_the_values_load_themselves_and_little_else(bar):
    """The time of Slicer's side, the best of a few since another process may be at work, is noted and not asserted."""
    _, loaded = load(LIBRARY, *(name for part in (*VALUES, SESSION) for name in modules_of(part)))
    assert loaded - sys.stdlib_module_names <= {LIBRARY, "numpy"}
    side = (MRML, f"{LIBRARY}.controller", f"{LIBRARY}.api")
    taken = min(load(*side, beyond="numpy, slicer, vtk")[0] for _ in range(3))
    bar("import of Slicer's side beyond numpy, slicer and vtk, a processor's ms", taken, "< 60")
