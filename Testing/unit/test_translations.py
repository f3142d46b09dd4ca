"""Every text of the panel goes through Slicer's translation: as a literal, with its values set in afterwards."""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "FoundationSeg").rglob("*.py"))
# Calls and arguments that show a text to the user.
# `error_text` shows a message of the library, which is English, as `architecture.md` says; nothing else does.
SHOWS = {
    *("setText", "setToolTip", "setWindowTitle", "setFormat", "setPlaceholderText", "addItem", "addAction"),
    *(
        "QLabel",
        "showStatusMessage",
        "_say",
        "errorDisplay",
        "confirmOkCancelDisplay",
        "InputError",
        "PackageError",
        "FoundationSegError",
    ),
}
PROPERTIES = {"text", "toolTip", "title", "placeholderText"}
WORDS = re.compile(r"[A-Za-z]{2,} [A-Za-z]{2,}|^[A-Z][a-z]{3,}$")


def literals(node):
    """Texts of an expression that are not inside a translation."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("_", "translate"):
        return
    if (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and WORDS.search(re.sub("<[^>]*>", "", node.value))
    ):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from literals(child)


def untranslated(source):
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in ("_", "translate"):
                texts = node.args[-1:]
                if not isinstance(texts[0], ast.Constant):
                    yield f"{node.lineno}: {ast.unparse(node)} is no literal"
            elif re.search(r"(str\(|=)error\)$", ast.unparse(node)) and "def error_text" not in source:
                yield f"{node.lineno}: a message of the library that is not shown by `error_text`"
            elif name in SHOWS:
                yield from (f"{node.lineno}: {text}" for argument in node.args for text in literals(argument))
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "attr", "") in PROPERTIES:
            yield from (f"{node.lineno}: {text}" for text in literals(node.value))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_every_text_is_translated(path):
    found = list(untranslated(path.read_text(encoding="utf-8")))
    assert not found, f"{path.name}\n" + "\n".join(found)


@pytest.mark.parametrize("path", sorted((ROOT / "FoundationSeg").rglob("*.ui")), ids=lambda path: path.name)
def test_every_text_of_a_form_is_translated_by_its_loader(path):
    """`QUiLoader`, by which `slicer.util.loadUI` reads them, translates texts, with the class as their context."""
    form = ElementTree.parse(path).getroot()
    assert form.findtext("class") == path.stem
    texts = [text for name in PROPERTIES for text in form.iterfind(f".//property[@name='{name}']/string")]
    assert texts and not [text.text for text in texts if text.get("notr") == "true" and WORDS.search(text.text)]


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("ui.label.setText('Not there yet')", 1),
        ("ui.label.text = f'{n} is not there'", 1),
        ("raise InputError('choose an image')", 1),
        ("ui.label.setText(_(f'{n} segments here'))", 1),
        ("ui.label.setText(_('{n} segments here').format(n=3))", 0),
        ("ui.box.addItem('1, 2')", 0),
        ("ui.label.setText(str(error))", 1),
        ("ui.label.text = _('It failed: {reason}').format(reason=error)", 1),
    ],
)
def test_texts_without_it_are_found(source, count):
    assert len(list(untranslated(source))) == count
