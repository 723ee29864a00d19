"""Looking at folders again and again: what has come to rest is handed out, what is still being written waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from detector.batch.find import Found, find_inputs
from detector.errors import DetectorError

_TICK_S = 0.1
_LOOKING_SHARE = 10
"""Looking takes at most about a tenth of the time, however many files there are."""


def watch(paths: Sequence[Path], out: Path, every_s: float, stopped: Callable[[], bool]) -> Iterator[list[Found]]:
    """Yield, at first and then whenever there is something new, all that is at rest under the paths; at least once.

    A file is at rest if two looks find it of the same size and time. A folder that is away for a while (a share that
    is being mounted anew) holds nothing meanwhile.

    Parameters
    ----------
    paths, out
        As of `find_inputs`.
    every_s : float
        Least time between two looks, in seconds.
    stopped : callable
        Asked several times a second; True ends the iteration.

    Yields
    ------
    list of Found
        In the order of the tables.
    """
    before = {found.path: found for found in _look(paths, out)}
    handed: set[Found] | None = None
    _wait(every_s, stopped)
    while not stopped():
        start = time.monotonic()
        now = {found.path: found for found in _look(paths, out)}
        at_rest = [found for path, found in now.items() if before.get(path) == found]
        before = now
        if handed is None or set(at_rest) - handed:
            handed = set(at_rest)
            yield at_rest
        _wait(max(every_s, _LOOKING_SHARE * (time.monotonic() - start)), stopped)
    if handed is None:
        yield list(before.values())


def _look(paths: Sequence[Path], out: Path) -> list[Found]:
    try:
        return find_inputs(paths, out)
    except DetectorError:
        return []


def _wait(seconds: float, stopped: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stopped():
        time.sleep(_TICK_S)
