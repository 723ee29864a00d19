"""Workers may crash, hang or run out of memory; no task is lost and no other one suffers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detector.batch.pool import Limits, Lost, run_locally
from detector.errors import DetectorError
from tests.trouble import Trouble, Unfit


def run(work: Trouble, tasks: list[str], limits: Limits) -> dict[str, str | Lost]:
    return dict(run_locally(tasks, work, limits))


def lost(results: dict[str, str | Lost]) -> dict[str, str]:
    return {task: result.error for task, result in results.items() if isinstance(result, Lost)}


def test_every_task_gets_its_result_in_silence_and_on_one_thread(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    environment = ["environment-OMP_NUM_THREADS", "environment-MKL_NUM_THREADS"]
    tasks = [*(f"plain-{i}" for i in range(30)), "noise-1"]
    results = run(Trouble(tmp_path), [*tasks, *environment], Limits(2))
    assert results == {task: task.upper() for task in tasks} | dict.fromkeys(environment, "1")
    assert capfd.readouterr() == ("", "")
    assert (os.environ["OMP_NUM_THREADS"], "MKL_NUM_THREADS" in os.environ) == ("7", False)


def test_a_crash_is_one_lost_task_after_a_second_try(tmp_path: Path) -> None:
    work = Trouble(tmp_path)
    bad = {"segfault-1": "Crash", "exit-1": "Crash", "kill-1": "OutOfMemory", "memory-1000000": "OutOfMemory"}
    good = ["once-1", *(f"plain-{i}" for i in range(8))]
    results = run(work, [*bad, *good], Limits(2))
    assert lost(results) == bad
    assert [results[task] for task in good] == [task.upper() for task in good]
    assert [work.calls(task) for task in (*bad, *good)] == [2] * 5 + [1] * 8


def test_a_task_twice_over_the_time_limit_is_lost_and_its_worker_replaced(tmp_path: Path) -> None:
    work = Trouble(tmp_path)
    results = run(work, ["hang-1", "plain-1", "plain-2"], Limits(1, timeout_s=1.0))
    assert lost(results) == {"hang-1": "TimeLimit"}
    assert [results["plain-1"], results["plain-2"]] == ["PLAIN-1", "PLAIN-2"]
    assert work.calls("hang-1") == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
def test_memory_limit_holds(tmp_path: Path) -> None:
    results = run(Trouble(tmp_path), ["memory-600", "memory-1"], Limits(1, memory_limit_mb=300))
    assert lost(results) == {"memory-600": "OutOfMemory"}
    assert results["memory-1"] == str(1 << 20)


def test_a_stop_ends_iteration_and_workers(tmp_path: Path) -> None:
    seen: list[str] = []
    for task, _ in run_locally(["plain-1", "hang-1", "hang-2"], Trouble(tmp_path), Limits(2), lambda: bool(seen)):
        seen.append(task)
    assert seen == ["plain-1"]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(("how", "words"), [("dies", "do not start"), ("tells", "a library is missing")])
def test_workers_that_cannot_start_end_the_run(how: str, words: str) -> None:
    with pytest.raises(DetectorError, match=words):
        list(run_locally(["plain-1"], Unfit(how), Limits(1)))


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_a_worker_does_not_outlive_its_parent(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from detector.batch.pool import Limits, run_locally
from tests.trouble import Trouble
list(run_locally(["hang-1"], Trouble(Path({str(tmp_path)!r})), Limits(1)))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    while not (tmp_path / "hang-1").exists():
        time.sleep(0.01)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    parent.kill()
    parent.wait()
    while any(_is_alive(child) for child in children):
        time.sleep(0.01)


def _is_alive(process: str) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


def test_a_worker_killed_from_outside_costs_nothing(tmp_path: Path) -> None:
    done: dict[str, str | Lost] = {}
    tasks = [f"slow-{i}" for i in range(4)]
    for task, result in run_locally(tasks, Trouble(tmp_path), Limits(1)):
        if not done:
            multiprocessing.active_children()[0].kill()
        done[task] = result
    assert done == {task: task.upper() for task in tasks}


ROOT = Path(__file__).parents[1]
FAULTS = """
import resource
import numpy as np
from detector.batch.work import keep_memory
{call}
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(10_000_000).fill(1.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep freed memory")
def test_workers_use_the_memory_of_the_last_image_again() -> None:
    fresh, kept = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS.format(call=call)], cwd=ROOT))
        for call in ("", "keep_memory()")
    )
    assert kept < 0.2 * fresh
