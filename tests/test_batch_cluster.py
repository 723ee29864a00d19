"""Runs on a dask cluster of real processes: the tables of a local run, whatever becomes of a worker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from detector.batch import Job, Limits, Summary, cluster, run_batch
from detector.batch.cluster import Cluster
from detector.batch.pool import Lost
from detector.errors import DetectorError
from tests.test_cli import TABLES, call, make_images
from tests.trouble import Named, NamedTrouble, Trouble

ROOT = Path(__file__).parents[1]
ALL = frozenset({"csv", "json", "overlay", "crops", "report", "sr"})


@dataclass
class Processes:
    """A scheduler and its workers."""

    folder: Path
    address: str = ""
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    all: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{len(self.all)}.log").open("wb")
        quiet = {"DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "1h", **environment}
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", *map(str, arguments)],
                cwd=ROOT,
                env={**os.environ, **quiet},
                stdout=log,
                stderr=log,
            )
        self.all.append(process)
        return process

    def start_scheduler(self) -> None:
        file = self.folder / "scheduler.json"
        here = ("--host", "127.0.0.1", "--port", 0, "--no-dashboard")
        self.start("distributed.cli.dask_scheduler", *here, "--scheduler-file", file)
        until(lambda: file.exists() and file.read_text().rstrip().endswith("}"))  # it may be seen half written
        self.address = json.loads(file.read_text())["address"]

    def start_worker(self, nanny: str = "--no-nanny", **environment: str) -> None:
        folder = self.folder / f"worker-{len(self.all)}"
        options = ("--nthreads", 1, "--no-dashboard", nanny, "--local-directory", folder)
        log = self.folder / f"{len(self.all)}.log"
        self.workers.append(self.start("distributed.cli.dask_worker", self.address, *options, **environment))
        until(lambda: "Registered to" in log.read_text())

    def end(self) -> None:
        for process in self.all:
            process.kill()
        for process in self.all:
            process.wait()


def until(seen: Callable[[], object]) -> None:
    end = time.monotonic() + 180
    while not seen():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Return a scheduler without workers."""
    (tmp_path / "cluster").mkdir()
    processes = Processes(tmp_path / "cluster")
    try:
        processes.start_scheduler()
        yield processes
    finally:
        processes.end()


def run(inputs: Path, out: Path, processes: Processes, **options: object) -> Summary:
    job = Job((inputs,), out, formats=ALL, **options)  # type: ignore[arg-type]
    return run_batch(job, runner=Cluster(processes.address, out))


def run_here(inputs: Path, out: Path) -> Path:
    job = Job((inputs,), out, formats=ALL)
    run_batch(job, runner=lambda tasks, work, *_: ((task, work(task)) for task in tasks))
    return out


def assert_equal(out: Path, expected: Path) -> None:
    for name in TABLES:
        assert (out / name).read_bytes() == (expected / name).read_bytes()
    for kind in ("overlays/*", "crops/*", "dicom/*/*"):
        assert {p.relative_to(out): p.read_bytes() for p in out.glob(kind)} == {
            p.relative_to(expected): p.read_bytes() for p in expected.glob(kind)
        }
    for kind in ("readings/*/*", "report/**/*"):
        assert {p.relative_to(out) for p in out.glob(kind)} == {p.relative_to(expected) for p in expected.glob(kind)}
    assert not (out / ".partial").exists()


def test_a_worker_killed_in_the_middle_does_not_show(tmp_path: Path, processes: Processes) -> None:
    inputs = make_images(tmp_path / "in", 10, (480, 375))
    (inputs / "cut.dcm").write_bytes((inputs / "0.dcm").read_bytes()[:-9])
    processes.start_worker()
    processes.start_worker("--nanny")  # which marks its worker as one that must not start processes
    killed: list[int] = []

    def kill(*_: object) -> None:
        if len(killed) == 2:
            processes.workers[0].kill()
        killed.append(1)

    job = Job((inputs,), tmp_path / "out", formats=ALL)
    summary = run_batch(job, kill, runner=Cluster(processes.address, tmp_path / "out"))
    assert processes.workers[0].wait() == -signal.SIGKILL
    assert (summary.totals.analysed, summary.totals.failed) == (10, 1)
    assert_equal(tmp_path / "out", run_here(inputs, tmp_path / "here"))


