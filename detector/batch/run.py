"""One run: what is due, what has come in, what is left in the result folder.

Files of results are moved to their places first and entered in the ledger after, so that a run that is killed anywhere
resumes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import os
import secrets
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from detector.batch.cases import FOLDER as REPORT
from detector.batch.cases import FORMAT, WORKLIST, Cases, CaseTask, cases_of, picture_name, read_cases
from detector.batch.early import AnyTask, Early, Groups, Known, RunWork
from detector.batch.find import (
    MANIFEST,
    RESULT_FOLDERS,
    Found,
    check_paths,
    find_inputs,
    is_result_folder,
    unmatched,
    value_of,
)
from detector.batch.ledger import ANALYSED, DUPLICATE, FAILED, SKIPPED, Entry, Ledger
from detector.batch.manifest import code_hash, now, write_manifest
from detector.batch.pool import Limits, Lost, Tasks, check_limits, run_locally
from detector.batch.studies import FOLDER, OBJECT_FORMATS, Studies, StudyTask, StudyWork, check_formats, study_of
from detector.batch.tabulate import TABLE_NAMES, Notes, Totals, excluded_images, image_cells, write_tables
from detector.batch.watch import watch
from detector.batch.work import PARTIAL, REFUSED, FileWork, Outcome, Plan, Task, pseudonym
from detector.errors import DetectorError, ExportError
from detector.export.files import PART, make_folder, printable, reading_name, sync_folder, whole_file
from detector.export.tables import CLUSTER_COLUMNS, IMAGE_COLUMNS
from detector.records import SpacingSource
from detector.settings import ReadSettings, Settings

FORMATS = ("csv", "json", "parquet", "overlay", "crops", FORMAT, *OBJECT_FORMATS)
_LEDGER, _LOCK, _SECRET = "ledger.sqlite", ".lock", "pseudonym.key"
_STUDY_UID = [column.name for column in IMAGE_COLUMNS].index("study_uid")
_CLUSTER_NAMES = tuple(column.name for column in CLUSTER_COLUMNS)
_COMMIT_S = 1.0
_TABLES_S = 600.0
_SECONDS_PER_IMAGE, _MEGABYTES_PER_PICTURE, _MEGABYTES_PER_READING = 2.0, 8.0, 1.0  # of a 13.6 Mpx image


@dataclass(frozen=True)
class Job:
    """What a run is asked to do.

    Attributes
    ----------
    paths : tuple of Path
        Files, and folders to be searched.
    out : Path
        The result folder.
    settings : Settings
    formats : frozenset of str
        Of `FORMATS`; Readings are saved in any case.
    pictures : str
        ``all``, ``findings`` or ``none``.
    limits : Limits
    min_confidence : float or None
        Confidence from which spots are listed; None takes the operating point's.
    spacing_mm : float or None
        For images that state none.
    spacings, cases : mapping
        By path, as `read_spacings` and `read_map` return them.
    force_spacing, pseudonymise, fresh : bool
    verify : bool
        Hash every file that is done, also where size and time say that it is unchanged.
    watch_s : float
        Seconds between two looks for new files; 0 looks once.
    command : tuple of str
        For the manifest.
    """

    paths: tuple[Path, ...]
    out: Path
    settings: Settings = field(default_factory=Settings)
    formats: frozenset[str] = frozenset({"csv", "json", "overlay", "crops"})
    pictures: str = "all"
    limits: Limits = field(default_factory=lambda: Limits(1))
    min_confidence: float | None = None
    spacing_mm: float | None = None
    spacings: Mapping[str, float] = field(default_factory=dict)
    cases: Mapping[str, str] = field(default_factory=dict)
    force_spacing: bool = False
    pseudonymise: bool = False
    fresh: bool = False
    verify: bool = False
    watch_s: float = 0.0
    command: tuple[str, ...] = ()

    @property
    def listed_confidence(self) -> float:
        """Confidence from which spots are listed."""
        return self.settings.cluster.min_confidence if self.min_confidence is None else self.min_confidence


@dataclass(frozen=True)
class Progress:
    """How far a run is: of the files `due` in this run, `done` are done; which was the last, and what became of it."""

    due: int
    done: int
    failed: int
    path: str = ""
    status: str = ""
    message: str = ""


@dataclass(frozen=True)
class Summary:
    """What a run ended with.

    `others` counts images of earlier runs on other paths, which are in no table now; `unmatched` the paths of the job's
    spacings and cases that are of no file.
    """

    totals: Totals
    stopped: bool
    others: int
    unmatched: int


@dataclass(frozen=True)
class Estimate:
    """What a run would do: files found, skipped unread, done already, due; seconds and megabytes that it may take."""

    found: int
    skipped: int
    done: int
    due: int
    seconds: float
    megabytes: float


Stopped = Callable[[], bool]
Tell = Callable[[Progress], None]
Runner = Callable[[Iterable[Any], Any, Limits, Stopped], Iterator[tuple[Any, Any]]]
"""Who does the work, as `pool.run_locally` does; tasks that are added meanwhile may be left to the end of the run."""


def run_batch(
    job: Job, tell: Tell = lambda _: None, stopped: Stopped = lambda: False, runner: Runner = run_locally
) -> Summary:
    """Analyse all that the job's paths hold and leave the results in its folder.

    Parameters
    ----------
    job : Job
    tell : callable
        Hears of every file that is done.
    stopped : callable
        Asked several times a second; True ends the run in good order, and the next one resumes.
    runner : callable
        Who does the work, as `pool.run_locally` does.

    Raises
    ------
    DetectorError
        If nothing can be done: a path is missing, the folder cannot be written, is in use or is someone else's.
    """
    # missing here is one sentence, missing in the workers a row a file
    importlib.import_module("cv2")
    check_limits(job.limits)
    check_formats(job.formats, job.pseudonymise)
    check_paths(job.paths, job.out)
    try:
        with locked(job.out):
            _make_ready(job)
            with contextlib.closing(Ledger(job.out / _LEDGER)) as ledger:
                return _Run(job, ledger, _secret(job, ledger)).go(tell, stopped, runner)
    except OSError as error:
        raise _not_written(job.out, error.strerror or type(error).__name__) from error
    except sqlite3.Error as error:
        raise _not_written(job.out, f"{_LEDGER}: {error}") from error


def _not_written(folder: Path, why: str) -> DetectorError:
    return DetectorError(
        f"the result folder {printable(str(folder))} cannot be written: {why};"
        " free space or choose another --out, then run the same command again"
    )


def estimate(job: Job) -> Estimate:
    """Say what a run would do, without writing anything.

    Raises
    ------
    DetectorError
        As `run_batch` does.
    """
    found = find_inputs(job.paths, job.out)
    files = [f for f in found if not (f.skipped or f.error)]
    due = files
    if (job.out / _LEDGER).is_file() and not job.fresh:
        with contextlib.closing(Ledger(job.out / _LEDGER)) as ledger:
            run = _Run(job, ledger, (job.out / _SECRET).read_bytes() if (job.out / _SECRET).is_file() else b"")
            paths_due = {task.path for task in run.plan(found)}
            due = [f for f in files if f.path in paths_due]
    pictures = 0 if job.pictures == "none" else len({"overlay", "crops", FORMAT} & job.formats)
    return Estimate(
        found=len(files),
        skipped=len(found) - len(files),
        done=len(files) - len(due),
        due=len(due),
        seconds=len(due) * _SECONDS_PER_IMAGE / max(1, min(job.limits.workers, len(due))),
        megabytes=len(due) * (_MEGABYTES_PER_READING + pictures * _MEGABYTES_PER_PICTURE),
    )


class _Run:
    """One run over one result folder: which files are settled, which image belongs to which file."""

    def __init__(self, job: Job, ledger: Ledger, secret: bytes) -> None:
        self._job, self._ledger, self._secret = job, ledger, secret
        self._hashes = _Hashes.of(job)
        self._found: dict[str, Found] = {}
        self._order: dict[str, int] = {}
        self._settled: set[str] = set()
        self._due, self._done = 0, Counter[str]()
        self._done_here: set[str] = set()
        self._owners = {e.image_id: e.key for e in ledger.entries.all() if e.status == ANALYSED}
        self._touched: set[Path] = set()
        self._committed = self._tabled = time.monotonic()
        self._studies = Studies(job.out.resolve(), check_formats(job.formats, job.pseudonymise))

    def go(self, tell: Tell, stopped: Stopped, runner: Runner) -> Summary:
        """Plan, work, tabulate; once, or look after look."""
        job, start = self._job, now()
        self._note(start, {})
        looks = watch(job.paths, job.out, job.watch_s, stopped) if job.watch_s else [find_inputs(job.paths, job.out)]
        for found in looks:
            self._do(self.plan(found), tell, stopped, runner)
            self._write_objects(stopped, runner)
            totals = self._tabulate()
            self._commit()
            self._write_pages(stopped, runner)
        shutil.rmtree(job.out / PARTIAL, ignore_errors=True)
        _sweep(job.out)
        others = sum(e.status == ANALYSED and e.key not in self._order for e in self._ledger.entries.all())
        counts = {k: v for k, v in dataclasses.asdict(totals).items() if isinstance(v, int)}
        counts["flagged_images"] = len(totals.flagged)
        whole = self._done.total() == self._due and not job.watch_s
        self._note(start, {"end": now(), "finished": whole, "counts": counts})
        unknown = sum(unmatched(values, self._found.values()) for values in (job.spacings, job.cases))
        return Summary(totals, not whole, others, unknown)

    def _do(self, tasks: list[Task], tell: Tell, stopped: Stopped, runner: Runner) -> None:
        """Do the tasks, and those of further frames that turn up meanwhile."""
        done = self._done
        work = self._work()
        groups = self._groups(tasks) if isinstance(work, RunWork) and tasks else None
        early = Early(groups, self._object_tasks, lambda keys: self._page_tasks(work, keys), self._studies.left_out)
        headers = groups.tasks if groups else []
        while True:
            self._due += len(tasks)
            tell(Progress(self._due, done.total(), done[FAILED]))
            frames: list[Task] = []
            waiting = Tasks[AnyTask]([*headers, *tasks])
            for task, outcome in runner(waiting, work, self._job.limits, stopped):
                if isinstance(task, Task):
                    entry = self._record(task, outcome)
                    frames += self._further_frames(entry, task)
                    done[entry.status] += 1
                    tell(Progress(self._due, done.total(), done[FAILED], entry.shown, entry.status, entry.message))
                further = list(early.heard(task, outcome))
                if not stopped():
                    waiting.extendleft(further)
                self._now_and_then()
            headers = []
            if not (tasks := frames):
                return

    def _work(self) -> FileWork | RunWork:
        """Return what the workers do: with files alone, or also with what is made of them."""
        files, formats, pages = FileWork(self._plan()), self._studies.formats, FORMAT in self._job.formats
        if not formats and not pages:
            return files
        studies = StudyWork(self._studies.folder, formats) if formats else None
        return RunWork(files, studies, Cases(files.plan, {}).work() if pages else None)

    def _plan(self) -> Plan:
        job = self._job
        return Plan(
            folder=job.out.resolve(),
            settings=job.settings,
            listed_confidence=job.listed_confidence,
            overlays="overlay" in job.formats,
            crops="crops" in job.formats,
            pages=FORMAT in job.formats,
            pictures=job.pictures,
            force_spacing=job.force_spacing,
            secret=self._secret,
        )

    # ---------------------------------------------------------------------------------------------- what is due

    def plan(self, found: list[Found]) -> list[Task]:
        """Return a task for every file that is not done, in the order of the tables."""
        gone = [] if not self._job.watch_s else self._kept(found)
        files = {self._key(f): f for f in sorted([*found, *gone], key=lambda f: (self._shown(f), os.fsencode(f.path)))}
        self._found = {}
        for key, file in files.items():
            self._found[key] = file
            for frame in _frames_of(self._ledger.entries.get(key), file):
                self._found[self._key(frame)] = frame
        self._order = {key: i for i, key in enumerate(self._found)}
        self._settled, duplicates = set(), dict[str, str]()
        for key, file in self._found.items():
            entry = self._ledger.entries.get(key)
            if entry is None or not self._stands(entry, file):
                continue
            if entry.status in (ANALYSED, SKIPPED) or key in self._done_here:  # what failed is tried again, once a run
                self._settled.add(key)
            elif entry.status == DUPLICATE:
                duplicates[key] = entry.image_id
        for key, image_id in duplicates.items():  # settled while the file that was taken before it is
            owner = self._owners.get(image_id)
            if owner in self._settled and self._order[owner] < self._order[key]:
                self._settled.add(key)
        tasks = [self._task(key, f) for key, f in self._found.items() if not (f.skipped or f.error)]
        return [task for task in tasks if task is not None]

    def _kept(self, found: list[Found]) -> list[Found]:
        """Return what this run has analysed and does not find any more: it stays in the tables."""
        there = {f.path for f in found}
        done = self._done_here & self._settled
        return [f for key, f in self._found.items() if not f.frame and key in done and f.path not in there]

    def _key(self, found: Found) -> str:
        """Return the name of an image in the ledger: a hash of its file's absolute path, and the frame."""
        if self._secret:
            name = pseudonym(self._secret, str(found.path))
        else:
            name = hashlib.sha256(os.fsencode(found.path)).hexdigest()[:32]
        return f"{name}-{found.frame}" if found.frame else name

    def _further_frames(self, entry: Entry, task: Task) -> Iterator[Task]:
        """Yield a task for each further frame of a file that has turned out to hold several."""
        for found in _frames_of(entry, self._found[task.key]):
            key = self._key(found)
            if key not in self._found:
                self._found[key] = found
                self._order[key] = self._order[task.key]  # its image id is of this file alone
                yield dataclasses.replace(task, key=key, frame=found.frame, sha256="", reading="")

    def _shown(self, found: Found) -> str:
        return pseudonym(self._secret, found.shown) if self._secret else found.shown

    def _spacing(self, found: Found) -> float | None:
        return value_of(self._job.spacings, found) or self._job.spacing_mm

    def _given(self, found: Found) -> str:
        spacing = self._spacing(found)
        return "" if spacing is None else f"{spacing!r}{'!' if self._job.force_spacing else ''}"

    def _same_spacing(self, entry: Entry, found: Found) -> bool:
        given = self._given(found)
        stated = entry.status in (ANALYSED, DUPLICATE) and not entry.given_spacing
        return entry.given_spacing == given or (stated and not given.endswith("!"))

    def _stands(self, entry: Entry, found: Found) -> bool:
        """Return whether what the ledger says of a file still holds, pictures aside."""
        if entry.detection != self._hashes.detection or found.skipped or found.error:
            return False
        if self._job.verify and entry.key not in self._done_here:
            return False
        if (entry.size, entry.mtime_ns) != (found.size, found.mtime_ns):
            return False
        if not self._same_spacing(entry, found):
            return False
        if entry.status != ANALYSED:
            return entry.shown == self._shown(found)
        return (self._job.out / reading_name(entry.image_id)).is_file()

    def _task(self, key: str, found: Found) -> Task | None:
        entry = self._ledger.entries.get(key)
        task = Task(key, found.path, self._shown(found), found.frame, self._spacing(found))
        settled = key in self._settled
        if entry is None or entry.status != ANALYSED:
            return None if settled else task
        # if it is not settled, the file was touched, but perhaps not changed
        if not settled and not (entry.detection == self._hashes.detection and self._same_spacing(entry, found)):
            return task
        whole = entry.pictures == self._hashes.pictures and all(
            (self._job.out / name).is_file() for name in entry.files
        )
        draw = bool(self._hashes.pictures) and not whole
        if settled and not draw and entry.tables == self._hashes.tables and entry.shown == task.shown:
            return None
        reading = reading_name(entry.image_id)
        return dataclasses.replace(task, sha256=entry.sha256, reading=reading, unchanged=settled, draw=draw)

    # ------------------------------------------------------------------------------------------ what has come in

    def _record(self, task: Task, outcome: Outcome | Lost) -> Entry:
        """Move the results of a file to their places and enter it in the ledger."""
        found, old = self._found[task.key], self._ledger.entries.get(task.key)
        if isinstance(outcome, Lost):
            outcome = Outcome(error=outcome.error, message=outcome.message)
        if outcome.status == REFUSED:
            raise _not_written(self._job.out, outcome.message)
        stated = outcome.status == ANALYSED and outcome.spacing_source != SpacingSource.GIVEN
        entry = Entry(
            key=task.key,
            shown=task.shown,
            size=found.size,
            mtime_ns=found.mtime_ns,
            given_spacing="" if stated else self._given(found),
            detection=self._hashes.detection,
            report=self._hashes.report,
            tables=self._hashes.tables,
            **outcome.finished(),
        )
        if old is not None and old.status == ANALYSED and old.image_id != entry.image_id:
            self._forget_image(old)
        if entry.status == ANALYSED:
            entry = self._take(entry, old, outcome) if self._claim(entry) else self._leave(entry, outcome)
        self._ledger.put(entry, outcome.rows if entry.status == ANALYSED else b"")
        self._settled.add(task.key)
        self._done_here.add(task.key)
        return entry

    def _claim(self, entry: Entry) -> bool:
        """Decide which of several files of one image id is taken: the first by path, whichever came in first."""
        owner = self._owners.get(entry.image_id, entry.key)
        if owner != entry.key:
            if owner in self._settled and self._order[owner] < self._order[entry.key]:
                return False
            loser = self._ledger.entries[owner]
            self._remove(loser.files)
            if owner in self._settled:
                self._ledger.put(dataclasses.replace(loser, status=DUPLICATE, files=(), pictures=""))
            else:  # a file of another run, or one that is still to be looked at again
                self._ledger.drop(owner)
        self._owners[entry.image_id] = entry.key
        return True

    def _take(self, entry: Entry, old: Entry | None, outcome: Outcome) -> Entry:
        kept = old if old is not None and old.image_id == entry.image_id else None
        files = outcome.pictures
        if files is None and kept is not None and kept.report == self._hashes.report:
            entry = dataclasses.replace(entry, files=kept.files, pictures=kept.pictures)
        else:
            self._remove(set(kept.files if kept else ()) - set(files or ()))
            entry = dataclasses.replace(
                entry, files=files or (), pictures=self._hashes.pictures if files is not None else ""
            )
        for partial, name in outcome.written:
            place = self._job.out / name
            make_folder(place.parent)
            (self._job.out / partial).replace(place)
            self._touched.add(place.parent)
        if kept is not None:
            entry = dataclasses.replace(entry, seconds={**kept.seconds, **entry.seconds})
        return entry

    def _leave(self, entry: Entry, outcome: Outcome) -> Entry:
        self._remove(partial for partial, _ in outcome.written)
        return dataclasses.replace(entry, status=DUPLICATE)

    def _forget_image(self, entry: Entry) -> None:
        """Remove what an earlier state of a file has left, unless another file owns the image now."""
        if self._owners.get(entry.image_id) == entry.key:
            del self._owners[entry.image_id]
            self._remove((*entry.files, reading_name(entry.image_id)))

    def _remove(self, names: Iterator[str] | set[str] | tuple[str, ...]) -> None:
        for name in names:
            (self._job.out / name).unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------- by study

    def _write_objects(self, stopped: Stopped, runner: Runner) -> None:
        """Make the DICOM objects that are still due, now that all files are done; a stopped run leaves them."""
        studies = self._studies
        if not studies.formats or stopped():
            return
        self._commit()  # the Readings are in their places
        tasks = self._object_tasks(self._found)
        work = StudyWork(studies.folder, studies.formats)
        for task, outcome in runner(tasks, work, self._job.limits, stopped):
            if isinstance(outcome, Lost):
                studies.left_out |= {i.key: [f"DICOM objects left out: {outcome.message}"] for i in task.images}
            elif outcome.refused:
                raise _not_written(self._job.out, outcome.refused)
            else:
                studies.left_out |= outcome.left_out

    def _object_tasks(self, keys: Iterable[str]) -> list[StudyTask]:
        """Return a task for each study of these files whose objects are due; they are all of their studies."""
        if not self._studies.formats:
            return []
        entries = self._ledger.entries
        ordered = sorted((key for key in keys if key in self._settled), key=self._order.__getitem__)
        there = [(entries[key], self._found[key].path) for key in ordered]
        analysed = [entry for entry, _ in there if entry.status == ANALYSED]
        uids = {entry.key: self._study_uid(entry) for entry in analysed}
        return self._studies.due(there, uids, excluded_images(analysed))

    def _study_uid(self, entry: Entry) -> str:
        return self._ledger.rows(entry.key).image[_STUDY_UID]

    def _page_tasks(self, work: FileWork | RunWork, keys: list[str]) -> list[CaseTask]:
        """Return a task for each case of these files whose page is due; they are all of their cases."""
        if not isinstance(work, RunWork) or work.cases is None:
            return []
        entries = [entry for key in keys if (entry := self._ledger.entries[key]).status == ANALYSED]
        entries.sort(key=lambda e: (e.shown, e.image_id))
        excluded, notes = excluded_images(entries), Notes(self._given_cases(keys), self._studies.left_out)
        rows = [
            (
                image_cells(entry.key, packed, excluded, notes),
                [dict(zip(_CLUSTER_NAMES, row, strict=True)) for row in packed.clusters],
                self._source(entry),
            )
            for entry in entries
            for packed in [self._ledger.rows(entry.key)]
        ]
        return Cases(work.files.plan, {}).due(cases_of(rows), work.cases.run)

    def _source(self, entry: Entry) -> Task | None:
        """Return how an image is read whose picture for its page the run has not drawn."""
        if picture_name(entry.image_id) in entry.files:
            return None
        found = self._found[entry.key]
        return Task(entry.key, found.path, self._shown(found), found.frame, self._spacing(found), draw=True)

    def _given_cases(self, keys: Iterable[str]) -> dict[str, str]:
        cases = self._job.cases
        return {key: case for key in keys if (case := value_of(cases, self._found[key]))} if cases else {}

    def _groups(self, tasks: list[Task]) -> Groups:
        """Return which files have to do with one another, as far as it is known before headers are read."""
        return Groups(tasks, self._known({task.key for task in tasks}), self._given_cases(self._found))

    def _known(self, due: set[str]) -> Iterator[tuple[str, Known]]:
        """Yield what is known of the files that are done."""
        for key in self._settled - due:
            entry = self._ledger.entries[key]
            if entry.status == ANALYSED:
                study_uid = self._study_uid(entry)
                yield key, Known.of(study_uid, entry.image_id, entry.exposure_id, entry.n_frames)
            elif entry.status == FAILED and self._studies.formats:
                yield key, Known.of_failed(study_of(self._found[key].path))
            elif entry.status == DUPLICATE:
                yield key, Known.of_duplicate(entry.image_id)

    def _write_pages(self, stopped: Stopped, runner: Runner) -> None:
        """Write the review pages that are still due and the worklist, now that the tables are there."""
        job = self._job
        if FORMAT not in job.formats or stopped():
            return
        sources: dict[str, Task] = {}
        for key in self._found:
            entry = self._ledger.entries.get(key)
            if entry is not None and entry.status == ANALYSED and (source := self._source(entry)):
                sources[entry.image_id] = source
        try:
            Cases(self._plan(), sources).write(runner, job.limits, stopped)
        except ExportError as error:
            raise _not_written(job.out, str(error)) from error

    # ---------------------------------------------------------------------------------------------- what is left

    def _now_and_then(self) -> None:
        moment = time.monotonic()
        if moment - self._committed > _COMMIT_S:
            self._commit()
        if moment - self._tabled > _TABLES_S:
            self._tabulate()
            if FORMAT in self._job.formats:
                Cases(self._plan(), None).write_worklist(read_cases(self._job.out))

    def _commit(self) -> None:
        for folder in sorted(self._touched):
            sync_folder(folder)
        self._touched.clear()
        self._ledger.commit()
        self._committed = time.monotonic()

    def _tabulate(self) -> Totals:
        entries: list[Entry] = []
        for key, found in self._found.items():
            if found.skipped:
                entries.append(Entry(key=key, shown=self._shown(found), status=SKIPPED, message=found.skipped))
            elif found.error:
                entries.append(Entry(key=key, shown=self._shown(found), error="ReadError", message=found.error))
            elif key in self._settled:
                entry = self._ledger.entries[key]
                if entry.status != ANALYSED or entry.tables == self._hashes.tables:
                    entries.append(entry.bare())
        notes = Notes(self._given_cases(self._found), self._studies.left_out)
        # pages are made of the tables
        formats = self._job.formats | ({"csv"} if FORMAT in self._job.formats else set())
        totals = write_tables(self._job.out, self._ledger, entries, notes, formats)
        self._tabled = time.monotonic()
        return totals

    def _note(self, start: str, values: Mapping[str, object]) -> None:
        job = self._job
        command = ["(not kept: --pseudonymise)"] if job.pseudonymise else [printable(word) for word in job.command]
        write_manifest(
            job.out,
            {
                "settings": job.settings.to_mapping(),
                "formats": sorted(job.formats),
                "pictures": job.pictures,
                "min_confidence": job.min_confidence,
                "workers": job.limits.workers,
                "paths": [] if job.pseudonymise else [str(path.absolute()) for path in job.paths],
                "command": command,
                "start": start,
                "end": None,
                "finished": False,
                **values,
            },
        )


