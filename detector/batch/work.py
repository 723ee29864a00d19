"""What is done with one file: read it, analyse it, draw it, leave the results aside; one task in, one outcome out.

Nothing here knows who runs it. Results are written under temporary names in ``.partial`` of the result folder; whoever
keeps the ledger moves them to their places, so that two files of one image id cannot mix.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import hashlib
import hmac
import importlib
import os
import secrets
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from detector.batch.ledger import ANALYSED, SKIPPED, Finished, Rows
from detector.errors import NotAMammogram, ReadError, explain_missing
from detector.export.files import file_stem, printable, reading_name
from detector.export.tables import cluster_rows, image_row, spot_rows
from detector.records import Buffers, Identity, Kind, Mammogram, Reading
from detector.settings import Settings

PARTIAL = ".partial"


@dataclass(frozen=True)
class Plan:
    """What is the same for all files of a run.

    Attributes
    ----------
    folder : Path
        The result folder.
    settings : Settings
    listed_confidence : float
        Confidence from which spots are rows of their table.
    overlays, crops, pages : bool
        Whether these pictures are drawn; `pages` are those that review pages show.
    pictures : str
        Which images get them: ``all``, ``findings`` or ``none``.
    force_spacing : bool
        Whether a given spacing overrides a stated one.
    secret : bytes
        Key of the pseudonyms; empty keeps UIDs as they are.
    """

    folder: Path
    settings: Settings
    listed_confidence: float = 0.5
    overlays: bool = False
    crops: bool = False
    pages: bool = False
    pictures: str = "all"
    force_spacing: bool = False
    secret: bytes = b""

    @property
    def draws(self) -> bool:
        """Whether any image gets a picture."""
        return self.pictures != "none" and (self.overlays or self.crops or self.pages)


@dataclass(frozen=True, slots=True)
class Task:
    """One file, and how much of the work is done already.

    Attributes
    ----------
    key : str
        Safe name for temporary files.
    path : Path
    shown : str
        What tables and messages call it.
    frame : int
        Number of the frame, from 1; 0 takes the first.
    spacing_mm : float or None
        Given for this file.
    sha256 : str
        Of the file when `reading` was made of it.
    reading : str
        Saved Reading, relative to the result folder, that holds if the file still has that sha256; empty if none.
    unchanged : bool
        Whether size and time of the file say so, and it need not be hashed.
    draw : bool
        Whether pictures are due even if that Reading holds.
    """

    key: str
    path: Path
    shown: str
    frame: int = 0
    spacing_mm: float | None = None
    sha256: str = ""
    reading: str = ""
    unchanged: bool = False
    draw: bool = False

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that must be readable."""
        return (self.path,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Finished):
    """What became of a file; no Reading and no picture, so that it travels well.

    `rows` are the packed `Rows`; `written` are pairs of the temporary name and the final one, both relative to the
    result folder; `pictures` are the final names among them, or None if no pictures were due.
    """

    spacing_source: str = ""
    rows: bytes = b""
    written: tuple[tuple[str, str], ...] = ()
    pictures: tuple[str, ...] | None = None


@dataclass(frozen=True)
class FileWork:
    """What the workers of a run do, as `pool.Work`."""

    plan: Plan

    def prepare(self) -> str:
        """Import what the tasks need, and keep it to one thread; say what is missing."""
        return make_ready("detector.export.pictures", "detector.pipeline", "detector.read")

    def __call__(self, task: Task, /) -> Outcome:
        """Do one file."""
        return process_file(self.plan, task, _reused_buffers())


class ResultsNotWritten(Exception):
    """The result folder refuses; no other file will fare better."""


