"""What the Extension Index checks of a proposal, and what its reviewers ask, as far as it can be told offline.

Each check takes the project's folder and returns its complaints. The rules are those of Slicer/ExtensionsIndex
(``scripts/check_description_files.py``, ``.github/PULL_REQUEST_TEMPLATE.md``, 2026-08); what is asked of the Python
sources is in ``source_checks.py``.
"""

import json
import os
import re
import struct
import subprocess
from pathlib import Path
from typing import Any

from Testing.unit.project_files import project_files

NAME = "FoundationSeg"
ENTRY = f"Resources/{NAME}.json"
SCHEMA = (
    "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas/slicer-extension-catalog-entry-schema-v1.0.2.json#"
)
# The properties of that schema; those with True have to be there.
PROPERTIES = {
    "$schema": (str, True),
    "category": (str, True),
    "scm_url": (str, True),
    "scm_revision": (str, False),
    "scm_type": (str, False),
    "build_dependencies": (list, False),
    "dicom_support_rule": (str, False),
    "build_subdirectory": (str, False),
    "enabled": (bool, False),
    "tier": (int, False),
}
LICENSES = ("LICENSE", "LICENCE", "License.txt", "license.txt", "LICENSE.txt", "COPYING", "COPYING.txt")
MOST_BYTES = 100 * 2**20
MOST_BYTES_OF_A_FILE = 2 * 2**20
ICON_SIZE = (128, 128)
IMAGES = {".png": b"\x89PNG\r\n\x1a\n", ".jpg": b"\xff\xd8\xff", ".jpeg": b"\xff\xd8\xff", ".gif": b"GIF8"}
# What the stand-in of Slicer's widgets knows of them: facts, squeezed; and small files that an earlier version wrote.
WANTED = (
    "Testing/slicer_standin/inventory.json.gz",
    "Testing/fixtures/scene.mrb",
    "Testing/fixtures/transformed.mrb",
    "Testing/fixtures/seed.seg.nrrd",
    "Testing/fixtures/store/models/fake/1.0/fake.pth",
)
UNWANTED = (
    *(".pyc", ".so", ".dll", ".exe", ".whl", ".zip", ".gz", ".pth", ".pt", ".ckpt", ".safetensors", ".onnx"),
    *(".nrrd", ".nii", ".mha", ".dcm", ".mrb", ".cxx", ".h"),
)
_GITHUB = re.compile(r"https://(?:raw\.githubusercontent|github)\.com/([\w.-]+)/SlicerFoundationSeg")
_CONNECTION = re.compile(
    r"(?m)^\s*(?:import|from) (?:urllib\.request|http|requests|httpx|aiohttp|huggingface_hub|dicomweb_client)\b"
    r"|import distributed|create_connection|create_server"
)
# Downloads that the user asks for, archives and clusters that he names, and the worker on loopback.
CONNECTING = frozenset(
    f"{NAME}Lib/{name}.py"
    for name in (
        *("hub/hugging_face", "hub/download", "models/weights", "models/segmentation/sam2", "installation/packages"),
        *("cohorts/cluster", "commands/pacs", "mcp_server", "worker/process", "worker/server"),
    )
)
_IMAGE_LINK = re.compile(r"!\[[^\]]*\]\(([^)\s]+)\)")


def read_entry(root: Path) -> dict[str, Any]:
    """The entry of the index."""
    return json.loads((root / ENTRY).read_text(encoding="utf-8"))


def cmake_value(root: Path, name: str) -> str:
    """An ``EXTENSION_`` value as the index reads it: by pattern, one literal string. Empty where there is none."""
    found = re.search(rf'set\s*\(EXTENSION_{name}\s*"([^"]+)"\)', (root / "CMakeLists.txt").read_text(encoding="utf-8"))
    return found[1] if found else ""


def wrong_entry(root: Path) -> list[str]:
    """The entry keeps the schema, and says what CMakeLists.txt says."""
    entry, complaints = read_entry(root), []
    complaints += [f"{key} is not in the schema" for key in entry.keys() - PROPERTIES.keys()]
    complaints += [f"{key} is missing" for key, (_, needed) in PROPERTIES.items() if needed and key not in entry]
    complaints += [
        f"{key} has the wrong type" for key in entry.keys() & PROPERTIES if type(entry[key]) is not PROPERTIES[key][0]
    ]
    if entry.get("$schema") != SCHEMA:
        complaints.append("$schema is not the current one")
    if entry.get("tier") not in range(1, 6):
        complaints.append("tier is not 1 to 5")
    if entry.get("build_dependencies") != cmake_value(root, "DEPENDS").split():
        complaints.append("build_dependencies and EXTENSION_DEPENDS differ")
    if entry.get("category") != cmake_value(root, "CATEGORY"):
        complaints.append("category and EXTENSION_CATEGORY differ")
    if entry.get("scm_url") != cmake_value(root, "HOMEPAGE") + ".git":
        complaints.append("scm_url and EXTENSION_HOMEPAGE differ")
    return complaints


