"""Classification of whole volumes: domain before scores, one vector for an image, evidence by parts."""

from dataclasses import replace

import numpy as np
import pytest

from FoundationSegLib.catalog.label_sets import label_set_of
from FoundationSegLib.codec import pack, unpack
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.errors import CheckpointError, DomainError, InputError
from FoundationSegLib.imaging.geometry import Box, Geometry
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.models.protocols import TextVectors, VolumeVectors
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.classification import ClassifyRequest, EmbedRequest, EvidenceWish, Subject
from FoundationSegLib.requests.classification_answer import Classification
from FoundationSegLib.requests.domain import body_regions, check_domain, require_domain
from FoundationSegLib.requests.scoring import Head
from Testing.models.small_models import CATALOGUE, stock
from Testing.models.stored_volumes import HEADERS, under

CARD = CATALOGUE["colipri"]
LABELS = label_set_of(["Nodule", "Effusion"], "findings")


def phantom(region, slices=40, mm=5.0, modality="CT", body_part=""):
    """A body of an oval section in air: a chest has lungs, a head a skull, an abdomen a spine."""
    width, depth = (24, 30) if region == "head" else (60, 44)
    rows, columns = np.ogrid[:64, :64]
    array = np.full((slices, 64, 64), -1000, np.int16)
    radius = np.hypot((columns - 31.5) * 2 / width, (rows - 31.5) * 2 / depth)
    if region != "air":
        array[:, radius <= 1] = 40
    if region == "chest":
        for column in (20, 43):
            array[:, np.hypot((columns - column) / 8, (rows - 31.5) / 13) <= 1] = -800
    if region == "head":
        array[:, (radius <= 1) & (radius > 0.85)] = 900
    elif region != "air":
        array[:, np.hypot(columns - 31.5, rows - 12) <= 4] = 500
    matrix = np.diag([6.0, 6.0, mm, 1.0])
    return Volume(array, Geometry(matrix, array.shape), modality, body_part=body_part)


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("region", ["head", "chest", "abdomen"])
def test_the_part_of_the_body_is_told_by_the_values_however_they_are_stored(region, name):
    regions = body_regions(under(name, phantom(region)).volume)
    assert regions[region] == pytest.approx(200, abs=10) and sum(regions.values()) == regions[region]


@pytest.mark.parametrize(
    ("volume", "verdict", "reason"),
    [
        (phantom("chest"), "inside", "200 mm of the chest"),
        (phantom("head"), "outside", "seems to show the head"),
        (phantom("abdomen"), "outside", "seems to show the abdomen"),
        (phantom("chest", modality="MR"), "outside", "modality is MR, not CT"),
        (phantom("chest", modality=None), "inside", ""),
        (replace(phantom("chest", modality=None), array_kji=abs(phantom("chest").array_kji)), "outside", "Hounsfield"),
        (phantom("chest", 12), "outside", "field of view is 60 mm"),
        (phantom("chest", 1), "outside", "single picture"),
        (phantom("air"), "unknown", "do not show a chest"),
        (phantom("air", body_part="HEAD"), "outside", "header says HEAD"),
        (phantom("chest", body_part="HEAD"), "inside", ""),
    ],
)  # fmt: skip
def test_an_image_is_held_against_what_a_model_was_trained_on(volume, verdict, reason):
    found = check_domain(CARD, volume)
    assert found.verdict == verdict and reason in "; ".join(found.reasons)
    assert check_domain(CATALOGUE["biomedclip"], volume) is None


def test_a_chest_is_not_of_the_domain_of_a_model_of_the_abdomen():
    merlin = CATALOGUE["merlin"]
    with pytest.raises(DomainError, match=r"not of the domain of Merlin.*show the chest.*--any-domain"):
        require_domain(merlin, phantom("chest"), is_overridden=False)
    assert require_domain(merlin, phantom("abdomen"), is_overridden=False).verdict == "inside"


