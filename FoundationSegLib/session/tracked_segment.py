"""A segment that a session met: its state, its voxels as they were last seen, and where they come from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from ..codec import to_document
from ..imaging.geometry import EMPTY_BOX
from ..imaging.masks import (
    EMPTY_MASK,
    MaskTable,
    PackedMask,
    SegmentChange,
    change_between,
    changed_checksum,
    checksum,
    merge_masks,
    pack_mask,
)
from ..prompts.kinds import Prompt, bare
from ..prompts.prompts_file import prompt_to_document
from ..requests.segmentation import Prediction
from .segment_store import (
    OverlapPolicy,
)
from .steps import (
    SeedReason,
    SeedStep,
    SegmentState,
)

_UNFOLDED_BYTES = 32 * 2**20  # of changes that wait until somebody asks for the whole mask


@dataclass(slots=True)
class TrackedSegment:
    """A segment that the session met: its state, and its voxels as they were last seen.

    Changes are put into the mask when the whole is asked for.
    """

    state: SegmentState = field(default_factory=SegmentState)
    snapshot: PackedMask = EMPTY_MASK
    voxels: int = 0
    _recent: list[SegmentChange] = field(default_factory=list)
    _recent_bytes: int = 0
    _checksum: int | None = None

    def see(self, mask: PackedMask) -> None:
        """Take a mask for what the segment is now."""
        self.snapshot, self.voxels, self._checksum = mask, mask.voxels, None
        self._recent, self._recent_bytes = [], 0

    def follow(self, change: SegmentChange) -> None:
        """Follow a change that was made."""
        self._recent.append(change)
        self.voxels += change.gained.voxels - change.lost.voxels
        self._recent_bytes += len(change.gained.bits) + len(change.lost.bits)
        if self._checksum is not None:
            self._checksum = changed_checksum(self._checksum, change)
        if self._recent_bytes > _UNFOLDED_BYTES:
            self.mask()

    def mask(self) -> PackedMask:
        """All voxels, tightly boxed."""
        if self._recent:
            self.snapshot = _folded(self.snapshot, self._recent)
            self._recent, self._recent_bytes = [], 0
        return self.snapshot

    def checksum(self) -> int:
        """The checksum of the mask. Of all of it when first asked for; from then on it follows changes."""
        if self._checksum is None:
            self._checksum = checksum(self.mask())
        return self._checksum

    def result(self) -> str:
        """A text that tells whether voxels are those that the steps led to."""
        return f"{self.checksum():016x}"

    def seeded(self, masks: MaskTable, reason: SeedReason, touched: str = "") -> SegmentState:
        """The state with the present voxels as its seed, which it is nowhere different from then."""
        return replace(self.state.after(SeedStep(masks.put(self.mask()), reason, touched)), reach=EMPTY_BOX)


def _folded(mask: PackedMask, changes: Sequence[SegmentChange]) -> PackedMask:
    box = mask.box
    for change in changes:
        box = box.union(change.gained.box)
    array = np.zeros(box.shape_kji, np.bool_)
    array[mask.box.relative_to(box).slices] = mask.unpack()
    for change in changes:
        lost = array[change.lost.box.relative_to(box).slices]
        np.copyto(lost, False, where=change.lost.unpack())
        array[change.gained.box.relative_to(box).slices] |= change.gained.unpack()
    return pack_mask(array, box.start_kji)


def difference(mask: PackedMask, other: PackedMask) -> PackedMask:
    """The voxels that one of two masks has and the other has not."""
    box = mask.box.union(other.box)
    before, after = (np.zeros(box.shape_kji, np.bool_) for _ in range(2))
    before[mask.box.relative_to(box).slices] = mask.unpack()
    after[other.box.relative_to(box).slices] = other.unpack()
    change = change_between(before, after, box.start_kji)
    return merge_masks((change.gained, change.lost)) if not change.is_empty else EMPTY_MASK


def provenance_of(prediction: Prediction, state: SegmentState, policy: OverlapPolicy, version: str) -> dict[str, str]:
    """The origin of a predicted segment, by the names of :data:`~.segment_store.PROVENANCE`."""
    options: dict[str, object] = {
        "device": prediction.device,
        "precision": prediction.precision,
        "overlap": policy.value,
        "propagation": state.propagation and to_document(state.propagation),
        "region": state.region and to_document(state.region),
        "parts": list(map(to_document, prediction.parts)),
    }
    provenance = {
        **prediction.checkpoint.provenance,
        "Prompts": f"[{', '.join(map(_prompt_text, map(bare, state.all_prompts)))}]",
        "Intensity": json.dumps(dict(prediction.intensity)),
        "Options": json.dumps(options),
    }
    return provenance | ({"Version": version} if version else {})


@lru_cache(maxsize=1024)
def _prompt_text(prompt: Prompt) -> str:
    """A prompt without voxels as JSON text: a segment's are written again after each change."""
    return json.dumps(prompt_to_document(prompt))
