"""Heads on LiteMedSAM's vectors of real images: modality and part of the body, each source held out as a whole."""

import contextlib
from collections import Counter
from collections.abc import Iterator

import numpy as np

from FoundationSegLib.evaluation.classification import evaluate_scores
from FoundationSegLib.evaluation.head_training import FEWEST_PATIENTS, Examples, coverage_of, train_head
from FoundationSegLib.hub.fetch import ensure_checkpoint
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.progress import Progress
from FoundationSegLib.requests.classification import EmbedRequest, Subject
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.requests.scoring import joined
from FoundationSegLib.requests.segmentation import CheckpointRecord
from FoundationSegLib.worker.client import ask
from FoundationSegLib.worker.process_client import ProcessClient
from Testing.conftest import SHARED

from .yardsticks import CARD, STORE

SLICES = 5  # of a volume, about its middle
# Files, modality, part of the body; the folder is the source. `example_ct` and `example_ct_sm` are one patient.
IMAGES = (
    ("TotalSegmentator/example_ct.nii.gz", "CT", "abdomen"),
    ("TotalSegmentator/example_mr_sm.nii.gz", "MR", "abdomen"),
    ("pyradiomics/brain1_image.nrrd", "MR", "head"),
    ("pyradiomics/breast1_image.nrrd", "MR", "chest"),
    ("pyradiomics/lung1_crop_image.nrrd", "CT", "chest"),
    ("MedSAM2/deeplesion_000015_HU.nii.gz", "CT", "chest"),
    ("MONAI/prostate_t2_tse_tra_oblique.nii.gz", "MR", "pelvis"),
    ("MONAI/prostate_ep2d_diff_adc_oblique.nii.gz", "MR", "pelvis"),
    ("MONAI/us_femur.png", "ultrasound", ""),
    ("MONAI/us_neck.png", "ultrasound", ""),
    ("MONAI-model-zoo/sample_A1.jpg", "X-ray", "chest"),
    ("MONAI-model-zoo/sample_C2.jpg", "X-ray", "chest"),
    ("dcmqi/ct-3slice", "CT", "chest"),
    ("pydicom-data/US1_J2KR.dcm", "ultrasound", ""),
    ("pydicom-data/emri_small.dcm", "MR", "head"),
    ("nibabel/example_nifti2.nii.gz", "MR", "head"),
    ("SegNetCMR/SC-HF-I-10_ED_image.nii.gz", "MR", "chest"),
    ("BiomedParse/04_CT_liver.png", "CT", "abdomen"),
    ("BiomedParse/06_CT_abdomen.png", "CT", "abdomen"),
    ("BiomedParse/20_ultrasound_breast.png", "ultrasound", "chest"),
    ("BiomedParse/02_CT_lung.png", "CT", "chest"),
    ("BiomedParse/13_MRI_abdomen.png", "MR", "abdomen"),
    ("SAM-Med2D/images/amos_0004_75.png", "CT", "abdomen"),
    ("SAM-Med2D/images/amos_0507_31.png", "MR", "abdomen"),
    ("SAM-Med2D/images/s0619_32.png", "CT", "pelvis"),
    *((f"lung-segmentation-2d/cxr{n}.jpg", "X-ray", "chest") for n in (1, 2, 3, 4)),
    ("torchxrayvision/nih_00000001_000.png", "X-ray", "chest"),
    ("torchxrayvision/nih_00027426_000.png", "X-ray", "chest"),
)


def heads() -> Iterator[str]:
    """Accuracy with each source held out, its interval over sources, and that of the commonest label."""
    vectors = encoded()
    for column, title in ((1, "modality"), (2, "part of the body")):
        for method in ("logistic", "neighbours"):
            yield measured(vectors, column, title, method)


def encoded() -> np.ndarray:
    """The vector of each image, (images, D)."""
    ensure_checkpoint(STORE, CARD, Progress())
    vectors = []
    with contextlib.closing(ProcessClient(WorkerSettings("cpu", STORE.folder, encode_ahead=False))) as client:
        for number, (name, *_) in enumerate(IMAGES, start=1):
            frame = 0 if name.startswith("nibabel") else None
            volume = read_volume(SHARED / name, frame=frame)
            count = volume.geometry.shape_kji[0]
            first = max(0, count // 2 - SLICES // 2)
            subject = Subject(start=first, stop=min(count, first + SLICES))
            client.send_volume(volume)
            answer = ask(client, EmbedRequest(number, CARD.id, volume.key, subject))
            client.remove_volume(volume.key)
            vectors.append(joined(answer.vectors.astype(np.float64)))
    return np.stack(vectors).astype(np.float32)


def measured(vectors: np.ndarray, column: int, title: str, method: str) -> str:
    """One line: labels of three sources or more, no source on both sides."""
    sources = np.array([name.split("/")[0] for name, *_ in IMAGES])
    names = np.array([image[column] for image in IMAGES])
    labels = [n for n in sorted(set(names) - {""}) if len(set(sources[names == n])) >= FEWEST_PATIENTS]
    rows = np.isin(names, labels)
    truth = names[rows, None] == np.array(labels)
    groups = tuple(sources[rows])
    record = CheckpointRecord(CARD.id, "", "", "")
    examples = Examples(vectors[rows], truth, groups, tuple(labels), "exclusive", record, leaves_one_out=True)
    head, scores = train_head(examples, "bench", method, {})
    quality = evaluate_scores(tuple(labels), truth, scores, True, 1000, patients=groups)
    share, known = coverage_of(head, scores, truth, 0.9)
    commonest = Counter(names[rows]).most_common(1)[0][1] / rows.sum()
    interval = f"{quality.accuracy.low:.2f} to {quality.accuracy.high:.2f}"
    return (
        f"{title}, {method}: accuracy {quality.accuracy.value:.2f} ({interval}) over {rows.sum()} images of "
        f"{len(set(groups))} sources, {', '.join(labels)}; the commonest label {commonest:.2f}; "
        f"what remains at 90 % holds the truth in {share:.2f}, one answer alone in {known:.2f}"
    )