@pytest.mark.parametrize(
    ("name", "of_chest", "of_abdomen"),
    [
        ("TotalSegmentator/example_ct.nii.gz", "outside", "inside"),
        ("MedSAM2/deeplesion_000015_HU.nii.gz", "outside", "outside"),
        ("pyradiomics/lung1_crop_image.nrrd", "inside", "outside"),
        ("pyradiomics/brain1_image.nrrd", "outside", "outside"),
        ("MONAI/us_neck.png", "outside", "outside"),
        ("dcmqi/ct-3slice", "outside", "outside"),
    ],
)
def test_real_images_are_told_apart(shared_data, name, of_chest, of_abdomen):
    volume = read_volume(shared_data(name))
    assert check_domain(CARD, volume).verdict == of_chest
    assert check_domain(CATALOGUE["merlin"], volume).verdict == of_abdomen


@pytest.mark.parametrize(
    ("name", "radiograph", "fundus"),
    [
        ("lung-segmentation-2d/cxr1.jpg", "unknown", "outside"),
        ("torchxrayvision/nih_00000001_000.png", "unknown", "outside"),
        ("DRIVE/21_training.tif", "outside", "unknown"),
        ("scikit-image/retina.jpg", "outside", "unknown"),
        ("scikit-image/ihc.png", "outside", "outside"),
        ("pydicom-data/US1_J2KR.dcm", "outside", "outside"),
        ("dcmqi/ct-3slice", "outside", "outside"),
        ("pyradiomics/brain1_image.nrrd", "outside", "outside"),
        ("TotalSegmentator/example_ct.nii.gz", "outside", "outside"),
    ],
)
def test_pictures_are_told_apart_for_specialists(shared_data, name, radiograph, fundus):
    volume = read_volume(shared_data(name))
    verdicts = [check_domain(CATALOGUE[card], volume).verdict for card in ("torchxrayvision-densenet121", "flair")]
    assert verdicts == [radiograph, fundus]


@pytest.mark.parametrize(
    ("modality", "body_part", "verdict", "reason"),
    [
        ("DX", "CHEST", "inside", "says CHEST"),
        ("CR", "THORAX PA", "inside", ""),
        ("DX", "HAND", "outside", "says HAND, not chest"),
        ("DX", "SKULL", "outside", "says SKULL, not chest"),
        ("DX", "", "unknown", "nothing of the part of the body"),
        ("MG", "BREAST", "outside", "modality is MG"),
        ("", "", "unknown", "no header says its modality"),
    ],
)
def test_a_radiograph_is_told_by_its_header(modality, body_part, verdict, reason):
    picture = replace(phantom("air", 1, modality=modality or None, body_part=body_part), in_pixels=True)
    picture = replace(picture, array_kji=picture.array_kji % 200)
    found = check_domain(CATALOGUE["torchxrayvision-densenet121"], picture)
    assert found.verdict == verdict and reason in "; ".join(found.reasons)


class ByBrightness:
    """A model whose vectors tell how bright an image is, and each of its parts, 2 along each axis."""

    device, precision, head, nbytes = "cpu", "float32", Head(5.0), 0

    def __init__(self):
        self.seen = []

    def encode_volume(self, volume, progress):
        progress.step("classify", 0, 1)
        self.seen.append(volume)
        values = volume.array_kji.astype(np.float64)
        cells = np.array(
            [[[part.mean() for part in np.array_split(line, 2, 2)] for line in np.array_split(slab, 2, 1)]
             for slab in np.array_split(values, 2, 0)]
        )  # fmt: skip
        spans = tuple((0.0, float(count)) for count in volume.array_kji.shape)
        return VolumeVectors(self._vectors(values.mean()), self._vectors(cells), spans)

    def encode_texts(self, texts, check=None):
        return TextVectors(
            np.array([(1, 0) if text.startswith("Nodule") else (0, 1) for text in texts], np.float32),
            (False,) * len(texts),
        )

    @staticmethod
    def _vectors(brightness):
        share = np.clip((np.asarray(brightness) + 1000) / 2000, 0, 1)
        return np.stack([np.sin(share * np.pi / 2), np.cos(share * np.pi / 2)], axis=-1).astype(np.float32)


