"""Who does the work: local processes that may crash, hang or eat memory without harm to the others.

One process a worker and one pipe each; a small supervisor hands out tasks one by one, so that it always knows which
file a lost worker was at.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Generic, Protocol, TypeVar

from detector.errors import DetectorError

_T = TypeVar("_T")
_R = TypeVar("_R")
_TaskIn = TypeVar("_TaskIn", contravariant=True)
_ResultOut = TypeVar("_ResultOut", covariant=True)

_TICK_S = 0.25
_MAX_LOST_STARTS = 3
_LAST_BREATH_S = 5.0
_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


@dataclass(frozen=True)
class Limits:
    """How many workers there are and what each may take.

    Attributes
    ----------
    workers : int
    timeout_s : float
        Longest time for one task, in seconds; the worker is killed and replaced.
    memory_limit_mb : int
        Most memory that a worker may hold, in MB; 0 is no limit. Linux alone.
    """

    workers: int
    timeout_s: float = float("inf")
    memory_limit_mb: int = 0


@dataclass(frozen=True)
class Lost:
    """What is known of a task that gave no result."""

    error: str
    message: str


class Tasks(deque[_T]):
    """Tasks to which others may be added while they are done; who iterates takes them out."""

    def __iter__(self) -> Iterator[_T]:
        """Yield tasks until none is left."""
        while self:
            yield self.popleft()


class Work(Protocol[_TaskIn, _ResultOut]):
    """What is taken to the workers, by pickle: how to make ready, and how to do a task."""

    def prepare(self) -> str:
        """Do what should not count as time of a task, in the worker; return why no task can be done, or nothing."""

    def __call__(self, task: _TaskIn, /) -> _ResultOut:
        """Do a task; a MemoryError is passed on and the task tried again."""


def run_locally(
    tasks: Iterable[_T], work: Work[_T, _R], limits: Limits, stopped: Callable[[], bool] = lambda: False
) -> Iterator[tuple[_T, _R | Lost]]:
    """Run `work` on every task in local processes and yield each task with its result, as they come.

    A worker that dies, runs out of memory or is over the time limit is replaced, and its task is done once more, alone,
    after all others; if that fails too, the task yields a `Lost`.

    Parameters
    ----------
    tasks : iterable
        Taken to the workers by pickle, one by one; so are the results taken back. A deque may grow meanwhile.
    work : Work
    limits : Limits
    stopped : callable
        Asked several times a second; True ends the workers and the iteration.

    Raises
    ------
    DetectorError
        If workers do not start.
    """
    supervisor = _Supervisor(tasks, work, limits)
    try:
        while supervisor.busy() and not stopped():
            supervisor.staff()
            supervisor.hand_out()
            yield from supervisor.collect()
    finally:
        supervisor.end()


class _Worker(Generic[_T, _R]):
    """A process, our end of its pipe, and the task that it is at."""

    def __init__(self, work: Work[_T, _R], memory_limit_mb: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, memory_limit_mb), daemon=True)
        with _fit_for_children():
            self.process.start()
        theirs.close()
        self.ready = False
        self.task: _T | None = None
        self.deadline = float("inf")

    def give(self, task: _T, timeout_s: float) -> None:
        """Hand over a task; if the worker is dead, `receive` will find out."""
        self.task, self.deadline = task, time.monotonic() + timeout_s
        with contextlib.suppress(OSError):
            self.pipe.send(task)

    def end(self) -> None:
        """Kill the process and wait for it."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


