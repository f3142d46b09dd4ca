"""nnInteractive: points, boxes, strokes, lassos and known voxels in whole volumes, by its authors' own session.

The state of a session is derived from the prompts: one more is one call, the last one taken back is its undo, and
anything else is a replay. So a worker that was started again gives the same mask for the same prompts.
Isensee F et al., arXiv:2503.08373; the package ``nnInteractive``, whose session does all the work.
"""

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...catalog.model_cards import ModelCard
from ...errors import CheckpointError, InputError, PromptError
from ...imaging.geometry import EMPTY_BOX, Box, bounding_box
from ...imaging.masks import merge_masks, pack_mask
from ...imaging.volume import Volume
from ...progress import Progress
from ..protocols import VolumeAnswer, VolumeBox, VolumePart, VolumePoint, VolumePrompt, VolumeVoxels, VolumeWords
from ..weights import DAMAGED, read_json, required_file

_CHECKPOINT = "checkpoint_final.pth"
# The classes that its configuration may name: the package looks the names up and calls them.
_NETWORK = re.compile(r"dynamic_network_architectures\.architectures\.\w+\.\w+")
_LAYER = re.compile(r"torch\.nn(\.modules\.\w+)?\.\w+")
# Memory of a segment's session for each voxel of the image: the image in float32, eight channels in float16 and the
# mask.
_BYTES_PER_VOXEL = 4 + 8 * 2 + 1
_MOST_SESSIONS = 8
# Beyond it the spread of the values, which the package computes in float32, would overflow.
_LARGEST_VALUE = 1e15


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of the package's session. ``predicts`` is False for known voxels that other prompts come after."""

    part: VolumePart
    predicts: bool = True


def operations(prompt: VolumePrompt) -> tuple[Operation, ...]:
    """Translate a prompt into calls: its masks first and as one, since that call forgets all others.

    Raises:
        PromptError: words, which the model does not understand.
    """
    masks = [part for part in prompt.parts if isinstance(part, VolumeVoxels) and part.kind == "mask"]
    others = [part for part in prompt.parts if part not in masks]
    for part in others:
        if isinstance(part, VolumeWords):
            raise PromptError("nnInteractive does not understand words", part.location)
    calls = [Operation(part) for part in others]
    if masks:
        whole = VolumeVoxels("mask", merge_masks([part.voxels for part in masks]), location=masks[0].location)
        calls.insert(0, Operation(whole, predicts=not others))
    return tuple(calls)


@dataclass(slots=True)
class _ReplayedSession:
    """A session of the package on an image, and the calls since its last reset.

    Attributes:
        package: the package's own session.
        buffer: the mask, which the package writes to, (K, J, I) uint8.
        done: the calls since the last reset; None after a call that failed, which leaves them unknown.
        can_undo: the last call can be taken back; the package keeps one.
        reach: the box outside which the mask is empty.
    """

    package: Any
    buffer: NDArray[np.uint8]
    done: tuple[Operation, ...] | None = ()
    can_undo: bool = False
    reach: Box = EMPTY_BOX

    def bring_to(self, calls: tuple[Operation, ...], progress: Progress) -> int:
        """Undo, reset and call until exactly these calls are done; returns the number of predictions."""
        done, self.done = self.done, None  # until all went well
        if done is not None and self.can_undo and done[:-1] == calls:
            self.package.undo()
            self.done, self.can_undo = calls, False
            return 0
        if done is None or done != calls[: len(done)]:
            self.package.reset_interactions()
            done, self.can_undo, self.reach = (), False, EMPTY_BOX
        runs = 0
        for n, operation in enumerate(calls[len(done) :], start=len(done)):
            progress.step("prompts", n, len(calls))
            self._call(operation)
            runs += operation.predicts
        self.done = calls
        return runs

    def _call(self, operation: Operation) -> None:
        part, session = operation.part, self.package
        with _fixed_seed():
            if isinstance(part, VolumePoint):
                changed = session.add_point_interaction(part.index_kji, part.positive)
            elif isinstance(part, VolumeBox):
                changed = session.add_bbox_interaction(_limits(part.box), part.positive)
            elif part.kind == "mask":
                mask = part.voxels.expand(self.buffer.shape).view(np.uint8)
                changed = session.add_initial_seg_interaction(mask, run_prediction=operation.predicts)
                self.reach = part.voxels.box
            else:
                drawn, limits = part.voxels.unpack().view(np.uint8), _limits(part.voxels.box)
                add = session.add_scribble_interaction if part.kind == "scribble" else session.add_lasso_interaction
                changed = add(drawn, part.positive, interaction_bbox=limits)
        self.can_undo = True
        if changed is not None:
            (k0, k1), (j0, j1), (i0, i1) = changed
            self.reach = self.reach.union(Box((k0, j0, i0), (k1, j1, i1)))

    def answer(self, runs: int) -> VolumeAnswer:
        """Pack the mask; only the box in which it can be nonzero is read."""
        return VolumeAnswer(pack_mask(self.buffer[self.reach.slices], self.reach.start_kji), None, runs)


