"""What transformers itself says: ``Sam2Model`` on a slice, and a video session on raw frames."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers import Sam2VideoModel

from FoundationSegLib.models.protocols import SlicePrompt
from Testing.models.sam_reference import Embeddings, as_rgb, nested
from Testing.models.small_sam2 import image_processor, video_processor


@dataclass(frozen=True)
class Said:
    """``logits`` are (rows, columns) of the slice; ``coarse`` (1, 1, h, w) what the network said.

    ``score`` is None where a session has nothing to say: of a mask that it was given, and of what it said before.
    """

    logits: np.ndarray
    coarse: torch.Tensor
    score: float | None
    present: bool

    @property
    def mask(self) -> np.ndarray:
        return self.logits > 0


def image_said(network: Embeddings, size: int, image: np.ndarray, prompt: SlicePrompt, coarse=None) -> Said:
    """``Sam2Processor``, ``Sam2Model`` and its post-processing, from raw pixels to a mask."""
    processor = image_processor(size)
    inputs = processor(images=as_rgb(image), **nested(prompt), return_tensors="pt", input_data_format="channels_last")
    sizes, embeddings = inputs.pop("original_sizes"), network.of(inputs.pop("pixel_values"))
    several = len(prompt.points) == 1 and prompt.box is None and coarse is None
    with torch.inference_mode():
        output = network.model(**inputs, image_embeddings=embeddings, input_masks=coarse, multimask_output=several)
    best = int(output.iou_scores[0, 0].argmax())
    logits = processor.post_process_masks(output.pred_masks, sizes, binarize=False)[0][0, best]
    return Said(
        logits.numpy(),
        output.pred_masks[:, :, best],
        float(output.iou_scores[0, 0, best]),
        float(output.object_score_logits) > 0,
    )


class Video:
    """transformers' video session on raw frames, which it encodes itself; objects are numbered from 1.

    It keeps the embeddings of ``kept`` frames, also when it is reset.
    """

    def __init__(
        self, network: Sam2VideoModel, frames: list[np.ndarray], size: int, device: str = "cpu", kept: int = 1
    ):
        self.network = network
        self.processor = video_processor(size)
        self.shape = frames[0].shape[:2]
        self.session = self.processor.init_video_session(
            video=np.stack([as_rgb(frame) for frame in frames]),
            inference_device=device,
            max_vision_features_cache_size=kept,
        )

    def prompt(self, index, *prompts, reverse=False) -> list[Said]:
        """One prompt for each object."""
        first = prompts[0]
        if first.mask is not None:
            inputs = {"input_masks": [prompt.mask.unpack() for prompt in prompts]}
        else:
            every = [nested(prompt) for prompt in prompts]
            inputs = {name: [[one for values in every for one in values[name][0]]] for name in every[0]}
        self.processor.add_inputs_to_inference_session(
            self.session, frame_idx=index, obj_ids=list(range(1, len(prompts) + 1)), **inputs
        )
        said = self.said(lambda: self.network(self.session, frame_idx=index, reverse=reverse))
        return said if first.mask is None else [replace(one, score=None) for one in said]

    def propagate(self, start, upwards, last=None) -> dict[int, list[Said]]:
        steps = self.network.propagate_in_video_iterator(
            self.session, start_frame_idx=start, reverse=not upwards, max_frame_num_to_track=last
        )
        found = {}
        while (said := self.said(lambda: next(steps, None))) is not None:
            found[self.index] = said
        return found

    def reset(self):
        self.session.reset_tracking_data()

    def said(self, step) -> list[Said] | None:
        scores = []
        handle = self.network.mask_decoder.register_forward_hook(lambda _m, _a, out: scores.append(float(out[1].max())))
        output = step()
        handle.remove()
        if output is None:
            return None
        self.index = output.frame_idx
        full = self.processor.post_process_masks([output.pred_masks], [list(self.shape)], binarize=False)[0]
        scores += [None] * (len(full) - len(scores))
        every = zip(full, output.pred_masks, scores, output.object_score_logits, strict=True)
        return [Said(one[0].numpy(), coarse[None], score, float(there) > 0) for one, coarse, score, there in every]
