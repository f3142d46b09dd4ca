"""The Extension Index would take this project; each check of it finds what is planted.

With EXTENSIONS_INDEX_SOURCE naming a checkout of Slicer/ExtensionsIndex, the index's own script is run too (in Python
3.12), and with SLICER_SOURCE (Slicer/Slicer) the table of the schema is held against the schema.
"""

import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from Testing.unit import index_checks, source_checks
from Testing.unit.index_checks import ENTRY, NAME, PROPERTIES, SCHEMA, checklist, read_entry
from Testing.unit.project_files import ROOT, copy_of_project

CHECKS = {check.__name__: check for check in index_checks.CHECKS + source_checks.CHECKS}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that is spoilt and mended."""
    return copy_of_project(tmp_path_factory.mktemp("project"))


@pytest.mark.parametrize("check", CHECKS)
def test_the_project_passes(check):
    assert CHECKS[check](ROOT) == []


def test_the_eleven_questions_of_the_index_are_answered():
    """Each answer names checks that pass, by the test above; and they would notice."""
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = text.partition("| the index's program asks | answer | held by |\n|---|---|---|\n")[2].partition("\n\n")[0]
    table = [[cell.strip() for cell in row.strip("| ").split("|")] for row in rows.strip().splitlines()]
    assert len(table) == 11 and all(question.endswith("?") and answer for question, answer, _ in table)
    assert {name for row in table for name in re.findall(r"`(\w+)`", row[2])} <= set(CHECKS)
    assert all("`" in row[2] for row in table)


@pytest.mark.parametrize(
    ("check", "name", "old", "new"),
    [
        ("wrong_summary", "README.md", "Segment medical images in", "It."),
        ("wrong_tutorial", "Resources/Documentation/tutorial.md", "Sample Data", "somewhere"),
        ("wrong_transfers", "FoundationSegLib/progress.py", "import re", "import http.client"),
        ("wrong_removal", "FoundationSeg/Resources/UI/Setup.ui", "removeButton", "otherButton"),
    ],
)
def test_each_new_check_finds_what_is_planted(project, check, name, old, new):
    path = project / name
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(old, new), encoding="utf-8")
    assert CHECKS[check](project)
    path.write_text(text, encoding="utf-8")


def test_the_schema_is_the_newest_and_as_the_table_has_it():
    folder = os.environ.get("SLICER_SOURCE")
    if not folder:
        pytest.skip("SLICER_SOURCE names no checkout")
    paths = sorted(Path(folder, "Schemas").glob("slicer-extension-catalog-entry-schema-v*.json"))
    assert SCHEMA.endswith(f"/{paths[-1].name}#")
    schema = json.loads(paths[-1].read_text(encoding="utf-8"))
    types = {"string": str, "array": list, "boolean": bool, "integer": int}
    assert schema["additionalProperties"] is False
    properties = {key: (types[value["type"]], key in schema["required"]) for key, value in schema["properties"].items()}
    assert properties == PROPERTIES


@pytest.fixture
def index() -> SimpleNamespace:
    """The index's own script, which finds this project's files behind the addresses of its repository."""
    folder = os.environ.get("EXTENSIONS_INDEX_SOURCE")
    if not folder:
        pytest.skip("EXTENSIONS_INDEX_SOURCE names no checkout")
    if sys.version_info < (3, 12):
        pytest.skip("the index's script is written for Python 3.12")
    spec = importlib.util.spec_from_file_location("index_script", Path(folder, "scripts", "check_description_files.py"))
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return SimpleNamespace(script=script, folder=Path(folder))


def answer(folder: Path, url: str) -> SimpleNamespace:
    """What a web server would say to a request for a file of this project, or for a schema."""
    repository = read_entry(ROOT)["scm_url"].removesuffix(".git").replace("github.com", "raw.githubusercontent.com")
    path = ROOT / url.removeprefix(f"{repository}/main/")
    if "/Schemas/" in url:
        path = folder / "schemas" / url.rpartition("/")[2]
    kind = {".png": "image/png", ".jpg": "image/jpeg", ".json": "application/json"}[path.suffix]
    content = path.read_bytes()
    return SimpleNamespace(
        headers={"Content-Type": kind}, raise_for_status=lambda: None, json=lambda: json.loads(content)
    )


def test_the_indexs_own_checks_pass(index, project):
    script, entry = index.script, read_entry(ROOT)
    script.requests = SimpleNamespace(get=lambda url, **_: answer(index.folder, url), RequestException=OSError)
    script.check_json_file_format(NAME, entry, ROOT / ENTRY)
    script.check_extension_name(NAME, entry)
    script.check_category(NAME, entry)
    script.check_git_repository_name(NAME, entry)
    script.check_scm_url_syntax(NAME, entry)
    script.check_repository_size(NAME, entry, cloned_repository_folder=project)
    script.check_cmakelists_content(NAME, entry, cloned_repository_folder=project)
    script.check_license_file(NAME, entry, project)
    assert all((index.folder / f"{name}.json").is_file() for name in entry["build_dependencies"])


def test_the_checklist_is_the_indexs(index):
    template = (index.folder / ".github" / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")
    assert len(checklist(ROOT)) == template.partition("## Tier 5")[0].count("- [ ]")


def test_the_indexs_own_schema_check_passes(index):
    pytest.importorskip("jsonschema")
    script, entry = index.script, read_entry(ROOT)
    script.requests = SimpleNamespace(get=lambda url, **_: answer(index.folder, url), RequestException=OSError)
    script.check_json_schema(NAME, entry)
    with pytest.raises(script.ExtensionCheckError, match="icon"):
        script.check_json_schema(NAME, {**entry, "icon": "x"})
