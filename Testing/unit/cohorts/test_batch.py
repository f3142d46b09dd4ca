"""`batch` on a real cluster of two workers: everything is computed once, whatever dies, and nothing is lost."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import distributed
import numpy as np
import pytest

from FoundationSegLib.cohorts.cluster import check_address, choose_size, compute
from FoundationSegLib.errors import InputError
from FoundationSegLib.hub.store import Store
from FoundationSegLib.io.segmentations import read_mask_prompt
from FoundationSegLib.requests.heads import HEADS_VARIABLE, write_head
from FoundationSegLib.requests.segmentation import CheckpointRecord
from Testing.unit.cohorts.cohort_model import cards_of
from Testing.unit.cohorts.conftest import BLOCK, CORNERS, write_case
from Testing.unit.fakes import fill_store
from Testing.unit.reader_model import READER_TOML, WIDTH, make_head

pytestmark = pytest.mark.xdist_group("cohorts")  # one cluster for all of them
GB = 10**9


def test_each_case_has_its_files_and_a_line_and_a_bad_one_stops_none(cohort):
    run = cohort(2)
    (run.images / "broken.nrrd").write_text("no image")
    assert run.run() == 1
    assert "1 of 3 cases failed; cohort.csv says why" in run.err
    statuses = {"broken": "failed", "case0": "done", "case1": "done"}
    assert {name: row["status"] for name, row in run.rows.items()} == statuses
    assert "broken.nrrd is no image" in run.rows["broken"]["error"]
    assert run.rows["case1"]["Block voxels"] == "200" and float(run.rows["case1"]["Block ml"]) == pytest.approx(0.2)
    assert float(run.rows["case1"]["peak_mb"]) > 50
    for name in ("case0", "case1"):
        mask, _ = read_mask_prompt(run.results / f"{name}.seg.nrrd", "Block")
        assert mask[BLOCK].all() and mask.sum() == 200
        assert json.loads((run.results / f"{name}.json").read_text(encoding="utf-8"))["command"] == "segment"
    page = (run.results / "cohort.html").read_text(encoding="utf-8")
    assert page.index("broken") < page.index("case0"), "what failed comes first"
    assert page.count("data:image/jpeg;base64,") == 2 and "<script" not in page and "http" not in page


def test_a_second_run_computes_what_is_missing_or_changed_alone(cohort):
    run = cohort(3)
    assert run.run() == 0, run.err
    before = run.files()
    assert run.run() == 0 and "of which 3 are there" in run.err and "0 of them now" in run.err
    assert run.files()["case0.json"] == before["case0.json"]
    (run.results / "case1.seg.nrrd").unlink()
    write_case(run.images / "case2.nrrd", 900)
    assert run.run() == 0 and "2 of them now" in run.err
    run.images.rename(run.folder / "moved")  # the content is what it was
    assert run.run(run.folder / "moved") == 0 and "0 of them now" in run.err
    assert run.run(run.folder / "moved", more=("--overlap", "protect")) == 0 and "3 of them now" in run.err


def test_a_cohort_is_its_cases_and_workers_that_die_lose_nothing(cohort, full, bar):
    run = cohort(200 if full else 3)
    if full:
        cohort_seconds(run)  # the workers have imported what they need
    begin = time.perf_counter()
    expected = run.serial()
    serial_s = time.perf_counter() - begin
    seconds = cohort_seconds(run)
    assert run.masks() == expected and len(expected) == (200 if full else 3)
    again = run.encoded()
    bar("cohort: times as fast as one case after the other", serial_s / seconds, ">= 1.0")
    bar("cohort: a second run, s", cohort_seconds(run, anew=False), "< 5 for 200 cases")
    assert run.encoded() == again and "0 of them now" in run.err
    shutil.rmtree(run.results)
    moments = random.Random(5).sample(range(1, 380), 20) if full else (3,)
    for moment in moments:
        (run.folder / f"kill-{again + moment}").touch()
    assert run.run() == 0, run.err
    assert not list(run.folder.glob("kill-*")), "each was killed"
    assert run.masks() == expected
    assert run.encoded() - again - 2 * len(expected) <= 2 * len(moments), "nothing but what was under way"


def cohort_seconds(run, anew=True):
    if anew:
        shutil.rmtree(run.results, ignore_errors=True)
    begin = time.perf_counter()
    assert run.run() == 0, run.err
    return time.perf_counter() - begin


def test_results_that_die_with_their_workers_are_computed_again(scheduler):
    with distributed.Client(scheduler, timeout=60) as client:
        outcomes = compute(client, time.sleep, [0.01, 0.3, 0.31, 0.32])
        next(outcomes)

        def wait_until(is_done: bool) -> None:
            while any((state.status == "finished") is not is_done for state in client.futures.values()):
                time.sleep(0.005)

        wait_until(True)  # and nobody has read them
        for process in client.run(os.getpid).values():
            os.kill(process, signal.SIGKILL)
        wait_until(False)
        assert {outcome.item for outcome in outcomes if not outcome.error} == {0.3, 0.31, 0.32}


def test_a_place_that_takes_no_file_fails_its_case_and_the_next_run_goes_on(cohort):
    run = cohort(2)
    (run.results / "case1.seg.nrrd").mkdir(parents=True)  # as a disk does, it takes no file there
    assert run.run() == 1 and run.rows["case1"]["status"] == "failed"
    (run.results / "case1.seg.nrrd").rmdir()
    assert run.run() == 0 and "1 of them now" in run.err


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 192 kB, and the function that makes it larger; only the superuser may have one."""
    folder = tmp_path / "results"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(folder))
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted here")
    yield lambda: subprocess.run(("mount", "-o", "remount,size=64m", str(folder)), check=True)
    subprocess.run(("umount", "-l", str(folder)), check=True)


