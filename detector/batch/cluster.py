"""Who does the work: the workers of a dask.distributed cluster, one task a file, as `pool` does it on one machine.

Each thread of a dask worker keeps one process of `pool`, so that a file that crashes, hangs or eats memory costs that
process alone; a dask worker that dies is the scheduler's affair, which gives its files to others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import platform
import queue
import secrets
import shutil
import socket
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from distributed import Client, Future, Worker, WorkerPlugin, get_worker
from distributed.scheduler import KilledWorker

from detector.batch.early import RunWork
from detector.batch.manifest import code_hash, library_versions
from detector.batch.pool import Attendant, Limits, Lost, run_locally
from detector.batch.work import PARTIAL, FileWork, Outcome, Task
from detector.errors import DetectorError
from detector.export.files import printable

_T = TypeVar("_T")

_TICK_S = 0.25
_CONNECT_S, _CLOSE_S = 20.0, 2.0
_COUNT_EVERY_S = 5.0
_PER_THREAD = 2
"""Files that are on their way for each thread of the cluster, so that none waits for us."""
_SAMPLES = 64
"""Files that each worker looks for before the start."""
_TOKEN_BYTES = 16


@dataclass(frozen=True)
class Conditions:
    """What a worker must meet: the same program, the same files at the same paths.

    Attributes
    ----------
    code, libraries, python
        Hash of the sources, versions of the libraries, of Python: findings may differ in the last digits otherwise.
    samples : tuple of (str, int)
        Paths of some of the files, and their sizes.
    token : str
        Absolute path of a file in the result folder.
    secret : bytes
        What is in it.
    """

    code: str
    libraries: tuple[tuple[str, str], ...]
    python: str
    samples: tuple[tuple[str, int], ...]
    token: str
    secret: bytes

    @classmethod
    def of(cls, paths: Iterable[Path], token: Path, secret: bytes) -> Conditions:
        """Return the conditions as they are here."""
        samples = tuple((str(path), size) for path in paths if (size := _readable_size(path)) >= 0)
        return cls(*_program(), samples, str(token), secret)

    def lack(self) -> str:
        """Return what this machine lacks, as the end of a sentence, or nothing."""
        code, libraries, python = _program()
        if code != self.code:
            return "has another version of this program; install the same one on all machines"
        differing = sorted(name for name, _ in {*libraries} ^ {*self.libraries})
        if differing:
            return f"has another version of {differing[0]}; install from the same lock file on all machines"
        if python != self.python:
            return f"has Python {python} and not {self.python}; install the same one on all machines"
        for path, size in self.samples:
            if _readable_size(path) != size:
                return (
                    f"cannot read {printable(path)} as it is read here;"
                    " mount the images at the same path on all machines"
                )
        return ""

    def shares_results(self) -> bool:
        """Return whether this machine sees the result folder, and may write there."""
        token = Path(self.token)
        try:
            if token.read_bytes() != self.secret:
                return False
            own = token.with_name(f"{token.name}-{secrets.token_hex(8)}")
            own.touch()
            own.unlink()
        except OSError:
            return False
        return True


def _readable_size(path: str | Path) -> int:
    """Return the size of a file that can be opened, else -1."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return os.fstat(file.fileno()).st_size
    except OSError:
        return -1


def _program() -> tuple[str, tuple[tuple[str, str], ...], str]:
    return code_hash(), tuple(sorted(library_versions().items())), ".".join(platform.python_version_tuple()[:2])


class Unfit(Exception):
    """A worker does not meet the conditions, or cannot start the program; the message is a sentence."""