def wrong_tier(root: Path) -> list[str]:
    """The checklist says of every line what its state is, and the entry claims tier 3 only when none is open."""
    states = [row[1].split(maxsplit=1)[0].rstrip(":;") for row in checklist(root)]
    complaints = [f"the checklist has a state {state!r}" for state in set(states) - {"done", "on", "open"}]
    if (read_entry(root).get("tier", 1) >= 3) != ("open" not in states):
        complaints.append("tier 3 and an open line in the checklist, or neither")
    return complaints


def checklist(root: Path) -> list[tuple[str, str]]:
    """What the index asks, and its state, line by line."""
    text = (root / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| the index asks | state |\n|---|---|\n")[2].partition("\n\n")[0]
    return [(row.split("|")[1].strip(), row.split("|")[2].strip()) for row in table.splitlines()]


def wrong_names(root: Path) -> list[str]:
    """The extension has the name of its entry, without "Slicer"; the repository is "Slicer" and that name."""
    first = re.search(r"project\s*\(\s*([^\s)]+)", (root / "CMakeLists.txt").read_text(encoding="utf-8"))
    url = read_entry(root).get("scm_url", "")
    complaints = []
    if not first or first[1] != NAME:
        complaints.append(f"the first project() of CMakeLists.txt is not {NAME}")
    if NAME.lower().startswith("slicer"):
        complaints.append("the extension's name starts with Slicer")
    if not re.fullmatch(rf"https://[^/]+/[\w.-]+/Slicer{NAME}\.git", url):
        complaints.append(f"scm_url is not that of a repository Slicer{NAME}")
    return complaints


def wrong_organisation(root: Path) -> list[str]:
    """Every address of the repository names the same organisation."""
    homepage = _GITHUB.match(cmake_value(root, "HOMEPAGE"))
    if not homepage:
        return ["EXTENSION_HOMEPAGE is no address of the repository"]
    complaints = []
    for name in _text_files(root):
        for organisation in set(_GITHUB.findall((root / name).read_text(encoding="utf-8"))) - {homepage[1]}:
            complaints.append(f"{name} names the organisation {organisation}, EXTENSION_HOMEPAGE {homepage[1]}")
    return complaints


def wrong_description(root: Path) -> list[str]:
    """One or two sentences, which CMake keeps whole."""
    said = cmake_value(root, "DESCRIPTION")
    complaints = [
        f"EXTENSION_{name} is missing" for name in ("DESCRIPTION", "CONTRIBUTORS") if not cmake_value(root, name)
    ]
    if ";" in said or "$" in said or "\n" in said:
        complaints.append("EXTENSION_DESCRIPTION has a character that CMake takes apart")
    if len(re.findall(r"[.!?](?:\s|$)", said)) not in (1, 2):
        complaints.append("EXTENSION_DESCRIPTION is not one or two sentences")
    return complaints


def wrong_images(root: Path) -> list[str]:
    """The icon and the screenshots lie behind literal addresses of raw files, in formats that the index takes."""
    complaints = []
    for name in ("ICONURL", "SCREENSHOTURLS"):
        urls = cmake_value(root, name).split()
        if not urls:
            complaints.append(f"EXTENSION_{name} is no literal string")
        for url in urls:
            complaints += [f"EXTENSION_{name}: {text}" for text in _wrong_image(root, url)]
    icon = _local(root, cmake_value(root, "ICONURL"))
    if icon.suffix == ".png" and icon.is_file() and struct.unpack(">II", icon.read_bytes()[16:24]) != ICON_SIZE:
        complaints.append("the icon is not 128 x 128")
    return complaints


def wrong_line_endings(root: Path) -> list[str]:
    """Lines end in LF, and the entry has no byte order mark."""
    complaints = [
        f"{name} has line endings that are not LF" for name in _text_files(root) if b"\r" in (root / name).read_bytes()
    ]
    if (root / ENTRY).read_bytes().startswith(b"\xef\xbb\xbf"):
        complaints.append(f"{ENTRY} starts with a byte order mark")
    return complaints


def wrong_license(root: Path) -> list[str]:
    """A licence file in the root, and its name on the first page."""
    if not any((root / name).is_file() for name in LICENSES):
        return ["no licence file in the root"]
    readme = (root / "README.md").read_text(encoding="utf-8")
    return [] if "Apache License 2.0" in readme else ["README.md does not name the licence"]


def wrong_readme(root: Path) -> list[str]:
    """The first page has the extension's name, an image of the project's own, and how to cite."""
    text = (root / "README.md").read_text(encoding="utf-8")
    images = _IMAGE_LINK.findall(text)
    complaints = [f"README.md shows {image}, which is not there" for image in images if not (root / image).is_file()]
    if not images:
        complaints.append("README.md shows no image")
    if not text.startswith(f"# {NAME}\n"):
        complaints.append("README.md does not start with the extension's name")
    if not re.search(r"(?mi)^#+ .*\b(cit(e|ation)|publication)\b", text):
        complaints.append("README.md does not say how to cite")
    return complaints


def wrong_size(root: Path) -> list[str]:
    """Files and history together stay below the limit; no single file is large, none is binary beside images."""
    names = project_files(root)
    complaints = [
        f"{name} is of a kind that does not belong here"
        for name in names
        if name.endswith(UNWANTED) and name not in WANTED
    ]
    sizes = {name: (root / name).stat().st_size for name in names}
    complaints += [f"{name} has {size} bytes" for name, size in sizes.items() if size > MOST_BYTES_OF_A_FILE]
    if sum(sizes.values()) + _history_bytes(root) > MOST_BYTES:
        complaints.append("the repository is larger than 100 MB")
    if "__pycache__" not in (root / ".gitignore").read_text(encoding="utf-8"):
        complaints.append(".gitignore lets __pycache__ in")
    return complaints


def wrong_summary(root: Path) -> list[str]:
    """The first page says at its top, in a short sentence, what the one module is for."""
    text = (root / "README.md").read_text(encoding="utf-8").split("\n\n")[1].replace("\n", " ")
    sentence = text.partition(". ")[0]
    modules = re.findall(
        r"add_subdirectory\((FoundationSeg\w*)\)", (root / "CMakeLists.txt").read_text(encoding="utf-8")
    )
    complaints = [] if 5 < len(sentence.split()) < 40 else ["README.md does not begin with a sentence on what it is"]
    return complaints if modules == [NAME] else [*complaints, "a module is not described"]


def wrong_tutorial(root: Path) -> list[str]:
    """The first page leads to a tutorial with numbered steps, pictures that are there, and the source of its images."""
    name = "Resources/Documentation/tutorial.md"
    text = (root / name).read_text(encoding="utf-8")
    images = [root / name / ".." / image for image in _IMAGE_LINK.findall(text)]
    facts = {
        "is not linked on the first page": f"]({name})" in (root / "README.md").read_text(encoding="utf-8"),
        "has no steps": len(re.findall(r"(?m)^\d+\. \*\*", text)) >= 5,
        "does not say where its images come from": "Sample Data" in text,
        "lacks a picture": len(images) > 1 and all(Path(os.path.normpath(image)).is_file() for image in images),
    }
    return [f"the tutorial {fault}" for fault, is_fine in facts.items() if not is_fine]


def wrong_transfers(root: Path) -> list[str]:
    """Connections are opened by the files that are known to, and the first page says what leaves the computer."""
    names = [name for name in project_files(root) if name.startswith(NAME) and name.endswith(".py")]
    found = {name for name in names if _CONNECTION.search((root / name).read_text(encoding="utf-8"))}
    complaints = [f"{name} opens connections, which nobody has looked at" for name in sorted(found - CONNECTING)]
    readme = (root / "README.md").read_text(encoding="utf-8")
    return complaints if "## Privacy\n" in readme else [*complaints, "README.md does not say what leaves the computer"]


def wrong_removal(root: Path) -> list[str]:
    """What is kept on the disk, models and private packages, has a button that removes it, and a page that names it."""
    folder = root / NAME / "Resources" / "UI"
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in ("Models.ui", "Setup.ui")}
    windows = [name for name, text in texts.items() if 'name="removeButton"' not in text]
    page = (root / "Resources" / "Documentation" / "installation.md").read_text(encoding="utf-8")
    return [f"{name} has no button that removes" for name in windows] + ["no page says how"] * ("**Remove" not in page)


