import json
import subprocess
import sys

import numpy as np
import pytest

from FoundationSegLib.errors import InputError, OutputError
from FoundationSegLib.imaging.masks import pack_mask
from FoundationSegLib.prompts.kinds import MaskPrompt, PointPrompt
from FoundationSegLib.session import recovery
from FoundationSegLib.session.recovery import RecoveryFile, discard, find_recoveries
from FoundationSegLib.session.segment_store import NewSegment
from FoundationSegLib.session.segments import SegmentSession
from Testing.unit.session.session_cases import make_session, mask_of, ras, segment_of
from Testing.unit.session.session_machine import Machine


def restore(session, lost):
    return recovery.restore(session.history, session.volume.key, session.options.policy, lost)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "recovery"


@pytest.fixture
def kept(folder):
    """A session that is kept after every second change, and its file."""
    session, _ = make_session()
    file = RecoveryFile(session, folder, every=2)
    session.listeners.append(file.note)
    return session, file


def crash(file):
    """The process is gone, and its lock with it; the file stays."""
    file._alive.close()


def point(k):
    return PointPrompt(ras(k, 4, 5))


def test_every_few_changes_are_kept_and_a_clean_end_leaves_nothing(kept, folder):
    session, file = kept
    segment = segment_of(session)
    segment.add(point(1))
    assert not folder.exists()
    segment.add(point(3))
    assert len(list(folder.glob("*.json"))) == 1
    segment.add(point(5))
    session.undo(segment.segment_id)
    assert len(list(folder.glob("*.json"))) == 1 and len(list(folder.iterdir())) == 2
    file.close()
    file.close()
    assert not folder.exists()


def test_after_a_crash_everything_goes_on(kept, folder):
    session, file = kept
    segment = segment_of(session)
    segment.add(point(1))
    segment.add(point(3))
    assert find_recoveries(folder) == (), "it lives"
    crash(file)
    fresh, client = make_session()
    (found,) = find_recoveries(folder, fresh.volume.key)
    assert found.segments == {"1": "Liver 1"} and found.saved > 0
    (key,) = restore(fresh, found)
    copy = SegmentSession(fresh, key)
    assert not client.requests and np.array_equal(mask_of(copy), mask_of(segment)) and copy.steps == segment.steps
    copy.remove("1")
    assert mask_of(copy).sum() == 25 and copy.add(point(5)) == ("3",)
    assert fresh.store.provenance(key)["Model"] == "fake"
    discard(found)
    assert not folder.exists()


def test_nothing_that_is_there_is_overwritten(kept, folder):
    session, file = kept
    segment = segment_of(session)
    segment.add(point(1))
    segment.add(point(3))
    crash(file)
    fresh, _ = make_session()
    mine = SegmentSession(fresh, fresh.store.add(NewSegment("Liver 1")))
    mine.add(point(3))
    before = mask_of(mine)
    (key,) = restore(fresh, find_recoveries(folder)[0])
    assert key != mine.segment_id and np.array_equal(mask_of(mine), before)
    assert mask_of(SegmentSession(fresh, key)).sum() == 25
    SegmentSession(fresh, key).add(point(5))
    assert mask_of(SegmentSession(fresh, key)).sum() == 50 and np.array_equal(mask_of(mine), before)


def test_an_empty_segment_of_the_same_name_is_filled(kept, folder):
    session, file = kept
    segment_of(session).add(point(1))
    SegmentSession(session, "1").add(point(3))
    crash(file)
    fresh, _ = make_session()
    there = segment_of(fresh)
    (found,) = find_recoveries(folder)
    assert restore(fresh, found) == (there.segment_id,)
    steps = there.steps
    assert restore(fresh, found) == (there.segment_id,), "it has these voxels already"
    assert there.steps == steps and fresh.store.segment_ids == (there.segment_id,)


def test_no_path_and_no_name_of_the_image(kept, folder):
    session, file = kept
    segment = segment_of(session)
    segment.add(point(1))
    segment.add(MaskPrompt("/home/somebody/patient/seed.nrrd", "A", voxels=_voxels()))
    file.write()
    text = file.path.read_text()
    assert "somebody" not in text and "seed.nrrd" in text
    assert set(json.loads(text)) == {"version", "volume", "time", "more", "segments"}


def _voxels():
    return pack_mask(np.ones((1, 2, 2)), (5, 5, 5))


def test_another_image_is_refused(kept, folder):
    session, file = kept
    segment_of(session).add(point(1))
    file.write()
    crash(file)
    other, _ = make_session(shape=(8, 10, 13))
    assert find_recoveries(folder, other.volume.key) == ()
    with pytest.raises(InputError, match="another image"):
        restore(other, find_recoveries(folder)[0])


def test_damaged_files_are_left_out(kept, folder):
    session, file = kept
    segment_of(session).add(point(1))
    file.write()
    crash(file)
    (folder / "half.recovery.json").write_text(file.path.read_text()[:50])
    (folder / "old.recovery.json").write_text('{"version": 0, "segments": {}}')
    (folder / "none.recovery.json").write_text('{"version": 1, "segments": {}}')
    assert [one.path for one in find_recoveries(folder)] == [file.path]
    document = json.loads(file.path.read_text())
    del document["segments"]["1"]["mask"]
    found = find_recoveries(folder)[0]
    file.path.write_text(json.dumps(document))
    fresh, _ = make_session()
    with pytest.raises(InputError, match="damaged"):
        restore(fresh, found)
    assert fresh.store.segment_ids == ()


def test_a_folder_that_cannot_be_written_is_told_without_its_path(kept, tmp_path):
    session, _ = kept
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError) as caught:
        RecoveryFile(session, tmp_path / "file").write()
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("seed", range(5))
def test_any_session_comes_back(folder, seed):
    machine = Machine(seed)
    for _ in range(40):
        machine.step()
    machine.session.discard()
    machine.session.detect_external_changes()
    file = RecoveryFile(machine.session, folder)
    file.write()
    for _ in range(10):
        machine.step()
    machine.session.discard()
    machine.session.detect_external_changes()
    file.write()
    crash(file)
    fresh, _ = make_session(ask_above=None)
    fresh.options.policy = "allow"
    restored = restore(fresh, find_recoveries(folder)[0])
    session = machine.session
    kept = [key for key in session.known_ids if session.written_state(key).steps or session.voxels(key)]
    for key, new in zip(kept, restored, strict=True):
        assert np.array_equal(fresh.store.read(new), machine.store.read(key))
        assert fresh.written_state(new).steps == session.written_state(key).steps


CRASH = """
import sys, time
from pathlib import Path
from FoundationSegLib.session.recovery import RecoveryFile
from Testing.unit.session.session_cases import make_session, point, segment_of
session, _ = make_session()
file = RecoveryFile(session, Path(sys.argv[1]))
segment_of(session).add(point(3))
file.write()
print("written", flush=True)
time.sleep(60)
"""


def test_another_process_that_lives_and_then_crashes(folder):
    child = subprocess.Popen((sys.executable, "-c", CRASH, str(folder)), stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout.readline() == "written\n"
        assert find_recoveries(folder) == ()
        child.kill()
        child.wait()
        fresh, _ = make_session()
        (found,) = find_recoveries(folder, fresh.volume.key)
    (key,) = restore(fresh, found)
    assert mask_of(SegmentSession(fresh, key)).sum() == 25
    discard(found)
    assert not folder.exists()