class Plugin(WorkerPlugin):  # type: ignore[misc]
    """What a dask worker holds for a run: conditions, and a process for each task that it does at once.

    Parameters
    ----------
    work, limits
        As of `run_locally`.
    conditions : Conditions
    gather : bool
        Whether results are sent back and not written, because the result folder is not shared.
    """

    def __init__(self, work: Any, limits: Limits, conditions: Conditions, gather: bool) -> None:
        self.name = f"detector-{secrets.token_hex(8)}"
        self._work, self._limits, self._conditions, self._gather = work, limits, conditions, gather

    def setup(self, worker: Worker) -> None:
        """Make ready on a worker, early or late; dask calls this."""
        # a nanny marks its worker as one that must not start processes; ours end with it on their own
        getattr(multiprocessing.current_process(), "_config", {}).pop("daemon", None)
        self._lack: str | None = None
        self._lock = threading.Lock()
        self._idle: list[Attendant[Any, Any]] = []
        self._all: list[Attendant[Any, Any]] = []
        self._folder = Path(tempfile.mkdtemp(dir=worker.local_directory)) if self._gather else None
        if self._folder is not None:
            (self._folder / PARTIAL).mkdir()
            self._work = dataclasses.replace(self._work, plan=dataclasses.replace(self._work.plan, folder=self._folder))

    def teardown(self, worker: Worker) -> None:
        """End the processes; dask calls this."""
        for attendant in self._all:
            attendant.kill()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def do(self, task: Any, reading: bytes) -> tuple[Any, tuple[bytes, ...]]:
        """Do a task in one of the processes.

        Parameters
        ----------
        task
        reading : bytes
            The saved Reading that the task names, where the result folder is not shared.

        Returns
        -------
        tuple of result or Lost, and tuple of bytes
            The contents of ``result.written`` where the result folder is not shared.

        Raises
        ------
        Unfit
        """
        with self._lock:
            if self._lack is None:  # a worker that has come late has not been asked before
                self._lack = self._conditions.lack() or self._lack_of_results()
            if self._lack:
                raise Unfit(_of_this_machine(self._lack))
            if self._idle:
                attendant = self._idle.pop()
            else:
                attendant = Attendant(self._work, self._limits)
                self._all.append(attendant)
        try:
            if self._folder is None:
                return attendant.do(task), ()
            return self._do_apart(attendant, task, reading, self._folder)
        except DetectorError as error:
            raise Unfit(_of_this_machine(f"cannot work: {error}")) from None
        finally:
            with self._lock:
                self._idle.append(attendant)

    def _lack_of_results(self) -> str:
        if self._gather or self._conditions.shares_results():
            return ""
        return "does not see the result folder, unlike the workers before it; mount it at the same path, or start anew"

    def _do_apart(
        self, attendant: Attendant[Any, Any], task: Task, reading: bytes, folder: Path
    ) -> tuple[Outcome | Lost, tuple[bytes, ...]]:
        if reading:
            (folder / task.reading).parent.mkdir(parents=True, exist_ok=True)
            (folder / task.reading).write_bytes(reading)
        try:
            outcome = attendant.do(task)
            written = () if isinstance(outcome, Lost) else outcome.written
            contents = []
            for partial, _ in written:
                contents.append((folder / partial).read_bytes())
                (folder / partial).unlink()
            return outcome, tuple(contents)
        finally:
            if reading:
                (folder / task.reading).unlink()


def _of_this_machine(words: str) -> str:
    return f"the worker on {printable(socket.gethostname())} {words}"


def _do(name: str, task: Any, reading: bytes) -> tuple[Any, tuple[bytes, ...]]:
    """Do a task on a dask worker: what is submitted."""
    result: tuple[Any, tuple[bytes, ...]] = get_worker().plugins[name].do(task, reading)
    return result


def _examine(conditions: Conditions) -> tuple[str, bool]:
    """Return, on a dask worker, what it lacks and whether it shares the result folder."""
    lack = conditions.lack()
    return (_of_this_machine(lack) if lack else ""), conditions.shares_results()


@dataclass(frozen=True)
class Cluster:
    """Runs work on a cluster; a `Runner` of `run_batch`.

    Attributes
    ----------
    address : str
        Of the scheduler, ``tcp://host:port``.
    out : Path
        The result folder.
    """

    address: str
    out: Path

    def __call__(
        self, tasks: Iterable[_T], work: Any, limits: Limits, stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[_T, Any]]:
        """Do every task on the cluster and yield each with its result, as they come; see `run_locally`.

        Raises
        ------
        DetectorError
            If the scheduler cannot be reached or is lost, if no worker is there, or one is not fit.
        """
        waiting = tasks if isinstance(tasks, deque) else deque(tasks)
        if not waiting:
            return
        token = self.out.resolve() / PARTIAL / f"shared-{secrets.token_hex(8)}"
        token.write_bytes(secret := secrets.token_bytes(_TOKEN_BYTES))
        try:
            with _connected(self.address) as client:
                conditions = Conditions.of(_samples(waiting), token, secret)
                gather = not _examine_all(client, conditions)
                if gather and isinstance(work, RunWork):
                    work = work.files
                if gather and not isinstance(work, FileWork):
                    yield from run_locally(waiting, work, limits, stopped)  # it needs the result folder
                    return
                with _registered(client, Plugin(work, limits, conditions, gather)) as plugin:
                    yield from _Dispatch(client, plugin, self.out.resolve(), gather).run(waiting, stopped)
        finally:
            token.unlink(missing_ok=True)


@contextlib.contextmanager
def _registered(client: Client, plugin: Plugin) -> Iterator[str]:
    client.register_plugin(plugin, name=plugin.name)
    try:
        yield plugin.name
    finally:
        if client.status == "running":
            with contextlib.suppress(Exception):  # the cluster may go just now
                client.unregister_worker_plugin(plugin.name)


