"""The module as it is: loaded, built, tested by its own test, closed."""

import sys
from pathlib import Path

MODULE = Path(__file__).resolve().parents[2] / "FoundationSeg" / "FoundationSeg.py"


def test_opens_and_closes(desk):
    widget = desk.open_module(MODULE)
    assert widget.parent.isEntered
    desk.close_module("FoundationSeg")
    assert "FoundationSeg" not in sys.modules


def test_its_own_test_passes(desk):
    desk.open_module(MODULE)
    import slicer

    slicer.selfTests["FoundationSeg"]()
