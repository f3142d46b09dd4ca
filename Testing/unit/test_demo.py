"""What the demo is given by its user: refused with one line where it cannot be used, before any model is loaded."""

import sys

import numpy as np
import pytest
import SimpleITK as sitk

from Testing import demo


@pytest.fixture
def folder(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    image = rng.integers(-1000, 1000, (4, 6, 5), np.int16)
    for name, array in (("ct", image), ("none", image * 0), ("other", np.ones((3, 3, 3), np.int16))):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{name}.nrrd"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "foundationseg", lambda arguments: pytest.fail("too late"))
    return tmp_path


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--volume", "gone.nrrd"], "gone.nrrd does not exist"),
        (["--volume", "ct.nrrd", "--label", "gone.nrrd"], "gone.nrrd does not exist"),
        (["--volume", "ct.nrrd", "--label", "other.nrrd"], "other.nrrd lies on another grid than ct.nrrd"),
        (["--volume", "ct.nrrd", "--label", "none.nrrd"], "none.nrrd holds no label"),
    ],
)
def test_what_cannot_be_used_is_refused_with_one_line(folder, monkeypatch, capsys, options, told):
    monkeypatch.setattr(sys, "argv", ["demo", *options])
    assert demo.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"demo: {told}")


def test_boxes_are_tight_and_one_voxel_wider_in_the_slices():
    mask = np.zeros((9, 9, 9), bool)
    mask[2:5, 3:6, 4:8] = True
    assert demo.box_around(mask).tolist() == [[3, 2, 2], [8, 6, 4]]
