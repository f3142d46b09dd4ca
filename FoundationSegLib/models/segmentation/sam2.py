"""SAM 2.1: one network for slices and, by its memory, for volumes; points, boxes and masks.

MedSAM2 and EdgeTAM share all of it but the network's encoder and the preparation.

The network is transformers' ``Sam2VideoModel``. A slice by itself is decoded as ``Sam2Model`` does, which is the part
of it that has no memory. A volume is followed as by transformers' own video session. Images, coordinates and masks
are prepared as by ``Sam2Processor`` and ``Sam2VideoProcessor``; the tests hold each against them.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import Sam2VideoConfig, Sam2VideoInferenceSession, Sam2VideoModel

from ...catalog.model_cards import ModelCard
from ...errors import CheckpointError, InferenceError
from .. import weights
from ..cpu_kernels.sam import quicken
from ..preprocessing import Sam2Preparation, read_normalisation, to_device
from ..protocols import BoxXyxy, Check, SliceAnswer, SliceMask, SlicePrompt, unstoppable
from .sam import as_score, box_for_neighbour, on_host, scale_to

# A mask as logits: transformers' _use_mask_as_output, "very close to 0/1 in prob after sigmoid".
_MASK_SCALE, _MASK_BIAS = 20.0, -10.0
_BOX_LABELS = (2, 3)  # a box among points: its upper left and its lower right corner
_OBJECT = 0  # the video session's only object; so is its index there

# Turns a slice, uint8, into the network's image, (1, 3, S, S) float32.
Prepare = Callable[[NDArray[np.uint8]], Tensor]


@dataclass(frozen=True, slots=True)
class Sam2Embedding:
    """An encoded slice of ``shape`` (rows, columns).

    ``maps``, float32 on the model's device, are three levels from fine to coarse as the video model's cache has them:
    (S/4 * S/4, 1, C/8), (S/8 * S/8, 1, C/4) and (S/16 * S/16, 1, C), with S the side of the network's image.
    """

    maps: tuple[Tensor, ...]
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes: 16 MB at 1024 pixels, 4 MB at 512."""
        return sum(level.nbytes for level in self.maps)

    @property
    def grid(self) -> Tensor:
        """The coarsest features, which lie on the slice: (rows, columns, channels)."""
        return self.maps[-1][:, 0].unflatten(0, (math.isqrt(len(self.maps[-1])), -1))


def to_network(xy: Tensor, shape: tuple[int, int], size: int) -> Tensor:
    """(..., 2) columns and rows of a slice of ``shape`` in the network's pixels, each axis stretched by its own factor.

    Rounded to float32 before it is scaled, as Sam2Processor does; SamProcessor scales in float64 (:mod:`.sam`).
    """
    rows, columns = shape
    return torch.stack((xy[..., 0] * (size / columns), xy[..., 1] * (size / rows)), dim=-1)


def point_tensors(prompt: SlicePrompt, shape: tuple[int, int], size: int) -> tuple[Tensor, Tensor] | None:
    """A prompt's points as (1, 1, n, 2) float32 in the network's pixels and (1, 1, n) labels; None without points."""
    if not prompt.points:
        return None
    xy = torch.tensor([[[(point.x, point.y) for point in prompt.points]]], dtype=torch.float32)
    return to_network(xy, shape, size), torch.tensor([[[int(point.positive) for point in prompt.points]]])


def box_tensor(box: BoxXyxy, shape: tuple[int, int], size: int) -> Tensor:
    """A box as (1, 1, 4) float32 in the network's pixels."""
    corners = torch.tensor(box, dtype=torch.float32).reshape(1, 1, 2, 2)
    return to_network(corners, shape, size).reshape(1, 1, 4)


def click_tensors(prompt: SlicePrompt, shape: tuple[int, int], size: int) -> tuple[Tensor, Tensor]:
    """Box and points in one list of points, the box's corners first, as the video model takes them.

    (1, 1, n, 2) float32 in the network's pixels and (1, 1, n) labels, where 2 and 3 are corners.
    """
    clicks = []
    if prompt.box is not None:
        clicks.append((box_tensor(prompt.box, shape, size).reshape(1, 1, 2, 2), torch.tensor([[_BOX_LABELS]])))
    if points := point_tensors(prompt, shape, size):
        clicks.append(points)
    xy, labels = zip(*clicks, strict=True)
    return torch.cat(xy, dim=2), torch.cat(labels, dim=2)