def process_file(plan: Plan, task: Task, buffers: Buffers | None) -> Outcome:
    """Do all that is due for one file; whatever is wrong with it becomes part of the outcome.

    Raises
    ------
    MemoryError
        For the caller to try again with more room.
    """
    try:
        return _process(plan, task, buffers)
    except NotAMammogram as error:
        return Outcome(status=SKIPPED, message=_without_path(error, task))
    except ReadError as error:
        return Outcome(error=type(error).__name__, message=_without_path(error, task))
    except ResultsNotWritten as error:
        return Outcome(status=REFUSED, message=str(error))
    except MemoryError:
        raise
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        return Outcome(error="ReadError", message=f"it cannot be opened: {why}")
    except Exception as error:
        if type(error).__module__ == "cv2" and "Insufficient memory" in str(error):
            raise MemoryError from error
        return Outcome(error="InternalError", message=unforeseen(error))


REFUSED = "refused"
"""Status of an outcome whose results could not be written."""


def _process(plan: Plan, task: Task, buffers: Buffers | None) -> Outcome:
    seconds: dict[str, float] = {}
    reading, mammogram = _reading_of(plan, task, buffers, seconds)
    text = reading.to_json()
    drawn: list[tuple[str, bytes]] = []
    if mammogram is not None:
        with _timed(seconds, "draw"):
            # from what is saved, whose outlines are rounded: pictures that are made later are the same
            drawn = list(_draw(plan, mammogram, Reading.from_json(text)))
    with _timed(seconds, "write"):
        results = [(reading_name(reading.identity.image_id), text.encode()), *drawn]
        written = [_write(plan, task, name, content) for name, content in results]
    return Outcome(
        status=ANALYSED,
        sha256=reading.identity.sha256,
        image_id=reading.identity.image_id,
        exposure_id=reading.identity.exposure_id,
        n_frames=reading.identity.n_frames,
        presentation_intent=reading.identity.presentation_intent,
        spacing_source=reading.identity.spacing_source,
        seconds=seconds,
        rows=_rows(plan, reading).pack(),
        written=tuple(written),
        pictures=tuple(name for name, _ in drawn) if mammogram is not None else None,
    )


def _reading_of(
    plan: Plan, task: Task, buffers: Buffers | None, seconds: dict[str, float]
) -> tuple[Reading, Mammogram | None]:
    """Return the Reading of a file, saved or new, and the mammogram if pictures are due."""
    from detector.pipeline import analyse, regroup

    saved = _saved(plan, task)
    if saved is not None:
        saved = regroup(saved, plan.settings)
        saved = dataclasses.replace(saved, identity=dataclasses.replace(saved.identity, path=task.shown))
        if not (plan.draws and task.draw):
            return saved, None
    mammogram = _read(plan, task, seconds)
    if saved is not None and mammogram.identity.sha256 == task.sha256:
        return saved, mammogram
    # the file is new, or its size and time have deceived
    reading = analyse(mammogram, plan.settings, buffers)
    seconds |= reading.seconds
    return reading, mammogram if plan.draws else None


def _rows(plan: Plan, reading: Reading) -> Rows:
    return Rows(
        list(image_row(reading, plan.settings.cluster.min_confidence)),
        [list(row) for row in spot_rows(reading, plan.listed_confidence)],
        [list(row) for row in cluster_rows(reading)],
    )


def _saved(plan: Plan, task: Task) -> Reading | None:
    """Return the Reading of an earlier run, if the file is still the one that it was made of."""
    if not task.reading:
        return None
    if not task.unchanged:
        with task.path.open("rb") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() != task.sha256:
                return None
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        reading = Reading.from_json((plan.folder / task.reading).read_text("utf-8"))
        return reading if reading.identity.sha256 == task.sha256 else None
    return None


def _read(plan: Plan, task: Task, seconds: dict[str, float]) -> Mammogram:
    from detector.read import read_mammogram

    with _timed(seconds, "read"):
        mammogram = read_mammogram(
            task.path,
            task.spacing_mm,
            plan.settings.read,
            frame=task.frame,
            force_spacing=plan.force_spacing,
        )
    return dataclasses.replace(mammogram, identity=shown_identity(mammogram.identity, plan, task))


