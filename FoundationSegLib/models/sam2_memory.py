"""SAM 2's memory of one object: transformers' video session, fed with slices that are encoded already.

The session decides what is remembered and how; what is here hands it features in place of frames, and lets go of what
it would keep for ever. SAM 2: Segment Anything in Images and Videos, arXiv:2408.00714, section 4.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import Sam2VideoInferenceSession, Sam2VideoModel

from ..core.errors import InferenceError
from .base import SliceAnswer, SliceMask, SlicePrompt
from .sam2_slices import Sam2Embedding, click_tensors, mask_of, mask_tensor
from .sam_prompts import as_score

Decode = Callable[[Sam2Embedding, SlicePrompt], SliceAnswer]
_OBJECT = 0  # the session's only object; so is its index there


class Sam2Memory:
    """What is remembered of one object while it is followed; an answer says ``absent`` where its object score does.

    A prompted slice is conditioned by its prompt alone, whatever other slices say; a slice that was followed before
    is corrected: its prompt is decoded together with what is remembered. Points and box on one slice are one prompt.
    The session takes either clicks or a mask: where a prompt has both, the mask is first refined by the clicks, as on
    a slice by itself, and the result is what is remembered.

    Spatial memories (0.5 MB a slice at 1024 pixels) are kept of the prompted slices, and of the slices so near to
    one of those or to the latest that the network looks at them; pointers to the object (1 kB a slice) of all. A
    correction of a slice far from all of these therefore sees the spatial memories of prompted slices alone.
    """

    def __init__(self, network: Sam2VideoModel, positions: Tensor, decode: Decode, slices: int) -> None:
        self._network = network
        self._positions = positions
        self._decode = decode
        self._reach = network.config.num_maskmem - 1
        self._size = network.config.image_size
        self._session = _empty_session(slices, network.device)
        self._session.obj_id_to_idx(_OBJECT)
        self._prompted: dict[int, SliceAnswer] = {}
        self._memory_positions: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory taken by what is remembered, in bytes."""
        stored = [value for output in self._outputs() for value in output.values() if isinstance(value, Tensor)]
        storages = (value.untyped_storage() for value in stored)
        return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())

    def prompt(self, index: int, embedding: Sam2Embedding, prompt: SlicePrompt) -> SliceAnswer:
        """The answer on a slice with a prompt, and remember it; its points and box as clicks, its mask as it is."""
        if prompt.mask is None:
            self._set_clicks(index, prompt, embedding.shape)
            answer = self._answer(index, embedding, self._direction(index))
        elif prompt.box is None and not prompt.points:
            answer = self._remember_mask(index, embedding, prompt.mask)
        else:
            answer = self._decode(embedding, prompt)
            self._remember_mask(index, embedding, SliceMask.pack(answer.mask))
        self._prompted[index] = answer
        return answer

    def follow(self, index: int, embedding: Sam2Embedding, upwards: bool) -> SliceAnswer:
        """The answer on a slice without a prompt, from what is remembered, and remember it, too.

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
        self._session.obj_with_new_inputs = [_OBJECT]
        return self._answer(index, embedding, self._direction(index), score=1.0)

    def _set_clicks(self, index: int, prompt: SlicePrompt, shape: tuple[int, int]) -> None:
        points, labels = click_tensors(prompt, shape, self._size)
        self._session.add_point_inputs(_OBJECT, index, {"point_coords": points, "point_labels": labels})
        self._session.obj_with_new_inputs = [_OBJECT]

    def _direction(self, index: int) -> bool:
        """Whether the slice was followed downwards, if it was: a correction looks the way that it was found."""
        return self._session.frames_tracked_per_obj[_OBJECT].get(index, {"reverse": False})["reverse"]

    @torch.inference_mode()
    def _answer(self, index: int, embedding: Sam2Embedding, reverse: bool, score: float | None = None) -> SliceAnswer:
        features = {"vision_feats": list(embedding.maps), "vision_pos_embeds": [self._positions]}
        self._session.cache.cache_vision_features(index, features)
        with _predicted_iou(self._network) as scores:
            output = self._network(self._session, frame_idx=index, reverse=reverse)
        absent = not float(self._stored(index)["object_score_logits"]) > 0
        self._forget(index)
        return SliceAnswer(
            mask_of(output.pred_masks, embedding.shape), scores[-1] if score is None else score, absent=absent
        )

    def _forget(self, index: int) -> None:
        """Let go of what the session will not look at again after its answer on a slice."""
        self._session.cache.clear_all()
        self._session.remove_point_inputs(_OBJECT, index)
        self._session.remove_mask_inputs(_OBJECT, index)
        outputs = self._session.output_dict_per_obj[_OBJECT]
        # In the order of the slices, so that answers do not depend on the order in which prompts were given.
        outputs["cond_frame_outputs"] = dict(sorted(outputs["cond_frame_outputs"].items()))
        self._keep_little(self._stored(index))
        wanted = (index, *outputs["cond_frame_outputs"], *self._prompted)
        for other, output in outputs["non_cond_frame_outputs"].items():
            if output["maskmem_features"].numel() and all(abs(other - near) > self._reach for near in wanted):
                for name in ("maskmem_features", "maskmem_pos_enc"):
                    # Empty and not away: the session reads it of every slice that it knows, and joins them.
                    output[name] = output[name].new_empty((0, *output[name].shape[1:]))

    def _keep_little(self, output: dict[str, Any]) -> None:
        """Of a new output, what later slices look at; positions are the same in all, and kept once."""
        for name in ("high_res_masks", "pred_masks"):
            output.pop(name, None)
        if self._memory_positions is None:
            self._memory_positions = output["maskmem_pos_enc"].clone()
        output["maskmem_pos_enc"] = self._memory_positions
        for name, value in output.items():
            # What is a view would keep alive what it is a view of.
            if value is not self._memory_positions:
                output[name] = value.clone()

    def _stored(self, index: int) -> dict[str, Any]:
        return next(kind[index] for kind in self._session.output_dict_per_obj[_OBJECT].values() if index in kind)

    def _outputs(self) -> Iterator[dict[str, Any]]:
        for kind in self._session.output_dict_per_obj[_OBJECT].values():
            yield from kind.values()


def _empty_session(slices: int, device: torch.device) -> Sam2VideoInferenceSession:
    session = Sam2VideoInferenceSession(
        dtype=torch.float32, inference_device=device, inference_state_device=device, video_storage_device=device
    )
    # Of the frames, only their number is looked at, as long as the features are there first.
    session.processed_frames = dict.fromkeys(range(slices))
    return session


@contextmanager
def _predicted_iou(network: Sam2VideoModel) -> Iterator[list[float]]:
    """The predicted IoU of the best mask of every decoding within: the session does not hand it out."""
    scores: list[float] = []

    def note(_module: Any, _arguments: Any, output: tuple[Tensor, ...]) -> None:
        scores.append(as_score(output[1].max()))

    handle = network.mask_decoder.register_forward_hook(note)
    try:
        yield scores
    finally:
        handle.remove()