class _Dispatch:
    """The tasks that are on their way."""

    def __init__(self, client: Client, plugin: str, out: Path, gather: bool) -> None:
        self._client, self._plugin, self._out, self._gather = client, plugin, out, gather
        self._flying: dict[str, tuple[Future, Any]] = {}
        self._landed: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._again: deque[Any] = deque()
        self._counted = float("-inf")
        self._room = 1

    def run(self, waiting: deque[_T], stopped: Callable[[], bool]) -> Iterator[tuple[_T, Any]]:
        """Send out tasks, a bounded number at once, and yield what comes in; what was lost goes once more, alone."""
        alone = False
        try:
            while (waiting or self._again or self._flying) and not stopped():
                while waiting and len(self._flying) < self._count():
                    task, alone = waiting.popleft(), False
                    # what is made in the result folder is left to the end of the run, if that is not shared
                    if isinstance(task, Task) or not self._gather:
                        self._send(task)
                if not self._flying:
                    if not self._again:
                        break
                    alone = True
                    self._send(self._again.popleft())
                for task, result in self._land():
                    if isinstance(result, Lost) and not alone:
                        self._again.append(task)
                    else:
                        yield task, result
        finally:
            if self._flying and self._client.status == "running":
                with contextlib.suppress(Exception):  # the cluster may go just now
                    self._client.cancel([future for future, _ in self._flying.values()], force=True)

    def _land(self) -> Iterator[tuple[Any, Any]]:
        """Yield a task that has come back, if one does within a moment."""
        try:
            key = self._landed.get(timeout=_TICK_S).key
        except queue.Empty:
            if self._client.status != "running":
                raise _gone() from None
            return
        future, task = self._flying.pop(key)
        yield task, self._result(future, task)

    def _count(self) -> int:
        """Return how many tasks may be on their way."""
        if time.monotonic() - self._counted > _COUNT_EVERY_S:
            self._room = max(1, _PER_THREAD * sum(self._client.nthreads().values()))
            self._counted = time.monotonic()
        return self._room

    def _send(self, task: Any) -> None:
        reading = b""
        if self._gather and task.reading:
            with contextlib.suppress(OSError):
                reading = (self._out / task.reading).read_bytes()
        key = f"detector-{secrets.token_hex(16)}"
        future = self._client.submit(_do, self._plugin, task, reading, key=key, pure=False)
        self._flying[key] = future, task
        future.add_done_callback(self._landed.put)

    def _result(self, future: Future, task: Any) -> Any:
        if future.status == "cancelled":
            raise _gone()
        try:
            result, contents = future.result(timeout=_CONNECT_S)
        except KilledWorker:
            return Lost("Crash", "the workers that had it died one after the other; please report the file")
        except Unfit as error:
            raise DetectorError(str(error)) from error
        except Exception as error:
            return Lost("Crash", f"the worker failed ({type(error).__name__}); please report it")
        finally:
            future.release()
        return self._gathered(result, task, contents) if contents else result

    def _gathered(self, outcome: Outcome, task: Task, contents: tuple[bytes, ...]) -> Outcome:
        """Write here, under temporary names, what a worker could not."""
        written = []
        for (_, name), content in zip(outcome.written, contents, strict=True):
            partial = f"{PARTIAL}/{task.key}-{secrets.token_hex(8)}"
            with (self._out / partial).open("wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            written.append((partial, name))
        return dataclasses.replace(outcome, written=tuple(written))


@contextlib.contextmanager
def _connected(address: str) -> Iterator[Client]:
    log = logging.getLogger("distributed")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)  # what it tells of lost connections is told by us, once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            client = Client(address, timeout=_CONNECT_S, set_as_default=False)
        except (OSError, ValueError) as error:
            raise DetectorError(
                f"no scheduler answers at {printable(address)}; start one with `dask scheduler` and give its address,"
                " such as tcp://host:8786"
            ) from error
        try:
            yield client
        finally:
            with contextlib.suppress(Exception):  # the cluster may be gone
                client.close(timeout=_CLOSE_S)
            log.setLevel(level)


def _examine_all(client: Client, conditions: Conditions) -> bool:
    """Return whether all workers share the result folder.

    Raises
    ------
    DetectorError
        If there is no worker, or one does not meet the conditions.
    """
    with contextlib.suppress(TimeoutError):
        client.wait_for_workers(1, timeout=_CONNECT_S)
    try:
        answers = client.run(_examine, conditions)
    except Exception as error:
        raise DetectorError(
            f"a worker of the cluster cannot run this program ({type(error).__name__}); install the same version with"
            " its extra `cluster` on all machines"
        ) from error
    if not answers:
        raise DetectorError("the scheduler has no workers; start some with `dask worker` and the scheduler's address")
    for lack, _ in answers.values():
        if lack:
            raise DetectorError(lack)
    return all(shares for _, shares in answers.values())


def _samples(tasks: deque[Any]) -> Iterator[Path]:
    """Return some of the files that the tasks are about, spread over all."""
    n = min(_SAMPLES, len(tasks))
    chosen = [tasks[i * len(tasks) // n] for i in range(n)]
    return iter(dict.fromkeys(path for task in chosen for path in task.paths))


def _gone() -> DetectorError:
    return DetectorError("the scheduler of the cluster is gone; start it and the same command again, which resumes")
