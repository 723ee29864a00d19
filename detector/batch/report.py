"""The review pages of a result folder made anew, without the images that they show."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from detector.batch.cases import Cases, settings_of
from detector.batch.pool import Limits, run_locally
from detector.batch.run import locked
from detector.batch.work import Plan
from detector.errors import DetectorError, ExportError
from detector.export.files import printable


def rebuild_report(folder: Path, limits: Limits, stopped: Callable[[], bool] = lambda: False) -> int:
    """Make the worklist and all pages whose pictures are there anew, from tables and Readings; return how many pages.

    Raises
    ------
    DetectorError
        If the folder holds no results, is in use, or cannot be written.
    """
    settings = settings_of(folder)
    try:
        with locked(folder):
            return Cases(Plan(folder.resolve(), settings), None).write(run_locally, limits, stopped)
    except (OSError, ExportError) as error:
        raise DetectorError(f"the review pages in {printable(str(folder))} cannot be written: {error}") from error