def _frames_of(entry: Entry | None, file: Found) -> Iterator[Found]:
    """Yield the further frames of a file that an entry is of."""
    if entry is not None and not file.frame:
        for frame in range(2, entry.n_frames + 1):
            yield dataclasses.replace(file, frame=frame)


@dataclass(frozen=True)
class _Hashes:
    """What detection, the Reading, its table rows and its pictures depend on; the last is empty if none are due."""

    detection: str
    report: str
    tables: str
    pictures: str

    @classmethod
    def of(cls, job: Job) -> Self:
        # the largest image that is decoded decides what is refused, and refusals are tried again anyway
        any_size = dataclasses.replace(job.settings.read, max_megapixels=ReadSettings().max_megapixels)
        settings = dataclasses.replace(job.settings, read=any_size)
        report = f"{settings.report_hash()} {code_hash()}"
        asked = sorted({"overlay", "crops", FORMAT} & job.formats) if job.pictures != "none" else []
        return cls(
            f"{settings.detection_hash()} {code_hash(rooms_alone=True)}",
            report,
            f"{report} {job.listed_confidence!r}",
            " ".join([report, job.pictures, *asked]) if asked else "",
        )


# --------------------------------------------------------------------------------------------------------------
# the result folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder, and hold it against a second run; where the system has no `flock`, nothing is held."""
    make_folder(folder)
    with (folder / _LOCK).open("ab") as handle:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass
        except BlockingIOError as error:
            raise DetectorError(
                f"{printable(str(folder))} is in use by another run; wait for it, or choose another --out"
            ) from error
        yield


