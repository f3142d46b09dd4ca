"""Find more like this on real images, against what needs no model: the example's mask copied, and thresholds."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from FoundationSegLib.api_adaptation import find_similar
from FoundationSegLib.catalog.catalogue import read_catalogue
from FoundationSegLib.engine.engine import Engine
from FoundationSegLib.evaluation.simulated_prompts import overlap
from FoundationSegLib.hub.fetch import ensure_checkpoint
from FoundationSegLib.imaging.geometry import Box, bounding_box
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.io.images import read_volume
from FoundationSegLib.io.segmentations import read_label_map
from FoundationSegLib.progress import Progress
from FoundationSegLib.worker.client import InlineClient
from Testing.conftest import SHARED
from Testing.unit.fakes import volume_of

from .adapt import case
from .yardsticks import CARD, STORE

Bools = NDArray[np.bool_]
Candidates = list[tuple[Bools, Box]]

MOST = 12  # candidates of an image, as the product's search has by default
SIZES = 8.0  # parts are at most so many times smaller or larger than the example, as the product's proposals are
RANGES = ((5, 95), (25, 75))  # percentiles of the example's intensities
# Labels of the small abdominal CT; each of a kind is the example for the others.
KINDS = {
    "kidney": ("2", "3"),
    "adrenal gland": ("8", "9"),
    "back muscle": ("86", "87"),
    "iliopsoas": ("88", "89"),
    "rib": ("100", "101", "113"),
    "vertebra": ("30", "31", "32"),
    "lung": ("11", "14"),
}


def similar() -> Iterator[str]:
    """Dice of the first candidate on X-rays of other patients, of the best one on the CT; there, boxes, too."""
    ensure_checkpoint(STORE, CARD, Progress())
    client = InlineClient(Engine(read_catalogue(), STORE, "cpu"))
    methods: dict[str, Callable[[Volume, Bools, Volume], Candidates]] = {
        "proposals": lambda volume, mask, target: by_features(client, volume, mask, target),
        "copied mask": copied,
        "thresholds": by_thresholds,
    }
    for title, images in (("lungs", chests()), ("femur", hips())):
        pairs = list(itertools.permutations(images, 2))
        rows = [
            [best(search(*example, target)[:1], [truth])[0] for search in methods.values()]
            for example, (target, truth) in pairs
        ]
        yield row(f"X-rays, {title}, {len(pairs)} pairs, Dice", methods, np.mean(rows, axis=0))
    volume, segments = case("ct", elsewhere=False)
    shape = volume.geometry.shape_kji
    masks = {segment.name: segment.mask.expand(shape) for segment in segments}
    boxes = []
    for kind, names in KINDS.items():
        rows = [
            [
                best(search(volume, masks[name], volume), [masks[other] for other in names if other != name])
                for search in methods.values()
            ]
            for name in names
        ]
        dice, iou_of_boxes = np.mean(rows, axis=0).T
        boxes.append(iou_of_boxes)
        yield row(f"CT, {kind}, {len(names)} examples, Dice", methods, dice)
        yield row(f"CT, {kind}, {len(names)} examples, overlap of boxes (IoU)", methods, iou_of_boxes)
    yield row(f"CT, mean of {len(KINDS)} kinds, overlap of boxes (IoU)", methods, np.mean(boxes, axis=0))


def row(title: str, methods: Iterable[str], values: Iterable[float]) -> str:
    return f"{title}: " + ", ".join(f"{name} {value:.2f}" for name, value in zip(methods, values, strict=True))


def best(candidates: Candidates, truths: Sequence[Bools]) -> tuple[float, float]:
    """The mean over objects of the best Dice, and of the best overlap of boxes."""
    dice = [max((overlap(truth, mask) for mask, _ in candidates), default=0.0) for truth in truths]
    boxes = [max((iou(bounding_box(truth), box) for _, box in candidates), default=0.0) for truth in truths]
    return float(np.mean(dice)), float(np.mean(boxes))


def iou(box: Box, other: Box) -> float:
    both = int(np.prod(box.intersection(other).shape_kji))
    return both / (int(np.prod(box.shape_kji)) + int(np.prod(other.shape_kji)) - both)


def by_features(client: InlineClient, volume: Volume, mask: Bools, target: Volume) -> Candidates:
    """The product's proposals, the most alike first."""
    answer = find_similar(volume, mask, client, CARD, [target], most=MOST)
    return [(proposal.mask.expand(target.geometry.shape_kji), proposal.box) for proposal in answer.proposals]


def copied(_: Volume, mask: Bools, target: Volume) -> Candidates:
    """The example's mask, stretched over the other image."""
    factors = np.divide(target.geometry.shape_kji, mask.shape)
    copy = ndimage.zoom(mask.astype(np.uint8), factors, order=0).astype(np.bool_)
    return [(copy, bounding_box(copy))]


def by_thresholds(volume: Volume, mask: Bools, target: Volume) -> Candidates:
    """Connected parts as bright as the example, by a wide and by a narrow range; the nearest in size first."""
    candidates = []
    for percentiles in RANGES:
        low, high = np.percentile(volume.array_kji[mask], percentiles)
        parts, _ = ndimage.label((target.array_kji >= low) & (target.array_kji <= high))
        sizes = np.bincount(parts.ravel())[1:]
        ratios = np.abs(np.log(sizes / mask.sum()))
        for n in np.flatnonzero(ratios <= np.log(SIZES)):
            part = parts == n + 1
            if target is not volume or (mask & part).sum() < 0.5 * min(mask.sum(), sizes[n]):  # no example again
                candidates.append((float(ratios[n]), part))
    candidates.sort(key=lambda pair: pair[0])
    return [(part, bounding_box(part)) for _, part in candidates[:MOST]]


def chests() -> list[tuple[Volume, Bools]]:
    folder = SHARED / "lung-segmentation-2d"
    names = [f"cxr{n}" for n in (1, 2, 3, 4)]
    return [
        (read_volume(folder / f"{name}.jpg"), read_label_map(folder / f"{name}-lungmask.png")[0] > 0) for name in names
    ]


def hips() -> list[tuple[Volume, Bools]]:
    files = [np.load(path) for path in sorted((SHARED / "MedScribble").glob("HipXRay_*.npz"))]
    return [(volume_of(file["img"].astype(np.float32)[None]), file["seg"][None] > 0.5) for file in files]