class _Supervisor(Generic[_T, _R]):
    """The state of `run_locally`."""

    def __init__(self, tasks: Iterable[_T], work: Work[_T, _R], limits: Limits) -> None:
        self._waiting = tasks if isinstance(tasks, deque) else deque(tasks)
        self._again: deque[_T] = deque()
        self._work = work
        self._limits = limits
        self._workers: list[_Worker[_T, _R]] = []
        self._lost_starts = 0
        self._alone = False

    def busy(self) -> bool:
        """Return whether anything is left to do."""
        return bool(self._waiting or self._again or any(w.task is not None for w in self._workers))

    def staff(self) -> None:
        """Start workers where some are missing."""
        at_work = sum(w.task is not None for w in self._workers)
        wanted = min(self._limits.workers, at_work + len(self._waiting) + bool(self._again))
        while len(self._workers) < wanted:
            try:
                self._workers.append(_Worker(self._work, self._limits.memory_limit_mb))
            except OSError as error:
                raise DetectorError(
                    f"a worker process cannot be started: {error.strerror}; try fewer --workers"
                ) from error

    def hand_out(self) -> None:
        """Give every free worker a task; a task that is done again is done alone."""
        for worker in self._workers:
            if worker.ready and worker.task is None:
                if self._waiting:
                    worker.give(self._waiting.popleft(), self._limits.timeout_s)
                elif self._again and all(w.task is None for w in self._workers):
                    self._alone = True
                    worker.give(self._again.popleft(), self._limits.timeout_s)

    def collect(self) -> Iterator[tuple[_T, _R | Lost]]:
        """Wait a little, and yield what has come in."""
        now = time.monotonic()
        patience = min([_TICK_S, *(max(0.0, w.deadline - now) for w in self._workers)])
        speaking = wait([w.pipe for w in self._workers], patience)
        for worker in list(self._workers):
            if worker.pipe in speaking:
                yield from self._listen(worker)
            elif time.monotonic() >= worker.deadline:
                yield from self._overdue(worker)

    def _listen(self, worker: _Worker[_T, _R]) -> Iterator[tuple[_T, _R | Lost]]:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            yield from self._bury(worker)
            return
        if not worker.ready:
            if message:
                raise DetectorError(message)
            worker.ready, self._lost_starts = True, 0
            return
        task, worker.task, worker.deadline = worker.task, None, float("inf")
        if task is None:  # a ready worker speaks only of its task
            raise DetectorError("a worker process answered what it was not asked; please report it")
        if isinstance(message, Lost):
            yield from self._retry(task, message)
        else:
            self._alone = False
            yield task, message

    def _overdue(self, worker: _Worker[_T, _R]) -> Iterator[tuple[_T, _R | Lost]]:
        self._dismiss(worker)
        if worker.task is not None:
            yield from self._retry(worker.task, _too_slow(self._limits))

    def _bury(self, worker: _Worker[_T, _R]) -> Iterator[tuple[_T, _R | Lost]]:
        worker.process.join(_LAST_BREATH_S)  # or else its exit code would be that of our own kill
        self._dismiss(worker)
        if worker.task is not None:
            yield from self._retry(worker.task, _last_words(worker.process.exitcode))
            return
        self._lost_starts += not worker.ready
        if self._lost_starts >= _MAX_LOST_STARTS:
            raise DetectorError(
                f"the worker processes do not start ({_last_words(worker.process.exitcode).message});"
                " try fewer --workers or a higher --memory-limit"
            )

    def _retry(self, task: _T, lost: Lost) -> Iterator[tuple[_T, Lost]]:
        if self._alone:
            self._alone = False
            yield task, lost
        else:
            self._again.append(task)

    def _dismiss(self, worker: _Worker[_T, _R]) -> None:
        self._workers.remove(worker)
        worker.end()

    def end(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.end()


class Attendant(Generic[_T, _R]):
    """One worker process for a caller that waits for each task; it is replaced when it is lost, and kept otherwise.

    Parameters
    ----------
    work : Work
    limits : Limits
    """

    def __init__(self, work: Work[_T, _R], limits: Limits) -> None:
        self._work, self._limits = work, limits
        self._worker: _Worker[_T, _R] | None = None

    def do(self, task: _T) -> _R | Lost:
        """Do a task, and return its result or what is known of the loss.

        Raises
        ------
        DetectorError
            If the worker does not start.
        """
        worker = self._worker or self._start()
        worker.give(task, self._limits.timeout_s)
        patience = None if self._limits.timeout_s == float("inf") else self._limits.timeout_s
        try:
            if worker.pipe.poll(patience):
                result: _R | Lost = worker.pipe.recv()
                return result
        except (EOFError, OSError):
            worker.process.join(_LAST_BREATH_S)
            self.end()
            return _last_words(worker.process.exitcode)
        self.end()
        return _too_slow(self._limits)

    def _start(self) -> _Worker[_T, _R]:
        try:
            self._worker = _Worker(self._work, self._limits.memory_limit_mb)
            message = self._worker.pipe.recv()
        except (EOFError, OSError) as error:
            self.end()
            raise DetectorError(f"a worker process does not start ({type(error).__name__})") from error
        if message:
            self.end()
            raise DetectorError(message)
        return self._worker

    def kill(self) -> None:
        """Kill the process from another thread than that which is at `do`, which then returns."""
        if self._worker is not None:
            self._worker.process.kill()

    def end(self) -> None:
        """End the process."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None


def _too_slow(limits: Limits) -> Lost:
    return Lost("TimeLimit", f"it took longer than the {limits.timeout_s:g} s of --timeout twice; raise it")


def _last_words(exit_code: int | None) -> Lost:
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        if name == "SIGKILL":
            return Lost(
                "OutOfMemory",
                "the worker was killed twice (SIGKILL), likely for want of memory; try fewer --workers",
            )
        return Lost("Crash", f"the worker crashed twice ({name}); the file is likely damaged, please report it")
    return Lost(
        "Crash", f"the worker ended twice with status {exit_code}; the file is likely damaged, please report it"
    )


@contextlib.contextmanager
def _fit_for_children() -> Iterator[None]:
    """Start a process with one thread in its libraries, and deaf to Ctrl-C until it ignores it for good."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    mask = None
    if hasattr(signal, "pthread_sigmask"):
        resource_tracker.ensure_running()  # it unblocks signals as it starts
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


# --------------------------------------------------------------------------------------------------------------
# in the worker


def _serve(pipe: Connection, work: Work[_T, _R], memory_limit_mb: int) -> None:
    _settle_in()
    pipe.send(work.prepare())
    _limit_memory(memory_limit_mb)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            result: _R | Lost = work(task)
        except MemoryError:
            result = Lost("OutOfMemory", "memory ran out twice; try fewer --workers or a higher --memory-limit")
        pipe.send(result)


def _settle_in() -> None:
    """Leave Ctrl-C to the parent, end with it, be silent, and be the first to go when memory ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    # what libraries write may quote header values, so a patient's name: it goes nowhere
    warnings.simplefilter("ignore")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as handle:  # noqa: PTH123
        handle.write("500")


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _limit_memory(megabytes: int) -> None:
    if megabytes:
        import resource

        # private writable memory; address space would count every library's code too
        resource.setrlimit(resource.RLIMIT_DATA, (megabytes << 20, megabytes << 20))


def check_limits(limits: Limits) -> None:
    """Raise where the limits cannot be kept.

    Raises
    ------
    DetectorError
        If a memory limit is asked for on a system that does not enforce one.
    """
    if limits.memory_limit_mb and sys.platform != "linux":
        raise DetectorError("--memory-limit works on Linux alone; leave it out and use fewer --workers")
