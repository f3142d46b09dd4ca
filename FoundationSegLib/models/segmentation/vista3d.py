"""VISTA3D (NV-Segment-CT): structures of a CT by name, objects by points, and named structures corrected by points.

Network and inferers are MONAI's; their arguments follow scripts/inferer.py and scripts/evaluator.py of the bundle
(github.com/NVIDIA-Medtech/NV-Segment-CTMR, NV-Segment-CT), and the grid its configs/inference.json: voxels of 1.5 mm
along the image's own axes, cut to all above 0 HU and 10 voxels around it, scaled to 0..1, turned to RAS; labels come
back by the nearest voxel. He Y, Guo P, Tang Y et al., arXiv:2406.05285.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from monai.apps.vista3d.inferer import point_based_window_inferer
from monai.apps.vista3d.transforms import VistaPreTransformd
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInfererAdapt
from monai.networks.nets import vista3d132
from monai.transforms import CropForeground, ScaleIntensityRange, Spacing, SpatialResample
from monai.transforms.utils import keep_components_with_positive_points
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from ...catalog.label_sets import ClassList, classes_of
from ...catalog.model_cards import ModelCard
from ...errors import CheckpointError
from ...imaging.geometry import Geometry, Shape
from ...imaging.masks import EMPTY_MASK, pack_mask
from ...imaging.volume import Turn, Volume, towards_ras
from ...progress import Progress
from ...prompts.capabilities import class_numbers
from ...prompts.kinds import ClassPrompt
from ..protocols import VolumeAnswer, VolumePoint, VolumePrompt, VolumeWords
from ..weights import checked, load_strictly, only_file, read_safetensors, weight_bytes

SPACING_MM = 1.5
_MARGIN = 10
_LOWEST_HU, _HIGHEST_HU = -963.8247715525971, 1053.678477684517
PATCH = (128, 128, 128)
_OVERLAP = 0.25  # of the windows: MONAI's own, since the bundle's 0.3 does not reach this inferer
_LAST_CLASS = 132  # numbers above mean "whatever the points say"
_INSIDE = 1e-3  # the network takes a point on the very first voxel for one outside


@dataclass(frozen=True, slots=True)
class NetworkGrid:
    """An image on the grid of the network.

    Attributes:
        image: (1, 1, X, Y, Z) float32 from 0 to 1 on the host; x, y, z run to the right, the front and the head.
        geometry: positions of the voxels of ``image``; its i, j, k are x, y, z.
        stored: the grid of the volume.
        resampled: the grid after resampling, before it was cut and turned.
        first_ijk: the voxel of ``resampled`` that the cut begins with.
        turn: from the cut to ``image``.
    """

    image: Tensor
    geometry: Geometry
    stored: Geometry
    resampled: Geometry
    first_ijk: Shape
    turn: Turn

    def to_grid(self, index_ijk: ArrayLike) -> NDArray[np.float64]:
        """Convert voxels of the volume to continuous indices (x, y, z), inside ``image`` or not; (n, 3) both.

        In the bundle's own order of sums: windows begin at whole numbers, and the last bit decides which.
        """
        index = np.asarray(index_ijk, np.float64).reshape(-1, 3)
        to_grid = self.geometry.ras_to_ijk @ self.stored.ijk_to_ras
        return (to_grid @ np.c_[index, np.ones(len(index))].T).T[:, :3]

    def to_volume(self, labels_xyz: Tensor) -> NDArray[np.int16]:
        """Bring labels on the grid, (X, Y, Z), to the voxels of the volume: (K, J, I); 0 beyond the cut."""
        cut = self.turn.turn_back(labels_xyz.cpu().numpy().transpose(2, 1, 0)).transpose(2, 1, 0)
        whole = np.zeros(self.resampled.shape_kji[::-1], np.float32)
        inside = tuple(slice(first, first + size) for first, size in zip(self.first_ijk, cut.shape, strict=True))
        whole[inside] = cut
        resample = SpatialResample(mode="nearest", padding_mode="border", align_corners=False, dtype=torch.float64)
        labels = resample(
            _meta(whole, self.resampled),
            dst_affine=torch.tensor(self.stored.ijk_to_ras),
            spatial_size=self.stored.shape_kji[::-1],
        )
        return np.ascontiguousarray(labels[0].numpy().transpose(2, 1, 0).astype(np.int16))


def network_grid(volume: Volume) -> NetworkGrid:
    """Bring a grey image in Hounsfield units to the network's grid. An image without a voxel above 0 HU is not cut."""
    stored = volume.geometry
    array = np.asarray(volume.array_kji.transpose(2, 1, 0), np.float32, order="C")
    spaced = Spacing((SPACING_MM,) * 3, mode="bilinear")(_meta(array, stored))
    resampled = Geometry(spaced.affine.numpy(), _reversed(spaced.shape[1:]))
    crop = CropForeground(margin=_MARGIN, allow_smaller=True)
    start, stop = crop.compute_bounding_box(spaced)
    if not (stop > start).all():
        start, stop = np.zeros(3, np.int64), np.array(spaced.shape[1:])
    cut = spaced.as_tensor()[(slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))]
    scaled = ScaleIntensityRange(_LOWEST_HU, _HIGHEST_HU, 0.0, 1.0, clip=True)(cut)[0]
    turn = towards_ras(resampled)
    turned = turn.turn(scaled.numpy().transpose(2, 1, 0)).transpose(2, 1, 0)
    matrix = resampled.ijk_to_ras.copy()
    matrix[:3, 3] = resampled.to_ras(start)
    return NetworkGrid(
        image=torch.from_numpy(np.ascontiguousarray(turned, np.float32))[None, None],
        geometry=turn.geometry(Geometry(matrix, _reversed(cut.shape[1:]))),
        stored=stored,
        resampled=resampled,
        first_ijk=(int(start[0]), int(start[1]), int(start[2])),
        turn=turn,
    )


