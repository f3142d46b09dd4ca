"""Nothing of ITK reaches the terminal, everything of ours does."""

import os
import sys

import pytest
import SimpleITK as sitk

from FoundationSegLib.io.quiet import quiet


def test_lines_are_caught_and_the_terminal_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    sys.stdout.write("before\n")
    with quiet() as lines:
        os.write(1, b"to standard output\n")
        os.write(2, b"to standard error\n")
    sys.stdout.write("after\n")
    sys.stderr.write("error\n")
    assert lines == ["to standard output", "to standard error"]
    assert capfd.readouterr() == ("before\nafter\n", "error\n")


def test_nested_and_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="stop"), quiet(), quiet():
        os.write(2, b"hidden\n")
        raise ValueError("stop")
    os.write(2, b"shown\n")
    assert capfd.readouterr().err == "shown\n"


@pytest.mark.parametrize("shown", [False, True])
def test_itk_warnings_are_as_before(shown: bool) -> None:
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    try:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)
        with quiet():
            assert not sitk.ProcessObject.GetGlobalWarningDisplay()
        assert sitk.ProcessObject.GetGlobalWarningDisplay() is shown
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