def _sweep(out: Path) -> None:
    """Remove what processes that were killed have left half written."""
    for place in (".", f"{FOLDER}/*", REPORT, f"{REPORT}/*"):
        for left in out.glob(f"{place}/.*{PART}"):
            left.unlink()


def _make_ready(job: Job) -> None:
    """Make the sub-folders; start afresh if asked to; never touch files that are not ours.

    Raises
    ------
    DetectorError
        If the folder holds things of our names from elsewhere.
    """
    out = job.out
    ours = is_result_folder(out) or (out / _LEDGER).is_file()
    names = (*TABLE_NAMES, WORKLIST, *RESULT_FOLDERS, PARTIAL, _LEDGER, f"{_LEDGER}-journal")
    there = [name for name in names if (out / name).exists()]
    if (there or (out / MANIFEST).exists()) and not ours:
        raise DetectorError(
            f"{printable(str(out))} holds {[*there, MANIFEST][0]}, which is not of this program; choose another --out"
        )
    if job.fresh or not there:  # it tells that the folder is ours, whenever this is killed
        write_manifest(out, {"finished": False})
    _sweep(out)
    for name in there if job.fresh else [PARTIAL]:
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        else:
            (out / name).unlink(missing_ok=True)
    if job.fresh and not job.pseudonymise:
        (out / _SECRET).unlink(missing_ok=True)
    for name in (PARTIAL, *RESULT_FOLDERS):
        if name not in (FOLDER, REPORT):  # made with the first object, the first page
            make_folder(out / name)


def _secret(job: Job, ledger: Ledger) -> bytes:
    """Return the key of the pseudonyms, made at the first run; empty if none are asked for.

    Raises
    ------
    DetectorError
        If the folder holds results with pseudonyms and none are asked for, or the other way round.
    """
    file = job.out / _SECRET
    if bool(ledger.entries) and file.is_file() != job.pseudonymise:
        was = "with" if file.is_file() else "without"
        raise DetectorError(f"{printable(str(job.out))} was written {was} --pseudonymise; use --fresh or another --out")
    if not job.pseudonymise:
        return b""
    if not file.is_file():
        with whole_file(file, mode=0o600) as handle:
            handle.write(secrets.token_bytes(32))
    return file.read_bytes()
