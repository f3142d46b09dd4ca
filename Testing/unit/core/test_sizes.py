import pytest

from FoundationSegLib.core.sizes import bytes_text


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
