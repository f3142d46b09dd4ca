"""Make `inventory.json.gz`: what Slicer's Qt classes show to Python.

    python -m Testing.gui.reduce_inventory WIDGETS.json GAPS.json

`WIDGETS.json` lists every class that Slicer 5.12 shows to Python, with its properties, signals, methods and enums, made
from the headers of Slicer, CTK and Qt 5.15; `GAPS.json` the signals that PySide6 lacks of them. What the stand-in does
not read is left out. Only facts are kept: names, types, signatures.
"""

import gzip
import json
import sys
from pathlib import Path

TARGET = Path(__file__).with_name("inventory.json.gz")
UNREAD = ("slots", "notify", "shell")


def reduced(widgets: dict, gaps: dict) -> dict:
    classes = {
        name: {key: value for key, value in facts.items() if key not in UNREAD} for name, facts in widgets.items()
    }
    return {"classes": classes, "signals_absent_in_pyside6": gaps["signal_overloads_absent_in_pyside6"]}


def main(widgets_path: str, gaps_path: str) -> None:
    widgets, gaps = (json.loads(Path(path).read_text()) for path in (widgets_path, gaps_path))
    text = json.dumps(reduced(widgets, gaps), separators=(",", ":")).encode()
    TARGET.write_bytes(gzip.compress(text, 9, mtime=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
