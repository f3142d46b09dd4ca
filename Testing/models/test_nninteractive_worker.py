"""nnInteractive behind a worker process that is killed between prompts: the mask is that of the prompts."""

import contextlib
import os
import signal
import sys

import numpy as np
import pytest

from FoundationSegLib.api import open_session
from FoundationSegLib.imaging.geometry import geometry_from_spacing
from FoundationSegLib.imaging.volume import Volume
from FoundationSegLib.prompts.kinds import BoxPrompt, PointPrompt, Polarity
from FoundationSegLib.requests.maintenance import WorkerSettings
from FoundationSegLib.session.segment_store import ArrayStore
from FoundationSegLib.session.segments import next_segment
from FoundationSegLib.session.steps import ModelChoice
from FoundationSegLib.worker.process_client import ProcessClient
from Testing.models import small_worker
from Testing.models.small_models import CATALOGUE, stock

SHAPE = (20, 24, 28)
PROMPTS = (
    PointPrompt((12.0, 11.0, 9.0)),
    BoxPrompt(((8.0, 7.0, 9.0), (17.0, 15.0, 9.0))),
    PointPrompt((3.0, 3.0, 3.0), Polarity.NEGATIVE),
    PointPrompt((20.0, 4.0, 15.0)),
)


def image():
    array = np.random.default_rng(2).normal(-500, 300, SHAPE).astype(np.int16)
    array[6:13, 7:16, 8:18] += 1200
    return Volume(array, geometry_from_spacing(SHAPE))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_session_goes_on_with_another_worker_and_the_same_masks(tmp_path):
    pytest.importorskip("nnInteractive", reason="the package nnInteractive is not installed")
    card, store = stock(CATALOGUE["nninteractive"], tmp_path)
    command, masks = small_worker.command(card.id), []
    for kills in (False, True):
        volume, workers = image(), set()
        with contextlib.closing(ProcessClient(WorkerSettings("cpu", store.folder), command)) as client:
            session = open_session(volume, client, ModelChoice.of(card), ArrayStore(volume.geometry))
            segment = next_segment(session, "Block")
            found, keys = [], []
            for number, prompt in enumerate(PROMPTS):
                keys += segment.add(prompt)
                workers.add(client.worker_pid)
                found.append(session.read(segment.segment_id))
                if kills and number in (0, 2):
                    os.kill(client.worker_pid, signal.SIGKILL)
            segment.remove(keys[1])
            found.append(session.read(segment.segment_id))
        masks.append(found)
        assert len(workers) == (3 if kills else 1)
    assert all(np.array_equal(one, other) for one, other in zip(*masks, strict=True))
    assert len({mask.tobytes() for mask in masks[0]}) == len(PROMPTS) + 1, "every prompt made a difference"
