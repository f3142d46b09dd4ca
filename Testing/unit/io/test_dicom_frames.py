"""Multi-frame files: frames are placed by their own positions, which GDCM does not check."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import ImplicitVRLittleEndian

from FoundationSegLib.core.errors import GeometryError, InputError
from FoundationSegLib.io.images import read_volume

Writer = Callable[..., Path]
EVEN = tuple((10.0, 20.0, 3.0 * k) for k in range(4))


@pytest.mark.parametrize(
    "options", [{}, {"syntax": ImplicitVRLittleEndian}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.1"}]
)
def test_frames_in_their_places(
    tmp_path: Path, noise: NDArray[np.int16], write_frames: Writer, options: dict[str, str]
) -> None:
    volume = read_volume(write_frames(tmp_path / "a.dcm", noise, EVEN, **options))
    assert np.array_equal(volume.array_kji, noise)
    expected = [[-0.7, 0, 0, -10], [0, -0.5, 0, -20], [0, 0, 3, 0], [0, 0, 0, 1]]
    assert np.allclose(volume.geometry.ijk_to_ras, expected)
    assert volume.notes == ()


def test_frames_out_of_order_are_sorted(tmp_path: Path, noise: NDArray[np.int16], write_frames: Writer) -> None:
    volume = read_volume(write_frames(tmp_path / "a.dcm", noise, [EVEN[n] for n in (2, 0, 1, 3)]))
    assert np.array_equal(volume.array_kji, noise[[1, 2, 0, 3]])
    assert np.allclose(volume.geometry.spacing_mm, (0.7, 0.5, 3))


def test_tilted_frames(tmp_path: Path, noise: NDArray[np.int16], write_frames: Writer) -> None:
    volume = read_volume(write_frames(tmp_path / "a.dcm", noise, [(10, 20 + k, 3 * k) for k in range(4)]))
    assert np.allclose(volume.geometry.ijk_to_ras[:3, 2], (0, -1, 3))
    assert any("tilted" in note for note in volume.notes)


@pytest.mark.parametrize(
    ("heights", "problem"), [((0, 3, 6, 12), "6 mm between slices 3 and 4"), ((0, 0, 3, 3), "share a position")]
)
def test_uneven_and_shared_positions(
    tmp_path: Path, noise: NDArray[np.int16], write_frames: Writer, heights: tuple[float, ...], problem: str
) -> None:
    path = write_frames(tmp_path / "a.dcm", noise, [(0, 0, z) for z in heights])
    with pytest.raises(GeometryError, match=problem):
        read_volume(path)


def test_missing_positions(tmp_path: Path, noise: NDArray[np.int16], write_frames: Writer) -> None:
    with pytest.raises(GeometryError, match="4 frames, but positions for 3"):
        read_volume(write_frames(tmp_path / "a.dcm", noise, EVEN[:3]))


def test_frames_that_are_scaled_differently(tmp_path: Path, noise: NDArray[np.int16], write_frames: Writer) -> None:
    with pytest.raises(InputError, match="scaled differently"):
        read_volume(write_frames(tmp_path / "a.dcm", noise, EVEN, slopes=(1, 2, 1, 1)))


def test_frames_without_positions_say_so(shared_data: Callable[[str], Path]) -> None:
    volume = read_volume(shared_data("pydicom-data/emri_small.dcm"))
    assert volume.array_kji.shape == (10, 64, 64)
    assert volume.modality == "MR"
    assert any("1 mm was assumed" in note for note in volume.notes)