def _meta(array_ijk: NDArray[np.float32], geometry: Geometry) -> MetaTensor:
    return MetaTensor(torch.from_numpy(array_ijk)[None], affine=torch.tensor(geometry.ijk_to_ras))


def _reversed(shape: Sequence[int]) -> Shape:
    i, j, k = (int(n) for n in shape)
    return k, j, i


@dataclass(frozen=True, slots=True)
class _SegmentPrompt:
    """A prompt for a segment: the numbers of its classes, and its points."""

    numbers: tuple[int, ...]
    points: tuple[VolumePoint, ...]


@dataclass(slots=True)
class _Windows:
    """The network, as the inferers call it: every window is counted, and the work can be stopped at each."""

    network: nn.Module
    progress: Progress
    total: int
    done: int = 0

    def __call__(self, *arguments: object, **options: object) -> Tensor:
        self.progress.step("decode", self.done, self.total)
        self.done += 1
        return self.network(*arguments, **options)


@dataclass(slots=True)
class Vista3dView:
    """An image on the network's grid, and the logits of the class that was last corrected by points."""

    model: "Vista3d"
    grid: NetworkGrid
    _automatic: tuple[int, Tensor] | None = None

    @property
    def nbytes(self) -> int:
        """Memory taken beside the weights, in bytes."""
        return self.grid.image.nbytes + (0 if self._automatic is None else self._automatic[1].nbytes)

    def answer(self, prompts: Sequence[VolumePrompt], progress: Progress) -> list[VolumeAnswer]:
        """Segment all prompts of names alone together, so that they share no voxel, and the others one by one.

        Raises:
            PromptError: a name is of no class.
            Cancelled: ``progress`` was told to stop.
        """
        segments = [self._read(prompt) for prompt in prompts]
        together = tuple(dict.fromkeys(n for segment in segments if not segment.points for n in segment.numbers))
        windows = _Windows(self.model.network, progress, self._count(segments, together))
        leaves = [module for module in self.model.network.modules() if not any(module.children())]
        precision = torch.autocast("cuda") if self.model.device == "cuda" else nullcontext()
        with torch.inference_mode(), precision, checked(leaves, progress.check):
            labels = self.grid.to_volume(self._labels(together, windows)) if together else None
            runs = windows.done  # counted for the first segment
            answers: list[VolumeAnswer] = []
            for segment in segments:
                if labels is None or segment.points:
                    answers.append(self._segment_points(segment, windows))
                else:
                    answers.append(VolumeAnswer(pack_mask(np.isin(labels, segment.numbers)), None, runs))
                    runs = 0
        x, y, z = self.grid.image.shape[2:]
        note = f"looked at as {x} x {y} x {z} voxels of {SPACING_MM} mm"
        return [replace(answers[0], notes=(note, *answers[0].notes)), *answers[1:]]

    def _read(self, prompt: VolumePrompt) -> _SegmentPrompt:
        names = [ClassPrompt(part.words) for part in prompt.parts if isinstance(part, VolumeWords)]
        path = next((part.location for part in prompt.parts if isinstance(part, VolumeWords)), "")
        points = tuple(part for part in prompt.parts if isinstance(part, VolumePoint))
        return _SegmentPrompt(class_numbers(self.model.class_list, names, path), points)

    def _count(self, segments: Sequence[_SegmentPrompt], together: Sequence[int]) -> int:
        """Count the windows that the network will see."""
        per_pass = math.prod(
            1 if size <= side else math.ceil((size - side) / int(side * (1 - _OVERLAP))) + 1
            for size, side in zip(self.grid.image.shape[2:], self.model.patch, strict=True)
        )
        corrected = sum(1 for segment in segments if segment.points and self._needs_automatic(segment))
        passes = math.ceil(len(together) / self._at_once) + corrected
        return passes * per_pass + sum(len(segment.points) for segment in segments)

    @property
    def _at_once(self) -> int:
        """Number of classes in one pass."""
        return max(1, self.model.logit_bytes // self.grid.image.nbytes)

    def _labels(self, numbers: Sequence[int], windows: _Windows) -> Tensor:
        """Number of the class with the highest logit of each voxel, (X, Y, Z); 0 where none is above 0."""
        shape = self.grid.image.shape[2:]
        highest, labels = torch.zeros(shape), torch.zeros(shape, dtype=torch.int16)
        for start in range(0, len(numbers), self._at_once):
            batch = numbers[start : start + self._at_once]
            logits, index = self._slide(batch, windows)[0].max(dim=0)
            is_higher = logits > highest
            labels[is_higher] = torch.tensor(batch, dtype=torch.int16)[index[is_higher]]
            highest[is_higher] = logits[is_higher]
        return labels

    def _slide(self, numbers: Sequence[int], windows: _Windows) -> Tensor:
        """Logits of classes in the whole image, (1, classes, X, Y, Z) on the host."""
        classes = torch.tensor(numbers, device=self.model.device)[:, None]
        inferer = SlidingWindowInfererAdapt(
            roi_size=self.model.patch, sw_batch_size=1, overlap=_OVERLAP, with_coord=True, padding_mode="replicate"
        )
        image = self.grid.image.to(self.model.device)
        logits = inferer(image, windows, transpose=True, class_vector=classes, prompt_class=classes)
        return logits.float().cpu()

    def _needs_automatic(self, segment: _SegmentPrompt) -> bool:
        return bool(segment.numbers) and segment.numbers[0] <= _LAST_CLASS

    def _segment_points(self, segment: _SegmentPrompt, windows: _Windows) -> VolumeAnswer:
        """Segment an object in windows around points; a class beyond them, too, where one was named."""
        before = windows.done
        positions, signs, notes = self._on_grid(segment.points)
        automatic = self._automatic_of(segment.numbers[0], windows) if self._needs_automatic(segment) else None
        if 1 in signs or (automatic is not None and signs):
            logits = self._around(positions, signs, segment.numbers[:1], automatic, windows)
        elif automatic is not None:
            logits = automatic[0, 0]
        else:
            return VolumeAnswer(EMPTY_MASK, None, windows.done - before, notes)
        # Voxels outside all windows are not a number.
        mask = self.grid.to_volume(torch.nan_to_num(logits, nan=-1.0) > 0) > 0
        return VolumeAnswer(pack_mask(mask), None, windows.done - before, notes)

    def _on_grid(self, points: Sequence[VolumePoint]) -> tuple[Tensor, list[int], tuple[str, ...]]:
        """Points on the grid, (1, points, 3), the sign of each as 1 or 0, and notes on those that are not on it.

        MONAI's inferer would give an empty window for those, and average it with the others.
        """
        size = np.array(self.grid.image.shape[2:])
        positions = self.grid.to_grid([point.index_kji[::-1] for point in points])
        is_inside = ((positions >= -0.5) & (positions <= size - 0.5)).all(axis=1)
        notes = tuple(
            f"{point.location}: lies in the air around the body, which the model does not look at"
            for point, inside in zip(points, is_inside, strict=True)
            if not inside
        )
        signs = [int(point.positive) for point, inside in zip(points, is_inside, strict=True) if inside]
        positions = np.minimum(np.maximum(positions[is_inside], _INSIDE), size - 1)
        return torch.from_numpy(positions)[None], signs, notes

    def _automatic_of(self, number: int, windows: _Windows) -> Tensor:
        """Logits of one class alone, remembered: corrections come one after the other."""
        if self._automatic is None or self._automatic[0] != number:
            self._automatic = None
            self._automatic = (number, self._slide((number,), windows))
        return self._automatic[1]

    def _around(
        self, positions: Tensor, signs: list[int], numbers: Sequence[int], automatic: Tensor | None, windows: _Windows
    ) -> Tensor:
        """Logits (X, Y, Z) around points; beyond their windows those of the class, or not a number."""
        prompt = VistaPreTransformd(keys="image")({"label_prompt": list(numbers) or None, "point_labels": signs})
        labels = torch.tensor([prompt["point_labels"]], device=self.model.device)
        prompt_class = torch.tensor([list(numbers)], device=self.model.device) if numbers else None
        infer = partial(
            point_based_window_inferer,
            MetaTensor(self.grid.image.to(self.model.device)),
            self.model.patch,
            windows,
            point_labels=labels,
            class_vector=prompt_class if automatic is not None else None,
            prompt_class=prompt_class,
            prev_mask=automatic,
            transpose=True,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that its answer has a position, twice
            try:
                logits = infer(point_coords=positions.to(self.model.device))
            except IndexError:
                # A point less than half a voxel from the end of another's window is rounded out of it, but whole ones.
                logits = infer(point_coords=positions.floor().clamp(min=_INSIDE).to(self.model.device))
        logits = logits.as_tensor().float().cpu()
        if not numbers:
            logits = keep_components_with_positive_points(logits, point_coords=positions, point_labels=labels.cpu())
        return logits[0, 0]


@dataclass(frozen=True, slots=True)
class Vista3d:
    """VISTA3D with its weights.

    Attributes:
        patch: the window that it looks at, in voxels.
        logit_bytes: the most that the logits of one pass take; those of all classes of a whole body would take 30 GB.
    """

    network: nn.Module
    class_list: ClassList
    device: str
    patch: Shape = PATCH
    logit_bytes: int = 4 * 2**30

    @property
    def precision(self) -> str:
        """Mixed precision on CUDA, as in the bundle, and float32 elsewhere."""
        return "mixed float16" if self.device == "cuda" else "float32"

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return weight_bytes(self.network)

    def view(self, volume: Volume, progress: Progress) -> Vista3dView:
        """Bring the image to the network's grid.

        Raises:
            Cancelled: ``progress`` was told to stop.
        """
        progress.check()
        return Vista3dView(self, network_grid(volume))


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> Vista3d:
    """Load the adapter with its single file; the width of the network is read from the weights themselves.

    Raises:
        CheckpointError: the file is unreadable, or holds other weights.
        CardError: the card names no list of classes.
    """
    class_list = classes_of(card)
    state = {
        name.removeprefix("network."): value for name, value in read_safetensors(only_file(card, files), card).items()
    }
    embedding = state.get("class_head.class_embeddings.weight")
    if embedding is None or embedding.ndim != 2 or not 0 < embedding.shape[1] <= 512 or embedding.shape[1] % 8:
        raise CheckpointError(f"the checkpoint does not hold the weights of {card.title}")
    network = vista3d132(encoder_embed_dim=embedding.shape[1]).eval()
    load_strictly(network, state, card)
    return Vista3d(network.requires_grad_(False).to(device), class_list, device)
