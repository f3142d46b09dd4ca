from pathlib import Path

import pytest

from FoundationSegLib.core.errors import OutputError
from FoundationSegLib.io.formats import output_format


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.seg.nrrd", "seg.nrrd"), ("a.NII.GZ", "nii.gz"), ("a.nrrd", "nrrd"), ("x.y.nii.gz", "nii.gz")],
)
def test_output_format(name: str, expected: str) -> None:
    assert output_format(Path(name)) == expected


@pytest.mark.parametrize("name", ["a.nii", "a.mha", "a", "nrrd", "a.nrrd.txt"])
def test_other_formats(name: str) -> None:
    with pytest.raises(OutputError, match=r"\.seg\.nrrd, \.nii\.gz, \.nrrd"):
        output_format(Path(name))
