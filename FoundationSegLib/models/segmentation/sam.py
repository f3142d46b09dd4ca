"""SAM (ViT-B, ViT-L, ViT-H) and SlimSAM: points, boxes and masks on slices, and refining the last answer.

The network is transformers' SamModel. Preparation, coordinates and masks are those of its SamProcessor, in float32
throughout. The choice among its masks follows the original SAM (segment_anything/predictor.py and the README: three
masks for a single point, which may mean a part or the whole, and one for every other prompt).

MedSAM, LiteMedSAM, MobileSAM and SAM 2 share the network's parts and the coordinates with it.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import SamConfig, SamModel
from transformers.models.sam.configuration_sam import SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

from ...catalog.model_cards import ModelCard
from ...errors import PromptError
from .. import weights
from ..cpu_kernels.sam import AttentionStrip, SamCpuDecoder, attend_in_strips
from ..cpu_kernels.tiny_vit import fast_path_available
from ..preprocessing import Normalisation, channels_first, longest_side_shape, read_normalisation, to_device
from ..protocols import BoxXyxy, Check, SliceAnswer, SliceMask, SlicePoint, SlicePrompt, unstoppable

# By how much the box for a neighbouring slice exceeds the mask, of the side of the network's image. LiteMedSAM's
# authors take 3 of its 256 pixels (CVPR24_LiteMedSAM_infer.py); nobody has published one for SAM or MedSAM.
NEIGHBOUR_MARGIN = 3 / 256
# Confidence of a mask prompt in each of its pixels: log-odds of 0.999, as in micro-sam's _compute_logits_from_mask.
MASK_LOGIT = math.log((1 - 1e-3) / 1e-3)
_SECTIONS = {
    "vision_config": SamVisionConfig,
    "prompt_encoder_config": SamPromptEncoderConfig,
    "mask_decoder_config": SamMaskDecoderConfig,
}

Scale = tuple[float, float]


def scale_to(resized: tuple[int, int], shape: tuple[int, int]) -> Scale:
    """Factors by which x and y grow from a slice (rows, columns) to its resized shape (SamProcessor)."""
    return resized[1] / shape[1], resized[0] / shape[0]


def point_tensors(points: Sequence[SlicePoint], scale: Scale, device: str) -> tuple[Tensor, Tensor]:
    """Points for the network, (1, 1, points, 2), and their labels, (1, 1, points)."""
    positions = [(point.x * scale[0], point.y * scale[1]) for point in points]
    labels = [int(point.positive) for point in points]
    return torch.tensor([[positions]], dtype=torch.float32, device=device), torch.tensor([[labels]], device=device)


def scaled_box(box: BoxXyxy, scale: Scale) -> BoxXyxy:
    """Multiply the x and y of a box."""
    x0, y0, x1, y1 = (n * factor for n, factor in zip(box, scale * 2, strict=True))
    return x0, y0, x1, y1


def box_tensor(box: BoxXyxy, scale: Scale, device: str) -> Tensor:
    """A box for the network, (1, 1, 4)."""
    return torch.tensor([[scaled_box(box, scale)]], dtype=torch.float32, device=device)


def mask_tensor(mask: SliceMask, size: int, device: str) -> Tensor:
    """A mask prompt as logits for the network, (1, 1, size, size).

    As in micro-sam (prompt_based_segmentation.py, _compute_logits_from_mask, commit 3acdcd72): the mask itself is
    resized to its longest side, cut at a half and padded with background, and only then turned into log-odds.

    Where every pixel of the network sees less than half an object, those that see most of it stand for it.
    """
    pixels = torch.from_numpy(mask.unpack()).to(torch.float32)[None, None]
    shape = longest_side_shape(mask.shape, size)
    small = functional.interpolate(pixels, shape, mode="bilinear", align_corners=False, antialias=True)
    inside = small > min(0.5, 0.99 * float(small.max()))
    padded = functional.pad(inside, (0, size - shape[1], 0, size - shape[0]))
    return torch.where(padded, MASK_LOGIT, -MASK_LOGIT).to(device)


def unpadded(logits: Tensor, size: int, resized: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """Logits (1, 1, size / 4, size / 4) on the slice, (rows, columns) = ``shape``: transformers' post_process_masks."""
    large = functional.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
    large = large[..., : resized[0], : resized[1]]
    return functional.interpolate(large, shape, mode="bilinear", align_corners=False)[0, 0]


def as_score(predicted: Tensor | float) -> float:
    """Cut the network's prediction of its own IoU to 0..1, which it may leave."""
    return min(1.0, max(0.0, float(predicted)))


