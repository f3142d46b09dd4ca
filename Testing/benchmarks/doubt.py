"""Doubt against error, slice by slice, on real images; and interpolated slices against those that were left out."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from FoundationSegLib.engine.interpolation import interpolate
from FoundationSegLib.evaluation.simulated_prompts import overlap
from FoundationSegLib.hub.fetch import ensure_checkpoint
from FoundationSegLib.imaging.geometry import Geometry, bounding_box
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.io.segmentations import read_label_map
from FoundationSegLib.progress import Progress
from FoundationSegLib.prompts.kinds import SegmentPrompts
from FoundationSegLib.prompts.placement import box_prompt
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.requests.segmentation import PredictRequest, Propagation
from FoundationSegLib.requests.uncertainty import uncertainty, uncertainty_request
from FoundationSegLib.worker.client import Client, ask
from FoundationSegLib.worker.process_client import ProcessClient
from Testing.conftest import SHARED

from .timing import timed_s
from .yardsticks import CARD, STORE

LEAST = 0.4  # correlation, from which the doubt of slices is shown
FEWEST_SLICES = 6  # of an object: of fewer, ranks mean nothing
# Image, labels, how many of the largest labels.
DOUBT = (
    ("SegNetCMR/SC-HF-I-10_ED_image.nii.gz", "SegNetCMR/SC-HF-I-10_ED_lv.nii.gz", 1),
    ("SegNetCMR/SC-HF-I-10_ES_image.nii.gz", "SegNetCMR/SC-HF-I-10_ES_lv.nii.gz", 1),
    ("MedSAM2/deeplesion_000015_HU.nii.gz", "MedSAM2/deeplesion_000015_lesion.nii.gz", 1),
    ("pyradiomics/lung1_crop_image.nrrd", "pyradiomics/lung1_crop_label.nrrd", 1),
    ("TotalSegmentator/example_mr_sm.nii.gz", "TotalSegmentator/example_mr_sm_seg.nii.gz", 4),
    ("TotalSegmentator/example_ct_sm.nii.gz", "TotalSegmentator/example_ct_sm_seg.nii.gz", 4),
)
LABELS = (
    ("TotalSegmentator/example_ct_sm_seg.nii.gz", 12),
    ("TotalSegmentator/example_mr_sm_seg.nii.gz", 8),
    ("pyradiomics/breast1_label.nrrd", 1),
    ("pyradiomics/brain1_label.nrrd", 1),
    ("MedSAM2/deeplesion_000015_lesion.nii.gz", 1),
)


def largest(path: str, count: int) -> tuple[Geometry, Iterator[tuple[int, NDArray[np.bool_]]]]:
    """The grid of a label map, and its largest labels with their masks."""
    labels_kji, geometry = read_label_map(SHARED / path)
    values, sizes = np.unique(labels_kji[labels_kji > 0], return_counts=True)
    chosen = values[np.argsort(-sizes)][:count]
    return geometry, ((int(value), labels_kji == value) for value in chosen)


def doubt() -> Iterator[str]:
    """Spearman's correlation of doubt and error of slices: the model's own estimate, and jittered prompts."""
    if not SHARED.is_dir():
        yield "the shared images are not here"
        return
    ensure_checkpoint(STORE, CARD, Progress())
    rows, seconds = [], np.zeros(2)
    with contextlib.closing(ProcessClient(WorkerSettings("cpu", STORE.folder, encode_ahead=False))) as client:
        for image, label, count in DOUBT:
            volume = read_volume(SHARED / image)
            client.send_volume(volume)
            for value, truth in largest(label, count)[1]:
                measured = doubts_and_errors(client, volume, truth, seconds)
                if len(measured) < FEWEST_SLICES:
                    continue
                own, jitter = (stats.spearmanr(measured[:, n], measured[:, 2]).statistic for n in (0, 1))
                rows.append((own, jitter, measured))
                name = f"{image.split('/')[1].split('.')[0]} label {value}"
                yield f"{name}: {len(measured)} slices, own estimate {own:+.2f}, jitter {jitter:+.2f}"
            client.remove_volume(volume.key)
    pooled = np.concatenate([measured for *_, measured in rows])
    for n, name in enumerate(("own estimate", "jittered prompts")):
        mean = float(np.nanmean([row[n] for row in rows]))
        together = stats.spearmanr(pooled[:, n], pooled[:, 2]).statistic
        shown = "shown by default" if min(mean, together) >= LEAST else f"below {LEAST}: not shown by default"
        yield f"{name}: mean of {len(rows)} objects {mean:+.2f}, all {len(pooled)} slices {together:+.2f}; {shown}"
    yield f"seconds: {seconds[0]:.1f} for the answers, {seconds[1]:.1f} more for those to jittered prompts"


def doubts_and_errors(
    client: Client, volume: Volume, truth: NDArray[np.bool_], seconds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The own doubt, that by jitter, and the error (1 - Dice) of each slice; a box on the middle one is carried on."""
    box = bounding_box(truth)
    middle = int(np.argmax(truth.sum(axis=(1, 2))))
    flat = bounding_box(truth[middle : middle + 1]).shifted((middle, 0, 0)).grown((0, 1, 1))
    prompts = SegmentPrompts("object", (box_prompt(flat.intersection(volume.geometry.box), volume.geometry),))
    reach = Propagation(box.start_kji[0], box.stop_kji[0], least_agreement=0.0)
    request = PredictRequest(1, CARD.id, volume.key, (prompts,), propagation=reach)
    answers = []
    seconds[0] += timed_s(lambda: answers.append(ask(client, request)))
    several = replace(uncertainty_request(request, volume.geometry), request_id=2)
    seconds[1] += timed_s(lambda: answers.append(ask(client, several)))
    (segment,), by_jitter = answers[0].segments, uncertainty(answers[1]).slices.doubts
    mask = segment.mask.expand(truth.shape)
    own = dict(zip(segment.slices.numbers, segment.slices.scores, strict=True)) if segment.slices else {}
    rows = [(1 - own[k], by_jitter[k], 1 - overlap(truth[k], mask[k])) for k in own if k in by_jitter]
    return np.array(rows)


