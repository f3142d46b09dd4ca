"""The display window of a header: the first of several, none where it makes no sense."""

import pytest

from FoundationSegLib.io.dicom_display import display_window, is_inverted
from FoundationSegLib.io.raw import PHOTOMETRIC, WINDOW_CENTRE, WINDOW_WIDTH


@pytest.mark.parametrize(
    ("width", "centre", "window"),
    [
        ("400", "40", (400, 40)),
        ("400 \\1500", "40\\-600", (400, 40)),
        ("0", "40", None),
        ("-5", "40", None),
        ("nan", "40", None),
        ("", "40", None),
        ("wide", "40", None),
    ],
)
def test_window(width: str, centre: str, window: tuple[float, float] | None) -> None:
    assert display_window({WINDOW_WIDTH: width, WINDOW_CENTRE: centre}) == window


def test_no_window() -> None:
    assert display_window({}) is None
    assert display_window({WINDOW_WIDTH: "400"}) is None


def test_is_inverted() -> None:
    assert is_inverted({PHOTOMETRIC: "MONOCHROME1"})
    assert not is_inverted({PHOTOMETRIC: "MONOCHROME2"})
    assert not is_inverted({})