def on_host(mask: Tensor, numbers: Tensor) -> tuple[NDArray[np.bool_], list[float]]:
    """Fetch a mask and float32 numbers by one transfer, so that the device is waited for once."""
    host = torch.cat((numbers.view(torch.uint8), mask.flatten().view(torch.uint8))).cpu().numpy()
    begin = numbers.nbytes
    return host[begin:].view(np.bool_).reshape(mask.shape), host[:begin].view(np.float32).tolist()


def box_around(mask: NDArray[np.generic], margin: Scale, limit: Scale) -> BoxXyxy | None:
    """Box around the nonzero pixels, wider by ``margin`` (x, y), between zero and ``limit``; None for an empty mask.

    With a margin of zero both corners are in the object.
    """
    rows, columns = np.nonzero(mask)
    if not rows.size:
        return None
    x0, y0 = (max(0, int(n.min()) - by) for n, by in zip((columns, rows), margin, strict=True))
    x1, y1 = (min(end, int(n.max()) + by) for n, by, end in zip((columns, rows), margin, limit, strict=True))
    return x0, y0, x1, y1


def box_for_neighbour(mask: NDArray[np.bool_], scale: Scale, size: int, wider: int) -> BoxXyxy | None:
    """Box for a neighbouring slice: around this slice's mask, and wider by the usual margin and more.

    Args:
        mask: (rows, columns).
        scale: factors by which x and y grow from the slice to the network.
        size: the side of the network's image, in pixels.
        wider: by how many of the network's pixels the margin exceeds the usual one.
    """
    margin = NEIGHBOUR_MARGIN * size + wider
    rows, columns = mask.shape
    return box_around(mask, (margin / scale[0], margin / scale[1]), (columns - 1, rows - 1))


@dataclass(frozen=True, slots=True)
class SamEmbedding:
    """An encoded slice.

    ``features`` is (1, channels, size / 16, size / 16), of LiteMedSAM (1, channels, size / 4, size / 4), float32 on the
    model's device; ``shape`` is that of the slice (rows, columns), ``resized`` its shape once resized, before padding.
    """

    features: Tensor
    shape: tuple[int, int]
    resized: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Memory taken, in bytes."""
        return self.features.nbytes

    @property
    def grid(self) -> Tensor:
        """The features that lie on the slice, without its padding: (rows, columns, channels)."""
        cells = self.features.shape[-1] / max(self.resized)
        rows, columns = (max(1, round(length * cells)) for length in self.resized)
        return self.features[0, :, :rows, :columns].permute(1, 2, 0)


class SamDecoder:
    """The prompt encoder and mask decoder of ``model``, which need no image encoder. Call it in inference mode."""

    def __init__(self, model: SamModel, device: str) -> None:
        self._model = model
        # transformers works this out for every prompt, and in a layout that slows the decoder: 61 against 50 ms.
        self._positions = model.get_image_wide_positional_embeddings().detach().contiguous()
        self._cpu_decoder = SamCpuDecoder(model) if fast_path_available(device) else None

    def laid_out(self, features: Tensor) -> Tensor:
        """Lay an encoder's features out for many prompts: transformers' decoder is fast on contiguous ones alone."""
        return features if self._cpu_decoder else features.contiguous()

    def __call__(
        self,
        features: Tensor,
        points: tuple[Tensor | None, Tensor | None] = (None, None),
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        several: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Decode a prompt for one object to logits (masks, rows, columns) and predicted IoUs (masks,).

        Args:
            features: the encoder's, as laid out by :meth:`laid_out`.
            points: (1, 1, points, 2) float32, x and y in pixels of the network, centres at whole numbers; and their
                labels, (1, 1, points), 1 for a positive point, 0 for a negative one. Points or a box at the least.
            boxes: (1, 1, 4) float32, x0, y0, x1, y1 in pixels of the network.
            masks: (1, 1, rows, columns) logits, of the size of the network's masks.
            several: True for several guesses instead of one mask.
        """
        if not self._cpu_decoder:
            return self.by_modules(self._model, features, points, boxes, masks, several)
        sparse, dense = self._model.prompt_encoder(*points, boxes, masks)
        return self._cpu_decoder(features, sparse[0, 0], None if masks is None else dense, several)

    def by_modules(
        self,
        model: SamModel,
        features: Tensor,
        points: tuple[Tensor | None, Tensor | None],
        boxes: Tensor | None,
        masks: Tensor | None,
        several: bool,
    ) -> tuple[Tensor, Tensor]:
        """Decode by the modules of ``model``, which has the positions of this one; gradients pass."""
        sparse, dense = model.prompt_encoder(*points, boxes, masks)
        logits, scores = model.mask_decoder(
            image_embeddings=features,
            image_positional_embeddings=self._positions,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=several,
        )
        return logits[0, 0], scores[0, 0]


