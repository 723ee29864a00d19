"""Workers may crash, hang or run out of memory; no task is lost and no other one suffers."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from detector.batch.pool import Limits, Lost, run_locally
from detector.errors import DetectorError


@dataclass(frozen=True)
class Trouble:
    """Does what the task says; leaves a mark a call, so that calls can be counted."""

    folder: Path

    def prepare(self) -> str:
        return ""

    def __call__(self, task: str, /) -> str:
        with (self.folder / task).open("a") as marks:
            marks.write("x")
        what = task.partition("-")[0]
        if what == "segfault":
            ctypes.string_at(0)
        elif what == "exit":
            os._exit(3)
        elif what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "hang":
            time.sleep(1000)
        elif what == "memory":
            return str(len(bytearray(1 << 40)))
        elif what == "large":
            return str(len(bytearray(600 << 20)))
        elif what == "slow":
            time.sleep(0.2)
        elif what == "environment":
            return os.environ[task.partition("-")[2]]
        elif what == "once" and len((self.folder / task).read_text()) == 1:
            os._exit(4)
        elif what == "noise":
            os.write(1, b"PATIENT^NAME")
            os.write(2, b"PATIENT^NAME")
        return task.upper()

    def calls(self, task: str) -> int:
        return len((self.folder / task).read_text())


@dataclass(frozen=True)
class Unfit:
    how: str

    def prepare(self) -> str:
        if self.how == "dies":
            os._exit(5)
        return "a library is missing"

    def __call__(self, task: str, /) -> str:
        return task


def run(work: Trouble, tasks: list[str], **limits: float) -> dict[str, str | Lost]:
    return dict(run_locally(tasks, work, Limits(**{"workers": 2, **limits})))  # type: ignore[arg-type]


def test_every_task_gets_its_result(tmp_path: Path) -> None:
    tasks = [f"plain-{i}" for i in range(30)]
    assert run(Trouble(tmp_path), tasks) == {task: task.upper() for task in tasks}


def test_one_crash_is_one_lost_task_after_a_second_try(tmp_path: Path) -> None:
    work = Trouble(tmp_path)
    bad = {"segfault-1": "Crash", "exit-1": "Crash", "kill-1": "OutOfMemory", "memory-1": "OutOfMemory"}
    good = [f"plain-{i}" for i in range(8)]
    results = run(work, [*bad, *good])
    assert {task: result.error for task, result in results.items() if isinstance(result, Lost)} == bad
    assert [results[task] for task in good] == [task.upper() for task in good]
    assert [work.calls(task) for task in bad] == [2] * 4
    assert [work.calls(task) for task in good] == [1] * 8


def test_a_task_that_crashed_by_chance_gets_its_result(tmp_path: Path) -> None:
    work = Trouble(tmp_path)
    assert run(work, ["once-1", "plain-1"]) == {"once-1": "ONCE-1", "plain-1": "PLAIN-1"}
    assert work.calls("once-1") == 2


def test_a_task_over_the_time_limit_is_lost_and_its_worker_replaced(tmp_path: Path) -> None:
    work = Trouble(tmp_path)
    results = run(work, ["hang-1", "plain-1", "hang-2", "plain-2"], timeout_s=1.0)
    lost = {task: result.error for task, result in results.items() if isinstance(result, Lost)}
    assert lost == {"hang-1": "TimeLimit", "hang-2": "TimeLimit"}
    assert [results["plain-1"], results["plain-2"]] == ["PLAIN-1", "PLAIN-2"]
    assert work.calls("hang-1") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
@pytest.mark.parametrize(("limit_mb", "lost"), [(0, False), (300, True)])
def test_memory_limit_holds(tmp_path: Path, limit_mb: int, lost: bool) -> None:
    results = run(Trouble(tmp_path), ["large-1", "plain-1"], memory_limit_mb=limit_mb)
    assert isinstance(results["large-1"], Lost) == lost
    assert results["plain-1"] == "PLAIN-1"


def test_stop_ends_iteration_and_workers(tmp_path: Path) -> None:
    seen: list[str] = []
    for task, _ in run_locally(["plain-1", "hang-1", "hang-2"], Trouble(tmp_path), Limits(2), lambda: bool(seen)):
        seen.append(task)
    assert seen == ["plain-1"]
    assert multiprocessing.active_children() == []


def test_what_libraries_print_goes_nowhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(Trouble(tmp_path), ["noise-1"])
    assert capfd.readouterr() == ("", "")


def test_libraries_get_one_thread_and_the_parent_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert run(Trouble(tmp_path), ["environment-OMP_NUM_THREADS", "environment-MKL_NUM_THREADS"]) == {
        "environment-OMP_NUM_THREADS": "1",
        "environment-MKL_NUM_THREADS": "1",
    }
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(("how", "words"), [("dies", "do not start"), ("tells", "a library is missing")])
def test_workers_that_cannot_start_end_the_run(how: str, words: str) -> None:
    with pytest.raises(DetectorError, match=words):
        list(run_locally(["plain-1"], Unfit(how), Limits(2)))


def test_a_worker_killed_from_outside_costs_nothing(tmp_path: Path) -> None:
    done: dict[str, str | Lost] = {}
    tasks = [f"slow-{i}" for i in range(6)]
    for task, result in run_locally(tasks, Trouble(tmp_path), Limits(2)):
        if not done:
            multiprocessing.active_children()[0].kill()
        done[task] = result
    assert done == {task: task.upper() for task in tasks}
