import io
import sys

import pytest

from FoundationSegLib.commands.terminal import ProgressLine, announce_download, one_line, say
from FoundationSegLib.progress import ProgressReport
from Testing.unit.fakes import fake_card, fake_document


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def look(monkeypatch):
    """From the call on somebody looks at stderr; returns what is written to it."""

    def at_stderr():
        monkeypatch.setattr(sys, "stderr", Terminal())
        return sys.stderr

    return at_stderr


def test_what_is_said_goes_to_stderr_on_one_line(capsys):
    say("a\nb")
    assert capsys.readouterr() == ("", "a b\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        (" a \r\n\t b ", "a b"),
        ("\x1b[2Jgone\x07", "[2Jgone"),
        ("Körper 影像", "Körper 影像"),
        ("a\u2028b\u202ec\ud800d\x9be", "a b c d e"),
    ],
)
def test_nothing_but_a_line_of_text_comes_through(text, line):
    assert one_line(text) == line


def test_a_download_is_announced_with_its_size_and_origin(capsys):
    announce_download(fake_card(source=fake_document()["source"] | {"download_bytes": 36_580_895}))
    announce_download(fake_card(source=fake_document()["source"] | {"kind": "hub", "repository": "fake/wheel"}))
    wheel, hub = capsys.readouterr().err.splitlines()
    assert wheel == "Downloading Fake Model (37 MB, MIT) from fake-wheel 1.0 on the Python Package Index"
    assert hub.endswith("from fake/wheel 1.0 on the Hugging Face Hub")


def test_progress_is_silent_where_nobody_looks(capsys):
    line = ProgressLine()
    line.show(ProgressReport("slices", 1, 2))
    line.clear()
    assert capsys.readouterr() == ("", "")


def test_progress_stays_on_one_line_and_goes(look):
    terminal = look()
    line = ProgressLine()
    line.show(ProgressReport("slices", 9, 10))
    line.show(ProgressReport("slices", 1, 2))
    line.clear()
    line.clear()
    first, second, gone, end = terminal.getvalue().split("\r")[1:]
    assert first == "Segmenting 9/10"
    assert second.rstrip() == "Segmenting 1/2"
    assert len(second) == len(first), "nothing of the longer text stays"
    assert gone.strip() == ""
    assert end == ""


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (ProgressReport("download", 12_300_000, 36_600_000), "Downloading 12/37 MB"),
        (ProgressReport("download", 0, 0), "Downloading"),
        (ProgressReport("novel", 1, 3), "novel 1/3"),
    ],
)
def test_stages_are_named(look, report, text):
    terminal = look()
    ProgressLine().show(report)
    assert terminal.getvalue() == f"\r{text}"