def interpolation() -> Iterator[str]:
    """Labels with every second slice left out: Dice there, and the steps between slices, of three ways to fill them."""
    if not SHARED.is_dir():
        yield "the shared images are not here"
        return
    ways = {"nearest slice": nearest, "ours": ours, "Fill Between Slices": between_slices}
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    spent = dict.fromkeys(ways, 0.0)
    for path, count in LABELS:
        geometry, masks = largest(path, count)
        spacing = geometry.spacing_mm
        for _, whole in masks:
            truth = np.pad(whole[bounding_box(whole).slices], 1)[1:-1]
            if len(truth) < FEWEST_SLICES:
                continue
            thin, left_out = truth.copy(), slice(1, len(truth) - 1, 2)
            thin[1::2] = False
            for name, fill in ways.items():
                start = time.perf_counter()
                filled = fill(thin, spacing)
                spent[name] += time.perf_counter() - start
                kept = np.array_equal(filled[::2], truth[::2])
                dice = np.mean([overlap(a, b) for a, b in zip(truth[left_out], filled[left_out], strict=True)])
                rows[name].append((float(dice), steps_mm(filled, spacing[0]), float(kept)))
    for name, measured in rows.items():
        dice, step, kept = np.mean(measured, axis=0)
        lowest = min(row[0] for row in measured)
        yield (
            f"{name}: {len(measured)} labels, Dice of left-out slices {dice:.4f} (lowest {lowest:.3f}), mean step "
            f"{step:.2f} mm, given slices kept in {kept:.0%}, {spent[name]:.2f} s"
        )


def steps_mm(mask: NDArray[np.bool_], pixel_mm: float) -> float:
    """How far the outline moves from slice to slice, on average: what changes, over the length of the outline."""
    steps = []
    for first, second in pairwise(mask):
        outline = np.count_nonzero(first & ~ndimage.binary_erosion(first))
        if outline and second.any():
            steps.append(np.count_nonzero(first ^ second) / outline * pixel_mm)
    return float(np.mean(steps)) if steps else 0.0


def nearest(thin: NDArray[np.bool_], _spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    filled = thin.copy()
    filled[1:-1:2] = thin[0:-2:2]
    return filled


def ours(thin: NDArray[np.bool_], spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    new = interpolate(pack_mask(thin), "k", spacing)
    return thin if new is None else thin | new.expand(thin.shape)


def between_slices(thin: NDArray[np.bool_], _spacing: tuple[float, float, float]) -> NDArray[np.bool_]:
    """Slicer's own: vtkITK's morphological contour interpolator, as its effect "Fill between slices" calls it."""
    import vtk
    from slicer_core import vtkITK
    from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

    image = vtk.vtkImageData()
    image.SetDimensions(*thin.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(thin.astype(np.uint8).ravel(), deep=True))
    fill = vtkITK.vtkITKMorphologicalContourInterpolator()
    fill.SetInputData(image)
    fill.Update()
    values = vtk_to_numpy(fill.GetOutput().GetPointData().GetScalars())
    return values.reshape(thin.shape) > 0