class SamNetwork:
    """An image encoder and, as ``decode``, its decoder. Call it in inference mode."""

    def __init__(self, model: SamModel, device: str) -> None:
        self.model, self.device = model, device
        self.size: int = model.config.vision_config.image_size
        # The side of the masks that it gives and takes.
        self.mask_size: int = 4 * model.config.prompt_encoder_config.image_embedding_size
        if device == "cpu":
            attend_in_strips(model.vision_encoder.layers)
        self.decode = SamDecoder(model, device)

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return weights.weight_bytes(self.model)

    def with_decoder(self, model: SamModel) -> "SamNetwork":
        """The same encoder with the prompt encoder and the mask decoder of ``model``."""
        network = copy.copy(self)
        network.model, network.decode = model, SamDecoder(model, self.device)
        return network

    @property
    def encoder(self) -> nn.Module:
        """The image encoder; called with pixels it gives features alone, or first."""
        return self.model.vision_encoder

    def with_encoder(self, encoder: nn.Module) -> "SamNetwork":
        """The same decoder with another image encoder."""
        network, network_model = copy.copy(self), copy.copy(self.model)
        network_model._modules = {**self.model._modules, "vision_encoder": encoder}
        network.model = network_model
        return network

    def embed(self, pixels: Tensor, encoder: nn.Module) -> Tensor:
        """Encode (1, 3, size, size) float32 by another encoder; gradients pass."""
        features = encoder(pixels.to(self.device))
        return features if isinstance(features, Tensor) else features[0]

    def encode(self, pixels: Tensor, check: Check) -> Tensor:
        """Encode (1, 3, size, size) float32; ``check`` is called many times in every layer of the encoder."""
        encoder = self.model.vision_encoder
        # Before every linear layer, and before every strip of an attention.
        steps = (module for module in encoder.layers.modules() if isinstance(module, nn.Linear | AttentionStrip))
        with weights.checked(steps, check):
            return self.decode.laid_out(encoder(to_device(pixels, self.device))[0])


def load_network(card: ModelCard, files: Mapping[str, Path], device: str) -> SamNetwork:
    """Load SAM's network, float32, for inference. No name of a repository is ever given to transformers.

    Args:
        card: for the messages.
        files: the checkpoint in the layout of transformers; config.json and model.safetensors are looked for by their
            names, in any folder.
        device: ``"cuda"``, ``"mps"`` or ``"cpu"``.

    Raises:
        CheckpointError: a file is missing, damaged, or does not hold SAM's network as config.json describes it.
    """
    config = weights.read_config(weights.required_file("config.json", files, card), card, SamConfig, _SECTIONS)
    vision, prompts = config.vision_config, config.prompt_encoder_config
    if (vision.image_size, vision.patch_size) != (prompts.image_size, prompts.patch_size):
        raise weights.unusable("config.json", card)
    state = weights.read_safetensors(weights.required_file("model.safetensors", files, card), card)
    try:
        # Without memory at first: random weights of the largest SAM would take ten seconds, and be thrown away.
        with torch.device("meta"):
            model = SamModel(config)
    # Sizes that contradict each other, or an activation that transformers has not.
    except (ValueError, KeyError) as error:
        raise weights.unusable("config.json", card) from error
    model.to_empty(device=device)
    weights.load_strictly(model, weights.share_table(state), card)
    return SamNetwork(model.eval().requires_grad_(False), device)


def prepare(image: NDArray[np.uint8], size: int, normalisation: Normalisation) -> Tensor:
    """Prepare a slice for the encoder: (1, 3, size, size) float32.

    Longest side to ``size`` in 8 bits, then each channel's mean and standard deviation, then zeros at the bottom and
    right. A grey slice (rows, columns) is resized once, and then repeated.
    """
    rows, columns = longest_side_shape(image.shape[:2], size)
    # On 8 bits torch computes in whole numbers, as SamImageProcessor does: in floats a fifth of all pixels differ by 1.
    levels = functional.interpolate(
        channels_first(image), (rows, columns), mode="bilinear", align_corners=False, antialias=True
    )
    padded = torch.zeros(1, 3, size, size)
    padded[..., :rows, :columns] = normalisation(levels)
    return padded


