"""What the Extension Index asks of Python sources: light imports, no work at import, torch left to its extension.

Each check takes the project's folder and returns its complaints.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from Testing.unit.project_files import project_files
from Testing.unit.test_import_law import imports_of

# What Slicer itself brings along.
ALLOWED = {"numpy", "vtk", "SimpleITK", "slicer", "qt", "ctk", "SegmentEditorEffects"}
MODULE, LIBRARY = "FoundationSeg", "FoundationSegLib"
# Calls that make a constant of the module's files.
MAKERS = {"Path", "Path(__file__).resolve", "frozenset", "tuple", "dict.fromkeys", "re.compile", "TypeVar", "ParamSpec"}
# It is run and not imported.
PROGRAM = f"{LIBRARY}/__main__.py"
INSTALLERS = {"pip_install", "pip_ensure"}
ONLY_INSTALLER = "FoundationSeg/FoundationSegPanel/setup_dialog.py"
_TORCH = re.compile(r"torch(vision|audio)?\s*([=<>!~\[;].*)?")
_DEFINITION = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_CONSTANT = ast.Assign | ast.AnnAssign | ast.AugAssign


def heavy_imports(root: Path) -> list[str]:
    """What is imported at file scope by the module's files, and by the library's that come with them."""
    complaints, known = [], [name for name in _sources(root) if name.startswith(f"{MODULE}/")]
    for name in known:
        path = root / name
        package = _dotted(name) if path.name == "__init__.py" else _dotted(name).rpartition(".")[0]
        for line, imported, lazy in imports_of(_tree(path), package):
            own = [] if lazy else list(_own_files(root, imported))
            known += [file for file in own if file not in known]
            if not lazy and not own and imported.split(".")[0] not in ALLOWED | sys.stdlib_module_names:
                complaints.append(f"{name}:{line} imports {imported} at file scope")
    return complaints


def work_at_import(root: Path) -> list[str]:
    """What is done when a file is imported, beside definitions and constants."""
    complaints = []
    for name in _sources(root):
        for node in _tree(root / name).body if name != PROGRAM else ():
            is_fine = isinstance(node, _DEFINITION) or _is_text(node) or _is_harmless_condition(node)
            if isinstance(node, _CONSTANT):
                is_fine = name.startswith(f"{LIBRARY}/") or _calls(node) <= MAKERS
            if not is_fine:
                complaints.append(f"{name}:{node.lineno} works at import: {ast.unparse(node).splitlines()[0]}")
    return complaints


def installs_of_torch(root: Path) -> list[str]:
    """Where torch would be installed by anything but the PyTorch extension, or packages in more than one place."""
    complaints = []
    for name in _sources(root):
        calls = (node for node in ast.walk(_tree(root / name)) if isinstance(node, ast.Call))
        for node in calls if "pip" in (root / name).read_text(encoding="utf-8") else ():
            called = ast.unparse(node.func).rpartition(".")[2]
            texts = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}
            if called in INSTALLERS and name != ONLY_INSTALLER:
                complaints.append(f"{name}:{node.lineno} calls {called}, which {ONLY_INSTALLER} is for")
            if called in INSTALLERS or "pip" in texts:
                found = sorted(text for text in texts if isinstance(text, str) and _TORCH.fullmatch(text))
                complaints += [f"{name}:{node.lineno} installs {text}" for text in found]
    return complaints


CHECKS = (heavy_imports, work_at_import, installs_of_torch)


def _sources(root: Path) -> list[str]:
    folders = (f"{MODULE}/", f"{LIBRARY}/")
    return [name for name in project_files(root) if name.startswith(folders) and name.endswith(".py")]


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _dotted(name: str) -> str:
    """A file's name as it is imported: the module's folder is on the path, and the project's."""
    return name.removeprefix(f"{MODULE}/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _own_files(root: Path, imported: str) -> Iterator[str]:
    """The project's files that importing a name loads; none for the name of another's package."""
    parts = imported.split(".")
    for end in range(1, len(parts) + 1):
        for folder in (f"{MODULE}/", ""):
            stem = folder + "/".join(parts[:end])
            yield from (name for name in (f"{stem}.py", f"{stem}/__init__.py") if (root / name).is_file())


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_harmless_condition(node: ast.stmt) -> bool:
    """Imports for types alone, what a program does, and the search path for the source tree."""
    if not isinstance(node, ast.If):
        return False
    test, body = ast.unparse(node.test), [ast.unparse(statement) for statement in node.body]
    is_path = len(body) == 1 and body[0].startswith("sys.path.append(")
    return test.endswith("TYPE_CHECKING") or test == "__name__ == '__main__'" or is_path


def _calls(node: ast.AST) -> set[str]:
    """What is called now; the body of a lambda is for later."""
    found = {ast.unparse(node.func)} if isinstance(node, ast.Call) else set()
    parts = () if isinstance(node, ast.Lambda) else ast.iter_child_nodes(node)
    return found.union(*map(_calls, parts))
