"""Measure the structure of a checkout against its limits: files, lines, circles, names, docstrings, tests, README.

    python3 Testing/run.py house [FOLDER] [--list]

Prints a table, and with `--list` each place that counts. Exits 1 above a limit. Needs the standard library alone.
"""

import argparse
import ast
import io
import itertools
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Lines of code added for what did not exist then: the faults found in use, with their checks and reports.
SHARE_OF_FAULTS = 1_417
SHARE_OF_PANEL = 1_734  # the daily path of the panel, its keys, tour and templates; what its segments and messages say
SHARE_OF_COHORTS = 1_601  # `batch`: cases, the cluster, table and page; DICOM segmentations and measurements; reports
SHARE_OF_LIGHT_MODELS = 130  # EdgeTAM and MobileSAM, which model is offered for a click, drafts at a resolution
SHARE_OF_ADAPTATION = 2_318  # training and its test, cards of results, the command, the dialog; more objects like one
SHARE_OF_ARCHIVES_AND_AGENTS = 1_710  # `pacs`, `mcp` and agents in Slicer, `--frame all`, sequences in Slicer
SHARE_OF_FINDINGS = 1_559  # heads from few examples, the tab with its table and chart, priors, counts of answers
SHARE_OF_VOLUME_CLASSIFIERS = 1_256  # models that read whole volumes, specialists, a model's domain
SHARE_OF_EDITOR_EFFECT = 270  # prompts in Slicer's Segment Editor
SHARE_OF_OBLIQUE_VIEWS = 380  # answers in any plane that a slice view shows
SHARE_OF_DOUBT = 494  # doubtful slices, maps of uncertainty, interpolation between slices
SHARE_OF_ENVIRONMENT = 438  # a Python environment of the worker's own
SHARE_OF_SPEED = 148  # precisions and kernels of the processor, a volume's work done once, images to the worker
# The limit of each measure, and its value then: of commit 5973c8a, before the folders were rebuilt. Of the
# files, 180 are for what existed then, and of the code 21,649 lines (nine tenths of then), beside the shares:
# that number is only ever lowered.
LIMITS = {
    "product files": (200, 306),
    "lines of code, without comments and docstrings": (
        21_649
        + SHARE_OF_FAULTS
        + SHARE_OF_PANEL
        + SHARE_OF_COHORTS
        + SHARE_OF_LIGHT_MODELS
        + SHARE_OF_ADAPTATION
        + SHARE_OF_ARCHIVES_AND_AGENTS
        + SHARE_OF_FINDINGS
        + SHARE_OF_VOLUME_CLASSIFIERS
        + SHARE_OF_EDITOR_EFFECT
        + SHARE_OF_OBLIQUE_VIEWS
        + SHARE_OF_DOUBT
        + SHARE_OF_ENVIRONMENT
        + SHARE_OF_SPEED,
        24_055,
    ),
    "longest product file, lines": (500, 399),
    "fullest folder, files": (20, 67),
    "files under 60 lines, %": (5, 18.1),
    "import circles": (0, 2),
    "repeated type names": (0, 15),
    "names that say nothing, %": (1, 5.3),
    "docstrings that begin with What, Who, Told or See": (0, 328),
    "monkeypatch.setattr in tests": (80, 245),
    "monkeypatch.setattr on modules of the product": (10, 138),
    "lines of test to one of product": (1.15, 1.32),
    "README, lines": (200, 719),
    "README, line of its first command": (40, 592),
}
SMALL = 60  # lines
# A subprocess may be called a process; a function may not.
SAYS_NOTHING = re.compile(
    r"_*(answered|asked|data|found|given|handler|held|helpers?|info|it|kept|known|lack|made|manager|ones?|places?|seen"
    r"|shown|stuff|taken|that|things?|this|tmp|told|utils?|wanted|what|whatever|which|process(?=\(\)))(\(\))?"
)
VAGUE_OPENINGS = ("What ", "Who ", "Told ", "See ")
FIRST_COMMAND = re.compile(r"(\$ )?(git clone|python3? Testing/run\.py)\b")
NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@dataclass(frozen=True, slots=True)
class Source:
    """A Python file: its path within the checkout with forward slashes, its text, and what that means."""

    name: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def module(self) -> tuple[str, ...]:
        """The dotted name; modules of the panel are imported from the folder FoundationSeg."""
        parts = tuple(self.name.removeprefix("FoundationSeg/").removesuffix(".py").split("/"))
        return parts[:-1] if parts[-1] == "__init__" else parts

    def at(self, node: ast.AST, words: str = "") -> str:
        return f"{self.name}:{getattr(node, 'lineno', 1)} {words.splitlines()[0] if words else ''}"


def read_sources(root: Path, *folders: str) -> list[Source]:
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    texts = {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in paths}
    return [Source(name, text, ast.parse(text)) for name, text in texts.items()]