@pytest.fixture
def engine(tmp_path):
    card, store = stock(CARD, tmp_path)
    model = ByBrightness()
    engine = Engine({card.id: card}, store, "cpu", load_model=lambda card, files, device: model)
    return engine, model


def ask(engine, volume, **fields):
    if volume.key not in engine.volumes:
        engine.add_volume(volume)
    return engine.classify(ClassifyRequest(1, CARD.id, volume.key, LABELS, **fields), Progress())


def test_an_image_outside_of_the_domain_is_scored_at_the_users_wish_alone(engine):
    engine, model = engine
    head = phantom("head")
    with pytest.raises(DomainError, match=r"not of the domain of COLIPRI.*show the head.*--any-domain"):
        ask(engine, head)
    assert not model.seen, "told before anything is scored"
    answer = ask(engine, head, any_domain=True)
    document = answer.to_document()["domain"]
    assert document["nearest"] == "head", "all are alike to this model"
    assert document["verdict"] == "outside" and document["overridden"] and document["regions_mm"]["head"] == 200
    assert any("at your wish" in note for note in answer.notes)
    inside = ask(engine, phantom("chest"))
    assert inside.domain.verdict == "inside" and not inside.domain.is_overridden
    assert (
        unpack(Classification, *(lambda parts: (parts[0], b"".join(parts[1])))(pack(inside)), "answer").domain
        == inside.domain
    )


def test_a_whole_volume_is_encoded_once_and_its_evidence_lies_where_it_is(engine):
    engine, model = engine
    volume = phantom("chest")
    volume.array_kji[:20, 32:, :32] += 700  # of one eighth, in stored order
    answer = ask(engine, volume, evidence=EvidenceWish("Nodule"))
    assert (answer.slices, answer.curves.shape, answer.counts["images"]) == ((), (0, 2), 1)
    box, inside = answer.evidence[0].mask(volume.geometry, 0.9)
    assert box == volume.geometry.box
    k, j, i = (np.flatnonzero(inside.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
    assert k.max() < 20 and j.min() >= 32 and i.max() < 32
    again = ask(engine, volume, evidence=EvidenceWish("Effusion"), subject=Subject())
    assert again.counts["images"] == 0 and len(model.seen) == 1
    with pytest.raises(InputError, match="similarity alone"):
        ask(engine, volume, evidence=EvidenceWish("Nodule", "occlusion"))
    engine.remove_volume(volume.key)
    assert ask(engine, volume).counts["images"] == 1


def test_a_part_of_a_volume_is_cut_out_for_the_model(engine):
    engine, model = engine
    volume = phantom("chest")
    ask(engine, volume, subject=Subject("k", 5, 35))
    assert model.seen[-1].array_kji.shape == (30, 64, 64)
    part = ask(
        engine, volume, subject=Subject("k", 5, 35, Box((0, 8, 4), (40, 60, 64))), evidence=EvidenceWish("Nodule")
    )
    assert model.seen[-1].array_kji.shape == (30, 52, 60)
    assert part.evidence[0].box(volume.geometry) == Box((5, 8, 4), (35, 60, 64))
    segment = pack_mask(np.ones((20, 30, 30), bool), (10, 10, 10))
    ask(engine, volume, subject=Subject(segment=segment, view="mask"), any_domain=True)
    seen = model.seen[-1].array_kji
    assert seen.shape[0] > 20 and (seen != -1000).sum() <= 20 * 30 * 30
    vectors = engine.embed(EmbedRequest(1, CARD.id, volume.key, texts=("Nodule",)), Progress())
    assert vectors.vectors.shape == (1, 2) and vectors.texts.shape == (1, 2)


def test_a_wrong_file_is_told_and_nothing_is_scored(tmp_path):
    card, store = stock(CARD, tmp_path)
    engine = Engine({card.id: card}, store, "cpu")
    store.file_path(card, card.source.files[0]).write_bytes(b"something else")
    with pytest.raises(CheckpointError):
        ask(engine, phantom("chest"))