def _limits(box: Box) -> list[list[int]]:
    return [[start, stop] for start, stop in zip(box.start_kji, box.stop_kji, strict=True)]


@contextlib.contextmanager
def _fixed_seed() -> Iterator[None]:
    """Seed numpy's global generator, by which the package places some patches, and restore its state."""
    state = np.random.get_state()  # noqa: NPY002 - it is the package that draws from it
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _quiet() -> contextlib.redirect_stdout[io.StringIO]:
    """Hide the standard output, on which the package logs."""
    return contextlib.redirect_stdout(io.StringIO())


@dataclass(slots=True)
class NnInteractiveView:
    """A prepared image; segments that are corrected in turn have a session each, if there is room."""

    model: "NnInteractive"
    array_kji: NDArray[np.generic]
    _sessions: list[_ReplayedSession]  # the one used last is the last

    @property
    def nbytes(self) -> int:
        """Memory taken on the host, in bytes."""
        return len(self._sessions) * self.array_kji.size * _BYTES_PER_VOXEL

    def answer(self, prompts: Sequence[VolumePrompt], progress: Progress) -> list[VolumeAnswer]:
        """Segment the prompts one by one; :meth:`~..protocols.VolumeView.answer` lists the errors."""
        every = [operations(prompt) for prompt in prompts]
        for calls in every:
            self._require_flat(calls)
        return [self._answer(calls, progress) for calls in every]

    def _require_flat(self, calls: Sequence[Operation]) -> None:
        for part in (call.part for call in calls):
            if isinstance(part, VolumeBox) and 1 not in part.box.shape_kji and not self.model.takes_3d_boxes:
                message = "nnInteractive takes boxes on a slice only: draw it one voxel thick, or click instead"
                raise PromptError(message, f"{part.location}.corners")

    def _answer(self, calls: tuple[Operation, ...], progress: Progress) -> VolumeAnswer:
        with _quiet():
            session = self._session_for(calls)
            hook = session.package.network.register_forward_pre_hook(lambda *_: progress.check())
            try:
                runs = session.bring_to(calls, progress)
            finally:
                hook.remove()
            return session.answer(runs)

    def _session_for(self, calls: tuple[Operation, ...]) -> _ReplayedSession:
        """Session with most of these calls done; if none has any, a new one or the one unused for the longest time."""

        def common(session: _ReplayedSession) -> int:
            done = session.done or ()
            if done == calls[: len(done)]:
                return len(done) + (done == calls)  # nothing to do is better than an undo
            return len(calls) if session.can_undo and done[:-1] == calls else 0

        best = max(self._sessions, key=common, default=None)
        if best is None or not common(best):
            most = min(_MOST_SESSIONS, max(1, self.model.session_bytes // (self.array_kji.size * _BYTES_PER_VOXEL)))
            blank = next((session for session in self._sessions if session.done == ()), None)
            if blank is not None:
                best = blank
            elif len(self._sessions) < most:
                self._sessions.append(best := self.model.new_session(self.array_kji))
            else:
                best = self._sessions[0]
        self._sessions.remove(best)
        self._sessions.append(best)
        return best


@dataclass(frozen=True, slots=True)
class NnInteractive:
    """The model: a loaded network that any number of sessions share.

    Attributes:
        autozoom: look at a wider surrounding where the answer reaches the border of the window. False only in tests:
            with random weights it always does.
        session_bytes: memory for sessions. Segments that are corrected in turn have one each, as far as this reaches;
            others are replayed.
    """

    artifacts: Mapping[str, Any]
    device: str
    autozoom: bool = True
    session_bytes: int = 4 * 2**30

    @property
    def precision(self) -> str:
        """Half precision on CUDA, which the package chooses, and float32 elsewhere."""
        return "float16" if self.device == "cuda" else "float32"

    @property
    def nbytes(self) -> int:
        """Memory taken by the weights, in bytes."""
        return sum(weight.nbytes for weight in self.artifacts["network"].state_dict().values())

    @property
    def takes_3d_boxes(self) -> bool:
        """True for a checkpoint that was trained with boxes across slices, which the first one was not."""
        return bool(self.artifacts["capability_content"].get("supported_interactions", {}).get("bbox3d"))

    def view(self, volume: Volume, progress: Progress) -> NnInteractiveView:
        """Prepare an image; :meth:`~..protocols.VolumeModel.view` lists the errors."""
        progress.check()
        _require_contrast(volume)
        with _quiet():
            return NnInteractiveView(self, volume.array_kji, [self.new_session(volume.array_kji)])

    def new_session(self, array_kji: NDArray[np.generic]) -> _ReplayedSession:
        """Open a session of the package on an image."""
        package = _bare_session(self.device, self.autozoom)
        package.initialize_from_loaded_artifacts(dict(self.artifacts))
        package.set_image(array_kji[None])
        if package.preprocess_future is not None:
            package.preprocess_future.result()  # it works in a thread, and an error of it would come out later
        buffer = np.zeros(array_kji.shape, np.uint8)
        package.set_target_buffer(buffer)
        return _ReplayedSession(package, buffer)


def _require_contrast(volume: Volume) -> None:
    """Require a spread of the values in the box around the nonzero voxels: the package divides by it.

    Raises:
        InputError: all values there are zero or the same, or too large for float32.
    """
    array = volume.array_kji
    inside = array[bounding_box(array).slices]
    if not inside.size:
        raise InputError("the image is zero everywhere; there is nothing to segment")
    low, high = float(inside.min()), float(inside.max())
    if max(abs(low), abs(high)) > _LARGEST_VALUE:
        raise InputError(f"nnInteractive cannot look at values as large as {max(abs(low), abs(high)):.1g}; scale them")
    if np.float32(low) == np.float32(high):
        raise InputError(f"all that is not zero is {low:g} in the image; nnInteractive sees no contrast there")


def _bare_session(device: str, autozoom: bool) -> Any:
    from nnInteractive.inference.inference_session import nnInteractiveInferenceSession

    threads = torch.get_num_threads()  # it sets them for the whole process: to what they are
    return nnInteractiveInferenceSession(
        device=torch.device(device), use_torch_compile=False, torch_n_threads=threads, do_autozoom=autozoom
    )


def trusted_checkpoint(card: ModelCard, files: Mapping[str, Path]) -> tuple[Path, Path]:
    """Check the files, whose content is run, before the package opens them; returns the weights and the model's folder.

    Raises:
        CheckpointError: a file is missing or not the card's, or the configuration names more than a network.
    """
    checkpoint, plans = required_file(_CHECKPOINT, files, card), required_file("plans.json", files, card)
    _require_trusted(card, checkpoint)
    _require_network(read_json(plans, card), card)
    return checkpoint, plans.parent


def _require_trusted(card: ModelCard, checkpoint: Path) -> None:
    """Require the very file that the card names: the checkpoint is a full pickle, which may run anything."""
    expected = next(file.sha256 for file in card.source.files if file.name == _CHECKPOINT)
    if not expected:
        raise CheckpointError(f"{card.title}: its card gives no hash of {_CHECKPOINT}, which can run code: not opened")
    try:
        with checkpoint.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{card.title}: {checkpoint.name} cannot be read; download it again") from error
    if digest != expected:
        raise CheckpointError(f"{card.title}: {checkpoint.name} is not the file of the card; download it again")


def _require_network(plans: Mapping[str, Any], card: ModelCard) -> None:
    """Require that a configuration names networks and layers alone: the package imports and calls the names."""
    configurations = plans.get("configurations")
    if not isinstance(configurations, Mapping):
        raise CheckpointError(f"{card.title}: plans.json is not a configuration; download it again")
    for configuration in configurations.values():
        architecture = configuration.get("architecture") if isinstance(configuration, Mapping) else None
        if isinstance(architecture, Mapping) and not _names_a_network(architecture):
            raise CheckpointError(f"{card.title}: plans.json names what is no part of a network; download it again")


def _names_a_network(architecture: Mapping[str, Any]) -> bool:
    arguments, imported = architecture.get("arch_kwargs"), architecture.get("_kw_requires_import")
    if not isinstance(arguments, Mapping) or not isinstance(imported, list):
        return False
    layers = [str(layer) for name in imported if (layer := arguments.get(name)) is not None]
    return bool(_NETWORK.fullmatch(str(architecture.get("network_class_name")))) and all(map(_LAYER.fullmatch, layers))


def load(card: ModelCard, files: Mapping[str, Path], device: str) -> NnInteractive:
    """Load the adapter with its folder; nothing is downloaded.

    Raises:
        CheckpointError: a file is missing or not the card's, or its configuration is not one of a network.
    """
    checkpoint, folder = trusted_checkpoint(card, files)
    with _quiet():
        session = _bare_session(device, autozoom=True)
        try:
            artifacts = session._load_model_artifacts_from_disk(
                str(folder), checkpoint.parent.name.removeprefix("fold_")
            )
        except torch.OutOfMemoryError:
            raise
        except DAMAGED as error:
            raise CheckpointError(f"{card.title}: its files do not fit together; download them again") from error
        session.initialize_from_loaded_artifacts(artifacts)
        artifacts["network"].eval()
        session.warmup()  # on CUDA, the first pass is slow: not the user's
    return NnInteractive(artifacts, device)
