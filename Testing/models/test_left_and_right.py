"""A click in the left kidney never lands on the right one, however the image of a real patient is stored."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from FoundationSegLib.engine import engine as engine_module
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.models.protocols import load_volume_model
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import BoxPrompt, PointPrompt, Polarity, ScribblePrompt, SegmentPrompts
from FoundationSegLib.requests.segmentation import PredictRequest
from Testing.models.headers import HEADERS, under

IMAGES = {
    "CT": ("TotalSegmentator/example_ct_sm.nii.gz", "TotalSegmentator/example_ct_sm_seg.nii.gz"),
    "MR": ("TotalSegmentator/example_mr_sm.nii.gz", "TotalSegmentator/example_mr_sm_seg.nii.gz"),
}
RIGHT, LEFT = 2, 3  # of TotalSegmentator's label values


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    pytest.importorskip("nnInteractive", reason="the package nnInteractive is not installed")

    def load(*arguments):  # random weights reach the border of any surrounding
        return replace(load_volume_model(*arguments), autozoom=False)

    from Testing.models.small_nninteractive import stored, write_checkpoint

    card, store = stored(write_checkpoint(tmp_path_factory.mktemp("w"), patch=32), tmp_path_factory.mktemp("s"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "load_volume_model", load)
        yield Engine({card.id: card}, store, "cpu")


def inner_voxel(mask):
    """The voxel of a mask that is furthest from its border."""
    depth = ndimage.distance_transform_edt(mask)
    return np.array(np.unravel_index(depth.argmax(), mask.shape))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("modality", IMAGES)
def test_nninteractive_is_shown_the_side_that_was_clicked(shared_data, engine, monkeypatch, modality, header):
    """What the package holds of a click, a stroke, a box and a seed is inside the kidney that they were made in."""
    from nnInteractive.inference.inference_session import nnInteractiveInferenceSession as Session

    image, labels = (shared_data(name) for name in IMAGES[modality])
    image, truth = read_volume(image), sitk.GetArrayFromImage(sitk.ReadImage(str(labels)))
    start, seen = under("as stored", image), under(header, image)
    there = np.ascontiguousarray(seen.stored(truth))
    geometry = start.volume.geometry
    sides = {value: inner_voxel(truth == value) for value in (LEFT, RIGHT)}
    ras = {value: geometry.to_ras(index[::-1]) for value, index in sides.items()}
    assert ras[LEFT][0] < ras[RIGHT][0], "in RAS, left is below right"

    def at(index_ijk):
        return seen.moved(tuple(geometry.to_ras(index_ijk)))

    axis = "kji"[HEADERS[header][0].index(0)]
    prompts = (
        PointPrompt(seen.moved(tuple(ras[LEFT]))),
        PointPrompt(seen.moved(tuple(ras[RIGHT])), Polarity.NEGATIVE),
        ScribblePrompt((at(sides[LEFT][::-1]), at(np.add(sides[LEFT][::-1], (1, 0, 0)))), plane=axis),
        BoxPrompt(tuple(at(np.add(sides[LEFT][::-1], (n, n, 0))) for n in (-2, 2))),
    )
    sessions, set_image = [], Session.set_image
    monkeypatch.setattr(Session, "set_image", lambda self, array: sessions.append(self) or set_image(self, array))
    engine.add_volume(seen.volume)
    request = PredictRequest(1, "nninteractive", seen.volume.key, (SegmentPrompts("Kidney", prompts),))
    engine.predict(request, Progress())
    (session,) = sessions
    held = session.interactions.numpy()
    for kind, n, value in (("points", 0, LEFT), ("points", 1, RIGHT), ("scribble", 0, LEFT)):
        channel = held[session.channel_mapping[kind][n]]
        peak = np.unravel_index(channel.argmax(), channel.shape)
        assert channel.max() > 0 and there[peak] == value, kind
    boxed = held[session.channel_mapping["bbox2d"][0]] > 0
    assert (there[boxed] == LEFT).mean() > 0.5 and not (there[boxed] == RIGHT).any()
    known = pack_mask(there == LEFT)
    assert np.array_equal(seen.back(known.expand(there.shape)), truth == LEFT)
