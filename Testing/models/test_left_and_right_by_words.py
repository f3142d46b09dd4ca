"""What is on the left of a real patient stays on the left, by points and by words, however the image is stored.

Networks that know where left is stand in for the trained ones: in what they see, x runs to the patient's right.
"""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.catalog.class_lists import classes_of
from FoundationSegLib.engine.volumes import place_in_volume
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.models.protocols import load_volume_model
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import ClassPrompt, PointPrompt, Polarity, TextPrompt
from Testing.models.headers import HEADERS, under
from Testing.models.test_left_and_right import IMAGES, LEFT, RIGHT

pytestmark = pytest.mark.filterwarnings("ignore")


def inner_voxel(mask):
    """The index (i, j, k) of the voxel of a mask that is furthest from its border."""
    depth = ndimage.distance_transform_edt(mask)
    return np.array(np.unravel_index(depth.argmax(), mask.shape))[::-1]


class Patient:
    """A real image under a header, and where its kidneys are then."""

    def __init__(self, shared_data, modality, header):
        image, labels = (shared_data(name) for name in IMAGES[modality])
        image, truth = read_volume(image), sitk.GetArrayFromImage(sitk.ReadImage(str(labels)))
        self.seen = under(header, image)
        self.volume = self.seen.volume
        self.labels = np.ascontiguousarray(self.seen.stored(truth))
        to_ras = under("as stored", image).volume.geometry.to_ras
        self.places = {value: self.seen.moved(tuple(to_ras(inner_voxel(truth == value)))) for value in (LEFT, RIGHT)}
        self.middle = np.mean(list(self.places.values()), axis=0)

    def asked(self, *prompts):
        return place_in_volume(prompts, [f"{n}" for n in range(len(prompts))], self.volume.geometry)[0]

    def found(self, view, *prompts):
        return view.answer([self.asked(*prompts)], Progress())[0].mask.expand(self.volume.geometry.shape_kji)


class Balls(torch.nn.Module):
    """Finds 9 mm around positive points, and of a class what is bright on its side of a plane across x."""

    def __init__(self, plane=0.0):
        super().__init__()
        self.plane = plane

    def forward(self, images, patch_coords=None, point_coords=None, point_labels=None, class_vector=None, **_):
        x0 = patch_coords[0][-3].start
        starts = torch.tensor([part.start for part in patch_coords[0][-3:]])
        shape = images.shape[2:]
        if class_vector is not None:
            columns = torch.arange(shape[0])[:, None, None] + x0
            left = [number == 14 for number in class_vector[:, 0].tolist()]
            sides = torch.stack([(columns < self.plane) if is_left else (columns > self.plane) for is_left in left])
            return torch.where(sides & (images[0] > 0.45), 1.0, -1.0)[None]
        grid = torch.stack(torch.meshgrid(*map(torch.arange, shape), indexing="ij"), dim=-1)
        near = torch.full(shape, -1.0)
        for place, sign in zip(point_coords[0], point_labels[0], strict=True):
            away = (grid - (place - starts)).norm(dim=-1)
            near[away < 6] = 1.0 if sign in (1, 3) else -1.0
        return near[None, None]


def vista3d_view(patient, plane_at=None):
    pytest.importorskip("monai", reason="the package monai is absent")
    from FoundationSegLib.models.segmentation import vista3d

    known = classes_of(read_catalogue()["vista3d"])
    view = vista3d.Vista3d(Balls(), known, "cpu", (96, 96, 96)).view(patient.volume, Progress())
    if plane_at is not None:
        view.model.network.plane = float(view.grid.geometry.to_ijk(plane_at)[0])
    return view


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("modality", IMAGES)
def test_vista3d_finds_the_kidney_that_was_clicked(shared_data, modality, header):
    pytest.importorskip("skimage", reason="the package scikit-image is absent")
    patient = Patient(shared_data, modality, header)
    view = vista3d_view(patient)
    for side, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
        mask = patient.found(
            view, PointPrompt(patient.places[side]), PointPrompt(patient.places[other], Polarity.NEGATIVE)
        )
        centre = patient.volume.geometry.to_ras(np.argwhere(mask)[:, ::-1]).mean(axis=0)
        assert np.linalg.norm(centre - patient.places[side]) < 3.0
        assert (patient.labels[mask] == side).mean() > 0.5
        assert not (patient.labels[mask] == other).any()


@pytest.mark.parametrize("header", HEADERS)
def test_vista3d_finds_the_kidney_that_was_named(shared_data, header):
    patient = Patient(shared_data, "CT", header)
    view = vista3d_view(patient, patient.middle)
    for name, side, other in (("left kidney", LEFT, RIGHT), ("right kidney", RIGHT, LEFT)):
        mask = patient.found(view, ClassPrompt(name))
        assert mask[patient.labels == side].mean() > 0.7
        assert not mask[patient.labels == other].any()


@pytest.fixture(scope="module")
def voxtell(tmp_path_factory):
    pytest.importorskip("voxtell", reason="the package voxtell is absent")
    from Testing.models import small_voxtell

    files = small_voxtell.write_checkpoint(tmp_path_factory.mktemp("voxtell"))
    with small_voxtell.small():
        return load_volume_model(read_catalogue()["voxtell"], files, "cpu")


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("modality", IMAGES)
def test_voxtell_finds_the_kidney_that_was_said(shared_data, voxtell, monkeypatch, modality, header):
    """The network finds all that is on its left, in the one window that it looks through."""
    patient = Patient(shared_data, modality, header)
    # The package cuts zeros off; without any, the window is the image.
    patient.volume = replace(patient.volume, array_kji=patient.volume.array_kji + np.float32(3000))
    view = voxtell.view(patient.volume, Progress())
    plane = view.turn.geometry(patient.volume.geometry).to_ijk(patient.middle)[0]

    def forward(images, embeddings):
        logits = torch.ones_like(images)
        logits[..., int(plane) :] = -1.0
        return logits

    monkeypatch.setattr(voxtell.predictor, "patch_size", list(view.array_kji.shape))
    monkeypatch.setattr(voxtell.predictor.network, "forward", forward)
    mask = patient.found(view, TextPrompt("left kidney"))
    assert mask[patient.labels == LEFT].mean() > 0.95
    assert mask[patient.labels == RIGHT].mean() < 0.05
