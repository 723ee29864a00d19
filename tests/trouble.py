"""Work that goes wrong on purpose, for the tests of the pool; apart from them, so that workers start without pytest."""

import ctypes
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Trouble:
    """Does what the first word of a task says; leaves a mark a call in `folder`, so that calls can be counted."""

    folder: Path

    def prepare(self) -> str:
        """Be ready."""
        return ""

    def __call__(self, task: str, /) -> str:
        """Do the task, or what is wrong with it."""
        with (self.folder / task).open("a") as marks:
            marks.write("x")
        what, _, how = task.partition("-")
        if what == "segfault":
            ctypes.string_at(0)
        elif what == "exit":
            os._exit(3)
        elif what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "once" and self.calls(task) == 1:
            os._exit(4)
        elif what == "hang":
            time.sleep(1000)
        elif what == "slow":
            time.sleep(0.3)
        elif what == "memory":
            return str(len(bytearray(int(how) << 20)))
        elif what == "noise":
            os.write(1, b"PATIENT^NAME")
            os.write(2, b"PATIENT^NAME")
        elif what == "environment":
            return os.environ[how]
        return task.upper()

    def calls(self, task: str) -> int:
        """Return how often the task was begun."""
        return len((self.folder / task).read_text())


@dataclass(frozen=True)
class Named:
    """A task by name that needs no file."""

    name: str
    paths: tuple[Path, ...] = ()


@dataclass(frozen=True)
class NamedTrouble:
    """Trouble for tasks by name."""

    folder: Path

    def prepare(self) -> str:
        """Be ready."""
        return ""

    def __call__(self, task: Named, /) -> str:
        """Do the task, or what is wrong with it."""
        return Trouble(self.folder)(task.name)


@dataclass(frozen=True)
class Unfit:
    """Cannot make ready."""

    how: str

    def prepare(self) -> str:
        """Die, or say what is missing."""
        if self.how == "dies":
            os._exit(5)
        return "a library is missing"

    def __call__(self, task: str, /) -> str:
        """Never come here."""
        return task
