import argparse
from pathlib import Path

import pytest

from FoundationSegLib.commands.targets import path_argument, require_targets, text_writer, write_text, write_together
from FoundationSegLib.errors import OutputError


def test_an_empty_path_is_not_the_working_folder():
    assert path_argument("a/b") == Path("a/b")
    with pytest.raises(argparse.ArgumentTypeError, match="is empty"):
        path_argument("")


def test_what_is_read_is_not_replaced_by_whatever_name(tmp_path):
    image = tmp_path / "image.nrrd"
    image.touch()
    (tmp_path / "link.nrrd").symlink_to(image)
    sources = {"the image": image}
    for name in ("image.nrrd", "link.nrrd", "./image.nrrd"):
        with pytest.raises(OutputError, match=r"--report .* would replace the image; choose another name"):
            require_targets({"report": tmp_path / name}, sources)
    require_targets({"report": tmp_path / "new.json", "output": None}, sources)


def test_nothing_is_written_twice(tmp_path):
    with pytest.raises(OutputError, match=r"--report x\.json would replace --output"):
        require_targets({"output": tmp_path / "x.json", "report": tmp_path / "x.json"}, {})


def test_what_cannot_be_written_is_found_out(tmp_path):
    with pytest.raises(OutputError, match=r"x\.json"):
        require_targets({"report": tmp_path / "nowhere" / "x.json"}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_text_keeps_its_ends_of_lines(tmp_path):
    write_together([text_writer(tmp_path / "a.csv", "ä\r\nb\n")])
    assert (tmp_path / "a.csv").read_bytes() == b"\xc3\xa4\r\nb\n"
    with pytest.raises(OutputError, match=r"none\.csv cannot be written"):
        write_text(tmp_path / "nowhere" / "none.csv", "a")
