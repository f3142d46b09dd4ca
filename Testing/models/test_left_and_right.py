"""What is on the left of a real patient stays on the left, by points, strokes and words, however the image is stored.

Networks that know where left is stand in for the trained ones: in what they see, x runs to the patient's right.
"""

import itertools
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

from FoundationSegLib.catalog.label_sets import classes_of
from FoundationSegLib.engine.volumes import place_in_volume
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import BoxPrompt, ClassPrompt, PointPrompt, Polarity, ScribblePrompt, TextPrompt
from Testing.models.small_models import CATALOGUE, card_of, load_small
from Testing.models.stored_volumes import HEADERS, under

pytestmark = pytest.mark.filterwarnings("ignore")
IMAGES = {
    "CT": ("TotalSegmentator/example_ct_sm.nii.gz", "TotalSegmentator/example_ct_sm_seg.nii.gz"),
    "MR": ("TotalSegmentator/example_mr_sm.nii.gz", "TotalSegmentator/example_mr_sm_seg.nii.gz"),
}
RIGHT, LEFT = 2, 3  # of TotalSegmentator's label values


# Each way to store an image, and both images; the reduced run takes one way of each.
STORED = [*itertools.product(IMAGES, HEADERS)]
REDUCED = [("CT", "oblique and permuted"), ("MR", "sagittal")]


def pytest_generate_tests(metafunc):
    if "modality" in metafunc.fixturenames:
        metafunc.parametrize(("modality", "header"), STORED if metafunc.config.getoption("--full") else REDUCED)


@lru_cache
def read(path, labels_path):
    """An image, its labels, and of each kidney the voxel (i, j, k) that is furthest from its border."""
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(labels_path)))
    depths = {value: ndimage.distance_transform_edt(truth == value) for value in (LEFT, RIGHT)}
    inner = {value: np.unravel_index(depth.argmax(), depth.shape)[::-1] for value, depth in depths.items()}
    return read_volume(path), truth, inner


class Patient:
    """A real image under a header; ``positions`` of the voxel of each kidney that is furthest from its border."""

    def __init__(self, shared_data, modality, header):
        image, truth, self.inner = read(*(shared_data(name) for name in IMAGES[modality]))
        self.seen = under(header, image)
        self.volume = self.seen.volume
        self.labels = np.ascontiguousarray(self.seen.stored(truth))
        self._to_ras = under("as stored", image).volume.geometry.to_ras
        assert self._to_ras(self.inner[LEFT])[0] < self._to_ras(self.inner[RIGHT])[0], "in RAS, left is below right"
        self.positions = {value: self.beside(value) for value in (LEFT, RIGHT)}
        self.middle = np.mean(list(self.positions.values()), axis=0)

    def beside(self, value, *steps_ijk):
        """The position of a kidney's inner voxel, so many voxels of the stored image away."""
        return self.seen.moved(tuple(self._to_ras(np.add(self.inner[value], steps_ijk or (0, 0, 0)))))

    def found(self, view, *prompts):
        placed, *_ = place_in_volume(prompts, [f"{n}" for n in range(len(prompts))], self.volume.geometry)
        return view.answer([placed], Progress())[0].mask.expand(self.volume.geometry.shape_kji)


@pytest.fixture(scope="module")
def nninteractive(tmp_path_factory):
    pytest.importorskip("nnInteractive", reason="the package nnInteractive is not installed")
    from Testing.models.small_nninteractive import write_checkpoint

    files = write_checkpoint(tmp_path_factory.mktemp("nninteractive"), patch=32)
    return load_small(card_of(CATALOGUE["nninteractive"], files), files, "cpu")


def test_nninteractive_is_shown_the_side_that_was_clicked(shared_data, nninteractive, monkeypatch, modality, header):
    """What the package holds of a click, a stroke and a box is inside the kidney that they were made in."""
    from nnInteractive.inference.inference_session import nnInteractiveInferenceSession as Session

    sessions, set_image = [], Session.set_image
    monkeypatch.setattr(Session, "set_image", lambda self, array: sessions.append(self) or set_image(self, array))
    patient = Patient(shared_data, modality, header)
    view = nninteractive.view(patient.volume, Progress())
    patient.found(
        view,
        PointPrompt(patient.positions[LEFT]),
        PointPrompt(patient.positions[RIGHT], Polarity.NEGATIVE),
        ScribblePrompt(
            (patient.positions[LEFT], patient.beside(LEFT, 1, 0, 0)), plane="kji"[HEADERS[header][0].index(0)]
        ),
        BoxPrompt((patient.beside(LEFT, -2, -2, 0), patient.beside(LEFT, 2, 2, 0))),
    )
    (session,) = sessions
    held = session.interactions.numpy()
    for kind, n, value in (("points", 0, LEFT), ("points", 1, RIGHT), ("scribble", 0, LEFT)):
        channel = held[session.channel_mapping[kind][n]]
        peak = np.unravel_index(channel.argmax(), channel.shape)
        assert channel.max() > 0 and patient.labels[peak] == value, kind
    boxed = held[session.channel_mapping["bbox2d"][0]] > 0
    assert (patient.labels[boxed] == LEFT).mean() > 0.5 and not (patient.labels[boxed] == RIGHT).any()


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

    classes = classes_of(CATALOGUE["vista3d"])
    view = vista3d.Vista3d(Balls(), classes, "cpu", (96, 96, 96)).view(patient.volume, Progress())
    if plane_at is not None:
        view.model.network.plane = float(view.grid.geometry.to_ijk(plane_at)[0])
    return view


def test_vista3d_finds_the_kidney_that_was_clicked(shared_data, modality, header):
    pytest.importorskip("skimage", reason="the package scikit-image is absent")
    patient = Patient(shared_data, modality, header)
    view = vista3d_view(patient)
    for side, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
        mask = patient.found(
            view, PointPrompt(patient.positions[side]), PointPrompt(patient.positions[other], Polarity.NEGATIVE)
        )
        centre = patient.volume.geometry.to_ras(np.argwhere(mask)[:, ::-1]).mean(axis=0)
        assert np.linalg.norm(centre - patient.positions[side]) < 3.0
        assert (patient.labels[mask] == side).mean() > 0.5
        assert not (patient.labels[mask] == other).any()


def test_vista3d_finds_the_kidney_that_was_named(shared_data, modality, header):
    if modality != "CT":
        pytest.skip("classes are for CT")
    patient = Patient(shared_data, modality, header)
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
    return load_small(CATALOGUE["voxtell"], files, "cpu")


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