def test_results_are_gathered_where_the_folder_is_not_shared(tmp_path: Path, processes: Processes) -> None:
    inputs, out = make_images(tmp_path / "in", 3), tmp_path / "out"
    # a worker that has nowhere to write: as root may write anywhere, the folder is away for it
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    processes.start_worker(DETECTOR_TEST_HIDE=str(out), PYTHONPATH=f"{hiding(tmp_path)}:{ROOT}")
    assert run(inputs, out, processes).totals.analysed == 3
    assert_equal(out, run_here(inputs, tmp_path / "here"))
    # and what is saved is handed to the workers, so that nothing is detected anew
    before = (out / "timings.csv").read_text()
    for picture in (out / "overlays").iterdir():
        picture.unlink()
    run(inputs, out, processes)
    assert_equal(out, tmp_path / "here")
    detect = [line.split(",")[5] for line in (out / "timings.csv").read_text().splitlines()]
    assert detect == [line.split(",")[5] for line in before.splitlines()]


def hiding(folder: Path) -> Path:
    """Return a folder of Python code that hides a folder from the process that starts with it."""
    (folder / "hide").mkdir()
    (folder / "hide/sitecustomize.py").write_text(
        "import os, sys\n"
        "hidden = os.environ['DETECTOR_TEST_HIDE']\n"
        "def hook(event, arguments):\n"
        "    if event == 'open' and isinstance(arguments[0], str) and arguments[0].startswith(hidden):\n"
        "        raise FileNotFoundError(2, 'No such file or directory')\n"
        "sys.addaudithook(hook)\n"
    )
    return folder / "hide"


def test_what_a_cluster_lacks_is_told_before_the_start(
    tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, out = make_images(tmp_path / "in", 1), tmp_path / "out"
    monkeypatch.setattr(cluster, "_CONNECT_S", 2.0)
    with pytest.raises(DetectorError, match="no scheduler answers at tcp://127"):
        run(inputs, out, Processes(tmp_path, "tcp://127.0.0.1:9"))
    with pytest.raises(DetectorError, match="the scheduler has no workers"):
        run(inputs, out, processes)
    monkeypatch.undo()
    processes.start_worker(DETECTOR_TEST_HIDE=str(inputs), PYTHONPATH=f"{hiding(tmp_path)}:{ROOT}")
    with pytest.raises(DetectorError, match=r"cannot read .*/in/0\.dcm .* mount the images at the same path"):
        run(inputs, out, processes)
    assert [p.name for p in (out / "readings").iterdir()] == []
    refused = call("run", inputs, "--out", out, "--cluster", processes.address, "--workers", 2)
    assert (refused.exit_code, "either --workers" in refused.output) == (2, True)


def test_crash_hang_and_death_cost_one_task_and_no_worker(tmp_path: Path, processes: Processes) -> None:
    processes.start_worker()
    (tmp_path / "out/.partial").mkdir(parents=True)
    bad = {"segfault-1": "Crash", "kill-1": "OutOfMemory", "hang-1": "TimeLimit"}
    tasks = [Named(name) for name in [*bad, "once-1", *(f"plain-{i}" for i in range(20))]]
    runner = Cluster(processes.address, tmp_path / "out")
    results = {task.name: r for task, r in runner(tasks, NamedTrouble(tmp_path), Limits(1, timeout_s=1.0))}
    assert {name: r.error for name, r in results.items() if isinstance(r, Lost)} == bad
    assert [results[t.name] for t in tasks[3:]] == [t.name.upper() for t in tasks[3:]]
    assert "SIGSEGV" in results["segfault-1"].message
    assert [Trouble(tmp_path).calls(name) for name in (*bad, "once-1", "plain-0")] == [2, 2, 2, 2, 1]
    assert processes.workers[0].poll() is None


def test_no_more_is_on_its_way_than_the_cluster_can_take(tmp_path: Path, processes: Processes) -> None:
    processes.start_worker()
    (tmp_path / "out/.partial").mkdir(parents=True)
    taken: list[str] = []

    class Counted(list[Named]):
        def __iter__(self) -> Iterator[Named]:
            for i in range(30):
                taken.append(str(i))
                yield Named(f"plain-{i}")

    runner = Cluster(processes.address, tmp_path / "out")
    most = 0
    for done, _ in enumerate(runner(Counted(), NamedTrouble(tmp_path), Limits(1)), 1):
        begun = len(list(tmp_path.glob("plain-*")))
        most = max(most, begun - done)
    assert most <= 3


def test_a_scheduler_that_goes_ends_the_run_in_one_sentence(tmp_path: Path, processes: Processes) -> None:
    inputs, out = make_images(tmp_path / "in", 4, (480, 375)), tmp_path / "out"
    processes.start_worker()

    def kill(progress: object) -> None:
        with contextlib.suppress(AttributeError):
            if progress.done == 1:  # type: ignore[attr-defined]
                processes.all[0].kill()

    with pytest.raises(DetectorError, match="the scheduler of the cluster is gone"):
        run_batch(Job((inputs,), out, formats=ALL), kill, runner=Cluster(processes.address, out))
    assert_equal(run_here(inputs, out), run_here(inputs, tmp_path / "here"))
