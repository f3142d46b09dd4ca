import pytest

from FoundationSegLib.errors import InputError
from FoundationSegLib.progress import bytes_of, bytes_text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (300_013, "300 kB"),
        (36_580_895, "37 MB"),
        (999_999_999, "1.0 GB"),
        (2_564_550_879, "2.6 GB"),
    ],
)
def test_a_size_reads_short(count, text):
    assert bytes_text(count) == text


@pytest.mark.parametrize(
    ("text", "count"), [("6GB", 6 * 10**9), ("1.5 GB", 1_500_000_000), ("800M", 800_000_000), ("12", 12), ("2kB", 2000)]
)
def test_a_size_is_read(text, count):
    assert bytes_of(text) == count


@pytest.mark.parametrize("text", ["", "0", "0GB", "-1GB", "1e9", "many", "1 GiB", "1,5GB", "9" * 50])
def test_what_is_no_size(text):
    with pytest.raises(InputError, match="no amount of memory"):
        bytes_of(text)