CHECKS = (
    wrong_entry,
    wrong_tier,
    wrong_names,
    wrong_organisation,
    wrong_description,
    wrong_images,
    wrong_line_endings,
    wrong_license,
    wrong_readme,
    wrong_size,
    wrong_summary,
    wrong_tutorial,
    wrong_transfers,
    wrong_removal,
)


def _text_files(root: Path) -> list[str]:
    kinds = (".py", ".md", ".txt", ".toml", ".json", ".ui", ".cmake", "LICENSE")
    return [name for name in project_files(root) if name.endswith(kinds)]


def _local(root: Path, url: str) -> Path:
    """The file of the project behind an address of a raw file; a file that is not there for any other address."""
    branch = read_entry(root).get("scm_revision", "main")
    found = re.fullmatch(rf"https://raw\.githubusercontent\.com/[\w.-]+/Slicer{NAME}/{branch}/([^\s?#]+)", url)
    return root / (found[1] if found else "not an address of a raw file")


def _wrong_image(root: Path, url: str) -> list[str]:
    path = _local(root, url)
    if not path.is_file():
        return [f"{url} is no file of this project"]
    magic = IMAGES.get(path.suffix)
    if magic is None:
        return [f"{url} is neither PNG nor JPEG nor GIF"]
    return [] if path.read_bytes().startswith(magic) else [f"{url} is not what its ending says"]


def _history_bytes(root: Path) -> int:
    """What a clone brings along beside the files."""
    said = subprocess.run(("git", "count-objects", "-v"), cwd=root, capture_output=True, text=True, check=True).stdout
    counts = dict(re.findall(r"([\w-]+): (\d+)", said))
    return 1024 * (int(counts["size"]) + int(counts["size-pack"]))