class Sam:
    """The adapter."""

    precision = "float32"

    def __init__(self, network: SamNetwork, normalisation: Normalisation) -> None:
        self.network, self.device = network, network.device
        self._normalisation = normalisation

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return self.network.nbytes

    @torch.inference_mode()
    def encode(self, image: NDArray[np.uint8], check: Check = unstoppable) -> SamEmbedding:
        """Encode a slice, (rows, columns) or (rows, columns, 3), uint8."""
        size = self.network.size
        features = self.network.encode(prepare(image, size, self._normalisation), check)
        return SamEmbedding(features, image.shape[:2], longest_side_shape(image.shape[:2], size))

    @torch.inference_mode()
    def decode(self, embedding: SamEmbedding, prompt: SlicePrompt, previous: SliceAnswer | None = None) -> SliceAnswer:
        """Segment a prompt's object; of the three masks for a single point, the one that the network trusts most.

        ``previous`` goes in as its logits, and then a mask of the prompt does not.

        Raises:
            PromptError: the prompt has no point, no box and no mask with a pixel in it.
        """
        guesses, scores = self.guess(embedding, prompt, None if previous is None else previous.logits)
        best = scores.argmax().reshape(1)
        chosen = guesses.index_select(0, best)[None]  # a copy: the others need not be kept with it
        mask, (score,) = on_host(self.on_slice(chosen, embedding) > 0, scores.index_select(0, best))
        return SliceAnswer(mask, as_score(score), chosen)

    @property
    def decoder(self) -> SamModel:
        """The network with the prompt encoder and the mask decoder."""
        return self.network.model

    @property
    def encoder(self) -> nn.Module:
        """The image encoder."""
        return self.network.encoder

    def with_encoder(self, encoder: nn.Module) -> "Sam":
        """The same model with another image encoder."""
        return Sam(self.network.with_encoder(encoder), self._normalisation)

    def embed(self, image: NDArray[np.uint8], encoder: nn.Module) -> SamEmbedding:
        """Encode a slice by another encoder; gradients pass."""
        size = self.network.size
        features = self.network.embed(prepare(image, size, self._normalisation), encoder)
        return SamEmbedding(features, image.shape[:2], longest_side_shape(image.shape[:2], size))

    def with_decoder(self, decoder: SamModel) -> "Sam":
        """The same model with another prompt encoder and mask decoder."""
        return Sam(self.network.with_decoder(decoder), self._normalisation)

    def guess(
        self, embedding: SamEmbedding, prompt: SlicePrompt, logits: Tensor | None, decoder: SamModel | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits of the masks that a prompt may mean, (masks, rows, columns), and their predicted IoUs.

        Gradients pass where another ``decoder`` is named.
        """
        scale = scale_to(embedding.resized, embedding.shape)
        points = point_tensors(prompt.points, scale, self.device) if prompt.points else (None, None)
        box = prompt.box or self._box_of_mask(prompt, logits)
        require_position(prompt, box)
        boxes = box_tensor(box, scale, self.device) if box else None
        several = is_ambiguous(prompt, logits)
        if logits is None and prompt.mask:
            logits = mask_tensor(prompt.mask, self.network.mask_size, self.device)
        if decoder is not None:
            return self.network.decode.by_modules(decoder, embedding.features, points, boxes, logits, several)
        return self.network.decode(embedding.features, points, boxes, logits, several)

    def on_slice(self, logits: Tensor, embedding: SamEmbedding) -> Tensor:
        """Bring logits of the network, (1, 1, rows, columns), to the slice; (rows, columns)."""
        return unpadded(logits, self.network.size, embedding.resized, embedding.shape)

    @staticmethod
    def _box_of_mask(prompt: SlicePrompt, logits: Tensor | None) -> BoxXyxy | None:
        """Box around a prompt's mask, which goes in with it, as in micro-sam's segment_from_mask.

        None while an answer is refined: points that refine it may lie outside the first mask.
        """
        if prompt.mask is None or (logits is not None and prompt.points):
            return None
        mask = prompt.mask.unpack()
        return box_around(mask, (0, 0), mask.shape[::-1])

    def box_around(self, mask: NDArray[np.bool_], wider: int = 0) -> BoxXyxy | None:
        """Box for the next slice: around this mask, and 12 of the network's 1024 pixels wider, or more."""
        size = self.network.size
        return box_for_neighbour(mask, scale_to(longest_side_shape(mask.shape, size), mask.shape), size, wider)


def require_position(prompt: SlicePrompt, box: BoxXyxy | None) -> None:
    """Make sure that a prompt says where its object is.

    Raises:
        PromptError: it has no point, no box and no mask with a pixel in it.
    """
    if not (box or prompt.points):
        raise PromptError("the prompt says nothing of where the object is")


def is_ambiguous(prompt: SlicePrompt, logits: Tensor | None) -> bool:
    """True for a prompt that may mean several objects: a single positive point, and nothing else."""
    alone = prompt.box is None and prompt.mask is None and logits is None
    return alone and len(prompt.points) == 1 and prompt.points[0].positive


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> Sam:
    """Load the adapter with its files: config.json, model.safetensors, maybe preprocessor_config.json.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not describe and hold SAM's network.
    """
    network = load_network(card, files, device)
    side = network.size
    shape = {"size": {"longest_edge": side}, "do_pad": True, "pad_size": {"height": side, "width": side}}
    return Sam(network, read_normalisation(files, card, shape))