def test_a_full_disk_loses_nothing_that_was_done(cohort, small_disk, full):
    count = 200 if full else 18
    run = cohort(count)
    assert run.run() in (1, 2) and "make room on the disk" in run.err
    done = {path.name: path.stat().st_mtime_ns for path in run.results.glob("case*.json")}
    assert 0 < len(done) < count and all(json.loads((run.results / name).read_text()) for name in done)
    before = run.encoded()
    small_disk()
    assert run.run() == 0, run.err
    assert run.encoded() - before <= 2 * (len(run.masks()) - len(done)), "nothing is computed twice"
    assert len(run.masks()) == count
    assert done.items() <= {path.name: path.stat().st_mtime_ns for path in run.results.glob("case*.json")}.items()


def test_a_head_goes_to_the_workers_with_the_cases(cohort, store, tmp_path, monkeypatch):
    """They have no folder of heads: its variable is set in this process alone."""
    monkeypatch.setenv(HEADS_VARIABLE, str(tmp_path / "heads"))
    run = cohort(2)
    (tmp_path / "cards" / "reader.toml").write_text(READER_TOML)
    card = cards_of(tmp_path)["reader"]
    fill_store(store, card)
    records = Store(store)
    origin = (card.source.repository, records.commit(card) or card.source.revision, records.sha256(card))
    weights = np.stack([np.eye(2, WIDTH) * 20] * 2)
    write_head(
        make_head(name="glow", checkpoint=CheckpointRecord("reader", *origin), weights=weights, biases=np.zeros((2, 2)))
    )
    more = ("--model", "reader", "--head", "glow")
    assert run.run(prompts=False, more=more) == 0, run.err
    for case in ("case0", "case1"):
        report = json.loads((run.results / f"{case}.json").read_text(encoding="utf-8"))
        assert report["head"]["name"] == "glow" and {row["name"] for row in report["labels"]} == {"with", "without"}
    before = (run.results / "case0.json").stat().st_mtime_ns
    assert run.run(prompts=False, more=more) == 0 and (run.results / "case0.json").stat().st_mtime_ns == before


def test_a_case_larger_than_the_memory_is_refused_and_the_others_are_done(cohort):
    run = cohort(1)
    sizes = "NDims = 3\nDimSize = 2000 2000 1000\nElementType = MET_SHORT"  # by the header alone
    (run.images / "large.mhd").write_text(f"ObjectType = Image\n{sizes}\nElementDataFile = large.raw\n")
    (run.images / "large.raw").write_bytes(b"0")
    assert run.run(more=("--memory-limit", "4GB")) == 1
    assert run.rows["case0"]["status"] == "done", run.rows
    assert "the image needs about" in run.rows["large"]["error"], run.rows


WORKERS = """
import asyncio, sys, distributed

async def main():
    workers = [distributed.Worker(sys.argv[1], nthreads=1, dashboard=False) for _ in range(64)]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))

asyncio.run(main())
"""


def test_a_large_plan_leaves_the_scheduler_idle(full, bar):
    """64 workers of one process, and cases that do nothing but take their time."""
    if not full:
        pytest.skip("with --full")
    with contextlib.ExitStack() as stack:
        scheduler = start(stack, "scheduler", "--host", "127.0.0.1", "--port", "0")
        address = next(line.split()[-1] for line in scheduler.stderr if "Scheduler at:" in line)
        workers = stack.enter_context(subprocess.Popen((sys.executable, "-c", WORKERS, address)))
        stack.callback(workers.kill)
        client = stack.enter_context(distributed.Client(address, timeout=60))
        client.wait_for_workers(64, timeout=600)
        used, begin = processor_s(scheduler.pid), time.perf_counter()
        outcomes = list(compute(client, time.sleep, [10.0] * 640))
        busy = (processor_s(scheduler.pid) - used) / (time.perf_counter() - begin)
    assert len(outcomes) == 640 and not any(outcome.error for outcome in outcomes)
    bar("cohort: how busy the scheduler of 64 workers is, %", 100 * busy, "< 5")
    assert busy < 0.05