def mask_tensor(mask: SliceMask, size: int) -> Tensor:
    """A mask stretched to the network's image: (1, 1, size, size) float32, 0 or 1."""
    whole = torch.from_numpy(mask.unpack()).float()[None, None]
    if whole.shape[-2:] == (size, size):
        return whole
    stretched = interpolate(whole, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
    return (stretched >= 0.5).float()


def mask_as_logits(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask of (1, 1, S, S) as if the network had predicted it: (1, 1, *size) logits of -10 to 10."""
    return interpolate(mask * _MASK_SCALE + _MASK_BIAS, size=size, mode="bilinear", align_corners=False, antialias=True)


class Sam2Memory:
    """SAM 2's memory of one object: transformers' video session, fed with slices that are encoded already.

    The session decides on the contents of the memory (SAM 2: Segment Anything in Images and Videos, arXiv:2408.00714,
    section 4). This class hands it features in place of frames, and frees outputs that it would keep for ever. An
    answer is ``absent`` where its object score says so.

    A prompted slice is conditioned by its prompt alone, whatever other slices say; a slice that was followed before
    is corrected: its prompt is decoded together with the memory. Points and box on one slice are one prompt. The
    session takes either clicks or a mask: where a prompt has both, the mask is first refined by the clicks, as on a
    slice by itself, and the result is remembered.

    Spatial memories (0.5 MB a slice at 1024 pixels) are kept of the prompted slices, and of the slices so near to
    one of those or to the latest that the network looks at them; pointers to the object (1 kB a slice) of all. A
    correction of a slice far from all of these therefore sees the spatial memories of prompted slices alone. Those of
    EdgeTAM (0.1 MB a slice), which it tells apart by their number, are all kept.
    """

    def __init__(
        self,
        network: Sam2VideoModel,
        positions: Tensor,
        decode: Callable[[Sam2Embedding, SlicePrompt], SliceAnswer],
        slices: int,
    ) -> None:
        self._network = network
        self._keeps_all = hasattr(network, "spatial_perceiver")
        self._positions = positions
        self._decode = decode
        self._reach = network.config.num_maskmem - 1
        self._size = network.config.image_size
        device = network.device
        self._session = Sam2VideoInferenceSession(
            dtype=torch.float32, inference_device=device, inference_state_device=device, video_storage_device=device
        )
        # Of the frames, only their number is looked at, as long as the features are there first.
        self._session.processed_frames = dict.fromkeys(range(slices))
        self._session.obj_id_to_idx(_OBJECT)
        self._prompted: dict[int, SliceAnswer] = {}
        self._memory_positions: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory taken by the session's outputs, in bytes."""
        outputs = (output for kind in self._session.output_dict_per_obj[_OBJECT].values() for output in kind.values())
        tensors = [value for output in outputs for value in output.values() if isinstance(value, Tensor)]
        storages = (value.untyped_storage() for value in tensors)
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def prompt(self, index: int, embedding: Sam2Embedding, prompt: SlicePrompt) -> SliceAnswer:
        """Segment a slice with a prompt, and remember it; its points and box as clicks, its mask as it is."""
        if prompt.mask is None:
            points, labels = click_tensors(prompt, embedding.shape, self._size)
            self._session.add_point_inputs(_OBJECT, index, {"point_coords": points, "point_labels": labels})
            answer = self._answer_prompt(index, embedding)
        elif prompt.box is None and not prompt.points:
            answer = self._remember_mask(index, embedding, prompt.mask)
        else:
            answer = self._decode(embedding, prompt)
            self._remember_mask(index, embedding, SliceMask.pack(answer.mask))
        self._prompted[index] = answer
        return answer

    def follow(self, index: int, embedding: Sam2Embedding, upwards: bool) -> SliceAnswer:
        """Segment a slice without a prompt, from the memory, and remember it.

        Raises:
            InferenceError: no slice has a prompt yet.
        """
        if not self._prompted:
            raise InferenceError("there is nothing to follow yet: no slice has a prompt")
        if index in self._prompted:
            return self._prompted[index]
        return self._answer(index, embedding, not upwards)

    def _remember_mask(self, index: int, embedding: Sam2Embedding, mask: SliceMask) -> SliceAnswer:
        self._session.add_mask_inputs(_OBJECT, index, mask_tensor(mask, self._size))
        return self._answer_prompt(index, embedding, score=1.0)

    def _answer_prompt(self, index: int, embedding: Sam2Embedding, score: float | None = None) -> SliceAnswer:
        self._session.obj_with_new_inputs = [_OBJECT]
        # A correction looks in the direction in which the slice was followed, if it was.
        tracked = self._session.frames_tracked_per_obj[_OBJECT].get(index, {"reverse": False})
        return self._answer(index, embedding, tracked["reverse"], score)

    @torch.inference_mode()
    def _answer(self, index: int, embedding: Sam2Embedding, reverse: bool, score: float | None = None) -> SliceAnswer:
        features = {"vision_feats": list(embedding.maps), "vision_pos_embeds": [self._positions]}
        self._session.cache.cache_vision_features(index, features)
        with _predicted_iou(self._network) as scores:
            output = self._network(self._session, frame_idx=index, reverse=reverse)
        presence = self._output_of(index)["object_score_logits"].flatten()
        numbers = torch.cat((presence, scores[-1])) if score is None else presence
        mask, (present, *predicted) = _on_host(output.pred_masks, embedding.shape, numbers)
        self._free_unused(index)
        return SliceAnswer(mask, as_score(predicted[0]) if score is None else score, absent=not present > 0)

    def _free_unused(self, index: int) -> None:
        """Free everything that the session will not look at again after its answer on a slice."""
        self._session.cache.clear_all()
        self._session.remove_point_inputs(_OBJECT, index)
        self._session.remove_mask_inputs(_OBJECT, index)
        outputs = self._session.output_dict_per_obj[_OBJECT]
        # In the order of the slices, so that answers do not depend on the order in which prompts were given.
        outputs["cond_frame_outputs"] = dict(sorted(outputs["cond_frame_outputs"].items()))
        self._shrink(self._output_of(index))
        if self._keeps_all:
            return
        centres = (index, *outputs["cond_frame_outputs"], *self._prompted)
        for other, output in outputs["non_cond_frame_outputs"].items():
            if output["maskmem_features"].numel() and all(abs(other - centre) > self._reach for centre in centres):
                for name in ("maskmem_features", "maskmem_pos_enc"):
                    # Empty and not away: the session reads it of every slice that it knows, and joins them.
                    output[name] = output[name].new_empty((0, *output[name].shape[1:]))

    def _shrink(self, output: dict[str, Any]) -> None:
        """Keep of a new output only the parts that later slices use; positions are the same in all, and kept once."""
        for name in ("high_res_masks", "pred_masks"):
            output.pop(name, None)
        if self._memory_positions is None:
            self._memory_positions = output["maskmem_pos_enc"].clone()
        output["maskmem_pos_enc"] = self._memory_positions
        for name, value in output.items():
            # A view would keep the whole tensor alive.
            if value is not self._memory_positions:
                output[name] = value.clone()

    def _output_of(self, index: int) -> dict[str, Any]:
        return next(kind[index] for kind in self._session.output_dict_per_obj[_OBJECT].values() if index in kind)


def _on_host(logits: Tensor, shape: tuple[int, int], numbers: Tensor) -> tuple[NDArray[np.bool_], list[float]]:
    """Fetch a mask of ``shape``, and numbers with it: the device is waited for once a slice."""
    return on_host(interpolate(logits, size=shape, mode="bilinear", align_corners=False)[0, 0] > 0, numbers)


@contextmanager
def _predicted_iou(network: Sam2VideoModel) -> Iterator[list[Tensor]]:
    """Collect the predicted IoU of the best mask, (1,), of every decoding within: the session does not hand it out."""
    scores: list[Tensor] = []

    def note(_module: Any, _arguments: Any, output: tuple[Tensor, ...]) -> None:
        scores.append(output[1].max().reshape(1))

    handle = network.mask_decoder.register_forward_hook(note)
    try:
        yield scores
    finally:
        handle.remove()


class Sam2:
    """The adapter; :class:`~..protocols.MemoryModel` describes the two rules."""

    precision = "float32"

    def __init__(
        self,
        network: Sam2VideoModel,
        prepare: Prepare,
        device: str,
        fresh_each_way: bool = False,
        largest_part_only: bool = False,
    ) -> None:
        self.device = device
        self.fresh_each_way = fresh_each_way
        self.largest_part_only = largest_part_only
        self.network = network.eval().requires_grad_(False).to(device)
        self._prepare = prepare
        self._size = network.config.image_size
        if device == "cpu":
            quicken(network)
        backbone = network.vision_encoder.backbone
        convolutions = (module for module in backbone.modules() if isinstance(module, nn.Conv2d))
        self._steps = list(getattr(backbone, "blocks", convolutions))
        self._positions = _coarse_positions(self.network)
        self._grid = network.get_image_wide_positional_embeddings()
        network.vision_encoder.neck.position_encoding = _NoPositions()

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return weights.weight_bytes(self.network)

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8], check: Check = unstoppable) -> Sam2Embedding:
        """Encode a slice, (rows, columns) or (rows, columns, 3), uint8; can be stopped between blocks."""
        pixels = to_device(self._prepare(image), self.device)
        with weights.checked(self._steps, check):
            output = self.network.get_image_features(pixels)
        # transformers 4 answers with a tuple.
        maps = output[0] if isinstance(output, tuple) else output.fpn_hidden_states
        return Sam2Embedding(tuple(maps), image.shape[:2])

    @torch.inference_mode()
    def decode(self, embedding: Sam2Embedding, prompt: SlicePrompt, previous: SliceAnswer | None = None) -> SliceAnswer:
        """Segment a prompt's object on a slice by itself.

        A single point is ambiguous: of the three masks for it, the best by predicted IoU. As SAM 2's own image
        predictor, it takes the object to be on the slice; only a memory says that one is absent.
        """
        logits, scores = self.guess(embedding, prompt, None if previous is None else previous.logits)
        best = scores.argmax().reshape(1)
        chosen = logits.index_select(0, best)[None]
        mask, (score,) = _on_host(chosen, embedding.shape, scores.index_select(0, best))
        return SliceAnswer(mask, as_score(score), chosen)

    @property
    def decoder(self) -> Sam2VideoModel:
        """The network with the prompt encoder and the mask decoder."""
        return self.network

    def with_decoder(self, decoder: Sam2VideoModel) -> "Sam2":
        """The same model with another prompt encoder and mask decoder."""
        model = copy.copy(self)
        model.network = decoder
        return model

    def guess(
        self,
        embedding: Sam2Embedding,
        prompt: SlicePrompt,
        coarse: Tensor | None,
        decoder: Sam2VideoModel | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits of the masks that a prompt may mean, (masks, S/4, S/4), and their predicted IoUs; gradients pass."""
        network = decoder or self.network
        if coarse is None and prompt.mask is not None:
            stretched = mask_tensor(prompt.mask, self._size)
            coarse = mask_as_logits(stretched, network.prompt_encoder.mask_input_size).to(self.device)
        ambiguous = len(prompt.points) == 1 and prompt.box is None and coarse is None
        tensors = self._prompt_tensors(prompt, embedding.shape)
        logits, scores = self._decoded(network, embedding, tensors, coarse, ambiguous)
        return logits[0, 0], scores[0, 0]

    def on_slice(self, logits: Tensor, embedding: Sam2Embedding) -> Tensor:
        """Stretch logits of the network, (1, 1, S/4, S/4), to the slice; (rows, columns)."""
        return interpolate(logits, size=embedding.shape, mode="bilinear", align_corners=False)[0, 0]

    def _prompt_tensors(self, prompt: SlicePrompt, shape: tuple[int, int]) -> dict[str, Tensor | None]:
        points = point_tensors(prompt, shape, self._size)
        box = None if prompt.box is None else box_tensor(prompt.box, shape, self._size)
        if points is None and box is None:
            # Sam2Model's padding: a point that is none.
            points = torch.zeros(1, 1, 1, 2), -torch.ones(1, 1, 1, dtype=torch.int32)
        xy, labels = points or (None, None)
        tensors = {"input_points": xy, "input_labels": labels, "input_boxes": box}
        return {name: None if value is None else value.to(self.device) for name, value in tensors.items()}

    def _decoded(
        self,
        network: Sam2VideoModel,
        embedding: Sam2Embedding,
        prompts: dict[str, Tensor | None],
        coarse: Tensor | None,
        several: bool,
    ) -> tuple[Tensor, Tensor]:
        """Logits (1, 1, n, S/4, S/4) and predicted IoUs (1, 1, n): n is 3 where ``several``, otherwise 1."""
        sparse, dense = network.prompt_encoder(**prompts, input_masks=coarse)
        maps = [*embedding.maps[:-1], embedding.maps[-1] + network.no_memory_embedding]
        sizes = network.backbone_feature_sizes
        levels = [level.permute(1, 2, 0).view(1, -1, *size) for level, size in zip(maps, sizes, strict=True)]
        return network.mask_decoder(
            image_embeddings=levels[-1],
            image_positional_embeddings=self._grid,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
            high_resolution_features=levels[:-1],
        )[:2]

    def box_around(self, mask: NDArray[np.bool_], wider: int = 0) -> BoxXyxy | None:
        """Box for the next slice, where no memory is wanted: around this mask, and 12 of 1024 pixels or more."""
        return box_for_neighbour(mask, scale_to((self._size, self._size), mask.shape), self._size, wider)

    def remember(self, slices: int) -> Sam2Memory:
        """Start a memory of one object in a volume of that many slices."""
        return Sam2Memory(self.network, self._positions, self.decode, slices)


class _NoPositions(nn.Module):
    """In place of the neck's positional embeddings, which are the same for every slice and 84 MB large."""

    def forward(self, shape: torch.Size, device: Any, dtype: torch.dtype, mask: Tensor | None = None) -> Tensor:
        """(1, 1, 1, 1), which broadcasts in place of the embeddings."""
        return torch.zeros(1, 1, 1, 1, dtype=dtype, device=device)


@torch.inference_mode()
def _coarse_positions(network: Sam2VideoModel) -> Tensor:
    """The positional embedding of the coarsest level, the only one that is used: (S/16 * S/16, 1, C) float32."""
    shape = torch.Size((1, network.hidden_dim, *network.backbone_feature_sizes[-1]))
    positions = network.vision_encoder.neck.position_encoding(shape, network.device, torch.float32)
    return positions.flatten(2).permute(2, 0, 1)


def read_config(path: Path, card: ModelCard, kind: type[Any] = Sam2VideoConfig) -> Any:
    """Read the network's sizes from a config.json of this kind.

    Raises:
        CheckpointError: it is that of another model, or its sizes contradict each other.
    """
    values = weights.read_json(path, card)
    if values.get("model_type") != kind.model_type:
        raise weights.unusable(path.name, card)
    try:
        backbone = values["vision_config"]["backbone_config"]
        if backbone["model_type"] == "timm_wrapper":
            backbone.setdefault("num_classes", 2)  # transformers 5 stumbles where the file names none; none are used
        config = kind.from_dict(values)
        fits = _sizes_agree(config)
    except _configuration_errors() as error:
        raise CheckpointError(f"{card.title}: {path.name} cannot be understood; download it again") from error
    if not fits:
        raise CheckpointError(f"{card.title}: {path.name} names image sizes that do not fit; download it again")
    return config


def at_resolution(config: Any, size: int) -> Any:
    """Return the configuration of the same network for images of ``size`` pixels: no weight depends on it."""
    config = copy.deepcopy(config)
    vision, backbone = config.vision_config, config.vision_config.backbone_config
    if hasattr(backbone, "image_size"):
        backbone.image_size = [size, size]
    vision.backbone_feature_sizes = [[size // n] * 2 for n in (4, 8, 16)]
    config.image_size = config.prompt_encoder_config.image_size = size
    config.memory_attention_rope_feat_sizes = [size // 16] * 2
    return config


def _configuration_errors() -> tuple[type[Exception], ...]:
    from huggingface_hub.errors import StrictDataclassError

    return AttributeError, KeyError, TypeError, ValueError, StrictDataclassError


def _sizes_agree(config: Any) -> bool:
    """No weight has a shape that depends on the image's size, so that loading would not notice a wrong one."""
    size = config.image_size
    vision = config.vision_config
    return (
        list(getattr(vision.backbone_config, "image_size", (size, size))) == [size, size]
        and config.prompt_encoder_config.image_size == size
        and [list(level) for level in vision.backbone_feature_sizes] == [[size // n] * 2 for n in (4, 8, 16)]
        and list(config.memory_attention_rope_feat_sizes) == [size // 16] * 2
    )


def build_network(config: Any, state: Mapping[str, Tensor], card: ModelCard, kind: type[Any] = Sam2VideoModel) -> Any:
    """Build a network of this kind with exactly these weights.

    Raises:
        CheckpointError: some are missing, left over, or of another shape; or the configuration describes no network.
    """
    try:
        network = kind(config)
    except _configuration_errors() as error:
        raise CheckpointError(f"{card.title}: its configuration does not describe a network") from error
    weights.load_strictly(network, state, card)
    return network


def read_checkpoint(
    card: ModelCard, files: Mapping[str, Path], configuration: type[Any], kind: type[Any]
) -> tuple[Any, Sam2Preparation]:
    """Read a checkpoint of transformers: network and preparation of images, at the card's resolution if it has one.

    Raises:
        CheckpointError: a file is missing, unreadable, does not fit the others, or holds other weights.
    """
    config = read_config(weights.required_file("config.json", files, card), card, configuration)
    size = config.image_size
    normalisation = read_normalisation(files, card, {"size": {"height": size, "width": size}})
    if card.resolution:
        config, size = at_resolution(config, card.resolution), card.resolution
    state = weights.read_safetensors(weights.required_file("model.safetensors", files, card), card)
    return build_network(config, weights.share_table(state), card, kind), Sam2Preparation(size, normalisation)


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> Sam2:
    """Load the adapter with the weights of a checkpoint in transformers' layout.

    Raises:
        CheckpointError: a file is missing, unreadable, does not fit the others, or holds other weights.
    """
    return Sam2(*read_checkpoint(card, files, Sam2VideoConfig, Sam2VideoModel), device)