def shown_identity(identity: Identity, plan: Plan, task: Task) -> Identity:
    """Return the identity with the path and the names that the results show."""
    identity = dataclasses.replace(identity, path=task.shown)
    if not plan.secret:
        return identity
    return dataclasses.replace(
        identity,
        image_id=pseudonym(plan.secret, identity.image_id),
        study_uid=pseudonym(plan.secret, identity.study_uid),
        exposure_id=pseudonym(plan.secret, identity.exposure_id),
    )


def pseudonym(secret: bytes, text: str) -> str:
    """Return a name for the text that nobody without the key can trace back: HMAC-SHA256, 32 hexadecimal digits."""
    return hmac.new(secret, os.fsencode(text), "sha256").hexdigest()[:32] if text else ""


def _draw(plan: Plan, mammogram: Mammogram, reading: Reading) -> Iterator[tuple[str, bytes]]:
    from detector.export.pictures import draw_crops, draw_overlay, encode_png

    if plan.pictures == "none" or (plan.pictures == "findings" and not _has_findings(reading, plan.settings)):
        return
    stem = file_stem(reading.identity.image_id)
    if plan.overlays:
        yield f"overlays/{stem}.png", encode_png(draw_overlay(mammogram, reading))
    if plan.crops:
        for cluster_id, picture in draw_crops(mammogram, reading):
            yield f"crops/{stem}_c{cluster_id}.png", encode_png(picture)
    if plan.pages:
        from detector.export.pages import draw_view

        yield f"report/pictures/{stem}.jpg", draw_view(mammogram, reading)


def draw_page_picture(plan: Plan, task: Task, reading: Reading) -> bytes:
    """Return the picture of an image for its review page, or nothing if its file is no longer the one analysed."""
    from detector.export.pages import draw_view

    try:
        mammogram = _read(plan, task, {})
    except (ReadError, OSError):
        return b""
    return draw_view(mammogram, reading) if mammogram.identity.sha256 == reading.identity.sha256 else b""


def _has_findings(reading: Reading, settings: Settings) -> bool:
    """Return whether there is a cluster, or a macrocalcification at the operating point."""
    counted = reading.spots.confidence >= settings.cluster.min_confidence
    return len(reading.clusters) > 0 or bool((counted & (reading.spots.kind == Kind.MACRO)).any())


def _write(plan: Plan, task: Task, name: str, content: bytes) -> tuple[str, str]:
    """Write a result under a temporary name, forced to the disk; return that name and the final one."""
    # a name of its own each time: a worker whose run was killed may be at the same file still
    partial = f"{PARTIAL}/{task.key}-{secrets.token_hex(8)}"
    try:
        with (plan.folder / partial).open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise ResultsNotWritten(error.strerror or type(error).__name__) from error
    return partial, name


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start


def _without_path(error: Exception, task: Task) -> str:
    """Return the message without the file's name, which is a cell of its own, and safe to print."""
    return printable(str(error).removeprefix(f"{task.path}: ").removeprefix(f"{task.shown}: "))


_TRIM_THRESHOLD, _MMAP_THRESHOLD, _LARGE = -1, -3, 2**30
"""Parameters of glibc's `mallopt`, and a size in bytes over that of any buffer of a mammogram."""


def keep_memory() -> bool:
    """Let this process use the memory of freed arrays again instead of giving it back: fresh pages cost their zeroing.

    Returns
    -------
    bool
        Whether it does: only where the C library is glibc.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        library = ctypes.CDLL(None)
        return all(library.mallopt(parameter, _LARGE) for parameter in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
    return False


@functools.cache
def _reused_buffers() -> Buffers | None:
    """Return this process's buffers; None where freed memory is used again, for pictures that are drawn as well."""
    return None if keep_memory() else Buffers()


def make_ready(*modules: str) -> str:
    """Import what a worker's tasks need, keep OpenCV to one thread, and keep memory; say what is missing."""
    try:
        import cv2

        for name in modules:
            importlib.import_module(name)
    except ImportError as error:
        return explain_missing(error)
    cv2.setNumThreads(1)
    keep_memory()
    return ""


def unforeseen(error: Exception) -> str:
    """Say where an unforeseen error arose, without its text, which may quote header values."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"unexpected {type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}; please report it"