def processor_s(pid):
    """The seconds that a process has computed."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_a_cluster_that_is_not_there_leaves_what_was_done(cohort):
    import dask

    run = cohort(1)
    assert run.run() == 0
    write_case(run.images / "case1.nrrd")
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        assert run.run(scheduler="tcp://127.0.0.1:9") == 2 and "cannot be reached" in run.err
    assert run.rows["case0"]["status"] == "done" and run.rows["case1"]["status"] == "not computed"


def start(stack, program, *arguments):
    """A process of Dask's, which ends with the stack."""
    line = (sys.executable, "-m", f"distributed.cli.dask_{program}", *arguments, "--no-dashboard")
    process = stack.enter_context(subprocess.Popen(line, stderr=subprocess.PIPE, text=True))
    stack.callback(process.kill)
    return process


def test_a_scheduler_that_is_killed_leaves_what_was_done(cohort, full):
    count = 200 if full else 4
    run = cohort(count)
    with contextlib.ExitStack() as stack:
        scheduler = start(stack, "scheduler", "--host", "127.0.0.1", "--port", "0")
        address = next(line.split()[-1] for line in scheduler.stderr if "Scheduler at:" in line)
        start(stack, "worker", address, "--nthreads", "1", "--no-nanny")

        def kill() -> None:
            while not list(run.results.glob("case*.json")):
                time.sleep(0.02)
            scheduler.kill()

        threading.Thread(target=kill, daemon=True).start()
        assert run.run(scheduler=address) == 1 and "the cluster is gone" in run.err
    done = [row for row in run.rows.values() if row["status"] == "done"]
    assert 0 < len(done) < count
    before, there = run.encoded(), len(list(run.results.glob("case*.json")))
    assert run.run() == 0, run.err
    assert len(run.masks()) == count and run.encoded() - before == 2 * (count - there)


def test_a_table_names_cases_with_prompts_and_patients(cohort):
    run = cohort(2)
    box = {"type": "box", "corners": CORNERS}
    document = {"version": 1, "space": "ijk", "segments": [{"name": "Own", "prompts": [box]}]}
    (run.folder / "own.json").write_text(json.dumps(document))
    table = run.folder / "cohort.tsv"
    table.write_text(
        "Image\tcase\tprompts\tpatient\nimages/case0.nrrd\tfirst-one\town.json\tP1\nimages/case1.nrrd\t\town.json\tP2\n"
    )
    assert run.run(table, prompts=False) == 0, run.err
    assert set(run.rows) == {"first-one", "case1"} and run.rows["case1"]["Own voxels"] == "200"
    assert "P1" not in (run.results / "cohort.csv").read_text(encoding="utf-8")
    assert run.run(table, prompts=False, more=("--with-patient",)) == 0 and run.rows["first-one"]["patient"] == "P1"


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (("--workers", "0"), 2, "--workers must be a whole number"),
        (("--label", "liver"), 2, "either labels classify the cases, or prompts"),
        (("--format", "png"), 2, "invalid choice"),
    ],
)
def test_wrong_options_are_refused_before_any_work(cohort, more, code, words):
    run = cohort(1)
    assert run.run(more=more) == code and words in run.err and not (run.results / "case0.json").exists()


@pytest.mark.parametrize("address", ["tcp://example.org:8786", "host:1", "http://localhost:80", "tcp://host:99999999"])
def test_an_address_in_the_open_needs_a_yes(address):
    with pytest.raises(InputError):
        check_address(address, insecure=False)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786", "tls://node7:8786"]
)
def test_a_safe_address_needs_none(address):
    check_address(address, insecure=False)
    check_address("tcp://example.org:8786", insecure=True)


@pytest.mark.parametrize(
    ("cases", "cores", "memory", "devices", "workers", "expected"),
    [
        (100, 2, 24 * GB, 0, None, (2, 1, ())),
        (1, 8, 64 * GB, 0, None, (1, 8, ())),
        (100, 16, 8 * GB, 0, None, (2, 8, ())),
        (100, 16, 128 * GB, 4, None, (4, 4, (0, 1, 2, 3))),
        (100, 2, 2 * GB, 0, None, (1, 2, ())),
        (100, 8, 64 * GB, 0, 3, (3, 2, ())),
    ],
)
def test_a_cluster_is_as_large_as_the_machine_allows(cases, cores, memory, devices, workers, expected):
    size = choose_size(cases, cores, memory, 100 * 2**20, devices, workers)
    assert (size.workers, size.threads, size.devices) == expected
    assert size.workers * size.worker_bytes <= memory


def test_more_workers_than_memory_are_refused():
    with pytest.raises(InputError, match="at most 2 fit here"):
        choose_size(100, 8, 8 * GB, 0, 0, 8)