def docstrings(source: Source) -> Iterator[tuple[str, ast.Expr]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield text, node.body[0]


def code_lines(source: Source) -> int:
    """Lines that hold code: neither blank, nor comment or docstring alone."""
    tokens = tokenize.generate_tokens(io.StringIO(source.text).readline)
    lines = {n for t in tokens if t.type not in NOT_CODE for n in range(t.start[0], t.end[0] + 1)}
    return len(lines.difference(n for _, node in docstrings(source) for n in range(node.lineno, node.end_lineno + 1)))


def imports(source: Source, modules: Collection[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """The product's modules that a file imports at any level: in functions and for type checkers, too."""
    package = source.module if source.name.endswith("/__init__.py") else source.module[:-1]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (name for alias in node.names if (name := tuple(alias.name.split("."))) in modules)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            base += tuple(node.module.split(".")) if node.module else ()
            yield from (name for alias in node.names for name in ((*base, alias.name), base) if name in modules)


def import_circles(product: Sequence[Source]) -> list[str]:
    """Modules that import each other, be it through others: strongly connected components."""
    modules = {source.module: source for source in product}
    reached = {module: set(imports(source, modules)) for module, source in modules.items()}
    for through, start in itertools.product(modules, modules):
        if through in reached[start]:
            reached[start] |= reached[through]
    circles = {frozenset(other for other in reached[module] if module in reached[other]) for module in modules}
    return [" <-> ".join(sorted(map(".".join, circle))) for circle in circles if len(circle) > 1]


def given_names(source: Source) -> Iterator[tuple[str, ast.AST]]:
    """Names of variables, attributes, arguments, classes and, with brackets behind, functions."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr, node
        elif isinstance(node, ast.arg) and node.arg not in ("self", "cls"):
            yield node.arg, node
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name if isinstance(node, ast.ClassDef) else f"{node.name}()", node


def patches(source: Source) -> Iterator[tuple[ast.Call, bool]]:
    """Calls of monkeypatch.setattr; True where they change what was imported from the product."""
    nodes = list(ast.walk(source.tree))
    ours = {
        (alias.asname or alias.name).split(".")[0]
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
        if (getattr(node, "module", None) or alias.name).startswith("FoundationSeg")
    }
    for node in nodes:
        if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) == "monkeypatch.setattr":
            target = ast.unparse(node.args[0]).strip("'\"").split(".")[0]
            yield node, target in ours or target.startswith("FoundationSeg")


def measure(root: Path) -> dict[str, tuple[float, list[str]]]:
    """Each value of :data:`LIMITS` and, where there are any, the places that count."""
    product, tests = read_sources(root, "FoundationSeg", "FoundationSegLib"), read_sources(root, "Testing")
    if not product:
        raise SystemExit(f"run.py house: {root} is no checkout of FoundationSeg")
    readme = (root / "README.md").read_text(encoding="utf-8").splitlines()
    folders = Counter(source.name.rpartition("/")[0] for source in product).most_common(5)
    longest = max(product, key=lambda source: source.lines)
    ordinary = [source for source in product if not source.name.endswith(("__init__.py", "__main__.py"))]
    small = [f"{source.name}: {source.lines}" for source in ordinary if source.lines < SMALL]
    names = [(name, source.at(node, name)) for source in product for name, node in given_names(source)]
    empty = [place for name, place in names if SAYS_NOTHING.fullmatch(name)]
    classes = [(n.name.strip("_"), s) for s in product for n in ast.walk(s.tree) if isinstance(n, ast.ClassDef)]
    repeated = [name for name, count in Counter(name for name, _ in classes).items() if count > 1]
    vague = [s.at(node, text) for s in product for text, node in docstrings(s) if text.startswith(VAGUE_OPENINGS)]
    patched = [(source.at(call, ast.unparse(call)), is_ours) for source in tests for call, is_ours in patches(source)]
    lines_of_tests, lines_of_product = (sum(source.lines for source in sources) for sources in (tests, product))
    commands = [number for number, line in enumerate(readme, 1) if FIRST_COMMAND.match(line)]
    counted = {  # by their places alone
        "import circles": import_circles(product),
        "repeated type names": [f"{n}: {', '.join(s.name for m, s in classes if m == n)}" for n in repeated],
        "docstrings that begin with What, Who, Told or See": vague,
        "monkeypatch.setattr in tests": [place for place, _ in patched],
        "monkeypatch.setattr on modules of the product": [place for place, is_ours in patched if is_ours],
    }
    return {name: (len(places), places) for name, places in counted.items()} | {
        "product files": (len(product), []),
        "lines of code, without comments and docstrings": (sum(map(code_lines, product)), []),
        "longest product file, lines": (longest.lines, [longest.name]),
        "fullest folder, files": (folders[0][1], [f"{folder}: {count}" for folder, count in folders]),
        "files under 60 lines, %": (100 * len(small) / max(1, len(ordinary)), small),
        "names that say nothing, %": (100 * len(empty) / max(1, len(names)), empty),
        "lines of test to one of product": (lines_of_tests / lines_of_product, []),
        "README, lines": (len(readme), []),
        "README, line of its first command": (min(commands, default=len(readme)), []),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="run.py house", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).resolve().parents[1])
    parser.add_argument("--list", action="store_true", help="name each place that counts")
    options = parser.parse_args(arguments)
    measured = measure(options.folder.resolve())
    print(f"{'measure':<52}{'value':>9}{'limit':>9}{'then':>9}")
    for name, (limit, then) in LIMITS.items():
        value, places = measured[name]
        print(f"{name:<52}{value:>9,.5g}{limit:>9,.5g}{then:>9,.5g}{'  above' if value > limit else ''}")
        for place in places if options.list else ():
            print(f"    {place}")
    return int(any(measured[name][0] > limit for name, (limit, _) in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
