import copy
import errno
import inspect
import os
import pickle

import pytest

from FoundationSegLib import errors
from FoundationSegLib.errors import FoundationSegError, PromptError, logged_disk_error, write_failure


def test_one_base_catches_everything():
    classes = inspect.getmembers(errors, inspect.isclass)
    kinds = [kind for _, kind in classes if kind.__module__ == errors.__name__]
    assert len(kinds) > 5
    assert all(issubclass(kind, FoundationSegError) for kind in kinds)


@pytest.mark.parametrize(
    ("place", "text"), [("segments[2].prompts[0].corners", "segments[2].prompts[0].corners: is odd"), ("", "is odd")]
)
def test_prompt_error_says_where(place, text):
    error = PromptError("is odd", place)
    assert (str(error), error.location) == (text, place)


@pytest.mark.parametrize("twin", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_prompt_error_keeps_its_place_in_a_copy(twin):
    error = twin(PromptError("is odd", "segments[0]"))
    assert (str(error), error.location) == ("segments[0]: is odd", "segments[0]")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "; make room on the disk"),
        (errno.EDQUOT, "; make room on the disk"),
        (errno.EROFS, "; choose a folder that can be written"),
        (errno.EACCES, "; allow it, close the program that has the file open, or choose another folder"),
        (errno.ENOENT, "; make the folder first"),
        (errno.EFBIG, "; choose another folder"),
    ],
)
def test_room_is_to_be_made_where_there_is_none_and_nowhere_else(number, remedy):
    assert write_failure(OSError(number, os.strerror(number), "/home/somebody")) == os.strerror(number) + remedy


def test_a_full_disk_is_known_on_windows_and_in_what_pip_prints():
    error = OSError(errno.EINVAL, "There is not enough space on the disk")
    error.winerror = 112
    assert write_failure(error) == "There is not enough space on the disk; make room on the disk"
    for text in ("OSError: [Errno 28] No space left on device", "[WinError 112] There is not enough space on the disk"):
        assert logged_disk_error(f"ERROR: Exception:\n{text}: 'x'").errno == errno.ENOSPC
    assert logged_disk_error("Connection refused [Errno 111], [Errno 13] Permission denied") is None
