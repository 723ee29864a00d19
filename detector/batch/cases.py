"""The last stage: a review page for each case and the worklist over all, from tables and saved Readings."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detector.batch.find import MANIFEST, PROGRAM, is_result_folder
from detector.batch.manifest import code_hash, version_of
from detector.batch.pool import Limits, Lost
from detector.batch.work import Plan, Task, draw_page_picture, make_ready, unforeseen
from detector.errors import DetectorError, ExportError
from detector.export.files import file_stem, make_folder, printable, put_file, reading_name
from detector.records import Identity, Reading
from detector.settings import Settings

if TYPE_CHECKING:
    from detector.export.pages import CaseRow, Run

FORMAT = "report"
FOLDER = "report"
WORKLIST = "report.html"
PAGE_PICTURES = f"{FOLDER}/pictures"
_THUMBNAILS = f"{FOLDER}/thumbnails"
_KEY = f"{FOLDER}/key"
_HEAD_BYTES = 2000
_LOG = logging.getLogger(__name__)


Cluster = tuple[bool, float, str]
"""Whether it is flagged, its rank, and the reasons."""


@dataclass(frozen=True)
class CaseImage:
    """One image of a case: its row of images.csv, what its clusters' rows say, and how its file is read if need be."""

    image_id: str
    row: Mapping[str, str]
    clusters: tuple[Cluster, ...] = ()
    source: Task | None = None

    @property
    def counts(self) -> bool:
        """Whether the image counts in summaries."""
        return not self.row["excluded_reason"]

    @property
    def identity(self) -> Identity:
        """As much as a hanging needs."""
        modifiers = tuple(word for word in self.row["view_modifiers"].split("|") if word)
        side, view, path = self.row["side"], self.row["view"], self.row["path"]
        return Identity(self.image_id, path, side=side, view=view, view_modifiers=modifiers)


CasesById = dict[str, tuple[CaseImage, ...]]


@dataclass(frozen=True)
class CaseTask:
    """A case whose page is due: its images, and a hash of all that the page is made of."""

    case_id: str
    images: tuple[CaseImage, ...]
    stamp: str

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that must be readable: none, pages are made of what is in the result folder."""
        return ()


@dataclass(frozen=True)
class CaseOutcome:
    """Why the folder refuses, if it does, or why a page could not be made."""

    refused: str = ""
    failed: str = ""


@dataclass(frozen=True)
class CaseWork:
    """What the workers do with a case, as `pool.Work`."""

    plan: Plan
    run: Run

    def prepare(self) -> str:
        """Import what the tasks need; say what is missing."""
        return make_ready("detector.export.pages")

    def __call__(self, task: CaseTask, /) -> CaseOutcome:
        """Write the page of a case and its thumbnails."""
        try:
            self._write(task)
        except (ExportError, OSError) as error:
            return CaseOutcome(refused=str(error))
        except MemoryError:
            raise
        except Exception as error:
            return CaseOutcome(failed=unforeseen(error))
        return CaseOutcome()

    def _write(self, task: CaseTask) -> None:
        from detector.export.pages import Case, View, draw_thumbnails, hang, render_case

        folder = self.plan.folder
        views = []
        for image in task.images:
            reading = Reading.from_json((folder / reading_name(image.image_id)).read_text("utf-8"))
            views.append(
                View(reading, self._picture(image, reading), image.row["excluded_reason"], image.row["warnings"])
            )
        case = Case(task.case_id, views)
        shown = [i for row in hang([(v.reading.identity, not v.excluded) for v in views]) for i in row if i is not None]
        pictured = [(views[i].reading, views[i].picture) for i in shown if views[i].picture][:4]
        if pictured:
            put_file(folder / _THUMBNAILS / f"{case.stem}.jpg", draw_thumbnails(pictured))
        put_file(folder / FOLDER / f"{case.stem}.html", render_case(case, self.run, task.stamp).encode())

    def _picture(self, image: CaseImage, reading: Reading) -> bytes:
        """Return the picture that is there, or draw it from the image's file if that is known."""
        place = self.plan.folder / picture_name(image.image_id)
        if image.source is not None and (picture := draw_page_picture(self.plan, image.source, reading)):
            put_file(place, picture)
            return picture
        try:
            return place.read_bytes()
        except FileNotFoundError:
            return b""


def picture_name(image_id: str) -> str:
    """Return where in a result folder the picture of an image for its page lies."""
    return f"{PAGE_PICTURES}/{file_stem(image_id)}.jpg"


# --------------------------------------------------------------------------------------------------------------
# which cases there are


@dataclass
class Cases:
    """All cases of a result folder, as its tables tell them.

    Attributes
    ----------
    plan : Plan
        Its folder, settings, and which images get pictures: those of a case that has none are drawn where `sources`
        say how; without these, every case gets a page of which there is a picture.
    sources : mapping or None
        By image id, how the file of an image is read of which the run has drawn no picture.
    """

    plan: Plan
    sources: Mapping[str, Task] | None

    @property
    def folder(self) -> Path:
        """The result folder."""
        return self.plan.folder

    def write(
        self, runner: Callable[..., Iterator[tuple[Any, Any]]], limits: Limits, stopped: Callable[[], bool]
    ) -> int:
        """Write the pages that are due, by the workers of a run, and then the worklist; return how many pages.

        Raises
        ------
        DetectorError
            If the folder refuses, or holds no tables.
        """
        work = self.work()
        cases = read_cases(self.folder, self.sources)
        tasks = self.due(cases, work.run)
        if tasks:
            for task, outcome in runner(tasks, work, limits, stopped):
                if not isinstance(outcome, Lost) and outcome.refused:
                    raise ExportError(outcome.refused)
                if reason := outcome.message if isinstance(outcome, Lost) else outcome.failed:
                    _LOG.warning("no page of case %s: %s", printable(task.case_id), reason)
        self._remove_others({file_stem(case_id) for case_id in cases})
        self.write_worklist(cases)
        return len(tasks)

    def work(self) -> CaseWork:
        """Return what the workers do with a case."""
        make_folder(self.folder / FOLDER)
        return CaseWork(self.plan, _run(self.folder, self.plan.settings))

    def due(self, cases: Mapping[str, tuple[CaseImage, ...]], run: Run) -> list[CaseTask]:
        """Return a task for each of these cases whose page is not there yet as it must be."""
        return [task for case_id, images in cases.items() if (task := self._task(case_id, images, run))]

    def _remove_others(self, stems: set[str]) -> None:
        """Remove pages of cases that are in the tables no more: they may show other findings."""
        for place in (f"{FOLDER}/*.html", f"{_THUMBNAILS}/*.jpg"):
            for file in self.folder.glob(place):
                if file.stem not in stems:
                    file.unlink()

    def _task(self, case_id: str, images: tuple[CaseImage, ...], run: Run) -> CaseTask | None:
        page = self.folder / FOLDER / f"{file_stem(case_id)}.html"
        stamp = self._stamp(images, run)
        if self.sources is not None and stamp in _head(page):
            return None
        if self._covered(images):
            return CaseTask(case_id, images, stamp)
        if page.exists():  # of other findings
            page.unlink()
            (self.folder / _THUMBNAILS / f"{page.stem}.jpg").unlink(missing_ok=True)
        return None

    def _covered(self, images: Iterable[CaseImage]) -> bool:
        if self.sources is None:
            return any((self.folder / picture_name(image.image_id)).is_file() for image in images)
        found = any(image.row["n_clusters"] != "0" or image.row["n_macro"] != "0" for image in images)
        return self.plan.pictures == "all" or (self.plan.pictures == "findings" and found)

    def _stamp(self, images: Iterable[CaseImage], run: Run) -> str:
        facts: list[Any] = [code_hash(), run.version, run.key]
        for image in images:
            row = [image.row[name] for name in ("case_id", "excluded_reason", "warnings")]
            facts.append([image.image_id, *_size_and_time(self.folder / reading_name(image.image_id)), *row])
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def write_worklist(self, cases: Mapping[str, tuple[CaseImage, ...]]) -> None:
        """Write the worklist over the cases of `read_cases`.

        Raises
        ------
        OSError
            If the folder refuses.
        """
        from detector.export.pages import render_worklist

        rows = [self._row(case_id, images) for case_id, images in cases.items()]
        n_failed, n_skipped = (_count_rows(self.folder / f"{name}.csv") for name in ("errors", "skipped"))
        run = _run(self.folder, self.plan.settings)
        put_file(self.folder / WORKLIST, render_worklist(rows, run, n_failed, n_skipped).encode())

    def _row(self, case_id: str, images: tuple[CaseImage, ...]) -> CaseRow:
        from detector.export.pages import CaseRow, hang, level_of

        hung = [i for row in hang([(image.identity, image.counts) for image in images]) for i in row if i is not None]
        counting = [image for image in images if image.counts]
        clusters = [cluster for image in counting for cluster in image.clusters]
        flagged = [cluster for cluster in clusters if cluster[0]]
        suspicion = max((s for _, s, _ in flagged or clusters), default=0.0)
        sides = {i.row["side"] for i in counting if i.clusters} or {i.row["side"] for i in images}
        stem = file_stem(case_id)
        return CaseRow(
            case_id=case_id,
            study_date=max(image.row["study_date"] for image in images),
            views=tuple(" ".join(filter(None, (images[i].row["side"], images[i].row["view"]))) for i in hung),
            sides="".join(side for side in "RL" if side in sides or "B" in sides),
            n_review=len(flagged),
            n_clusters=len(clusters),
            n_micro=sum(int(image.row["n_micro"]) for image in counting),
            n_macro=sum(int(image.row["n_macro"]) for image in counting),
            level=level_of(suspicion, self.plan.settings.assess) if clusters else 0,
            suspicion=suspicion,
            reasons=tuple(r.replace("|", "; ") for _, _, r in sorted(flagged, key=lambda c: -c[1])),
            limits=tuple(sorted({w for i in images for w in i.row["quality"].split("|")} - {"", "good"})),
            paths=tuple(image.row["path"] for image in images),
            has_page=(self.folder / FOLDER / f"{stem}.html").is_file(),
            has_thumbnail=(self.folder / _THUMBNAILS / f"{stem}.jpg").is_file(),
        )


def _run(folder: Path, settings: Settings) -> Run:
    from detector.export.pages import Run

    place = folder / _KEY
    if not place.is_file():
        put_file(place, secrets.token_hex(8).encode())
    findings = settings.report_hash()[:8]
    version = f"{version_of(PROGRAM)} code {code_hash(rooms_alone=True)[:8]} settings {findings}"
    return Run(place.read_text("ascii").strip(), version.strip(), settings.cluster.operating_point)


def run_of(folder: Path) -> Run:
    """Return what the pages of a result folder share.

    Raises
    ------
    DetectorError
        As `settings_of` does.
    """
    return _run(folder, settings_of(folder))


def settings_of(folder: Path) -> Settings:
    """Return the settings that the results of a folder were made with.

    Raises
    ------
    DetectorError
        If the folder holds no results of this program.
    """
    if not is_result_folder(folder):
        raise DetectorError(f"{printable(str(folder))} holds no results of a run; give the --out of detector run")
    return Settings.from_mapping(json.loads((folder / MANIFEST).read_bytes())["settings"])


def images_of(folder: Path) -> tuple[Path, ...]:
    """Return the files and folders that the last run was given.

    Raises
    ------
    DetectorError
        If it has not, which pseudonyms forbid.
    """
    paths = json.loads((folder / MANIFEST).read_bytes()).get("paths", [])
    if not paths:
        raise DetectorError(f"{printable(str(folder))} does not say where its images lie: it was made with pseudonyms")
    return tuple(map(Path, paths))


_COLUMNS = (
    *("image_id", "path", "sha256", "case_id", "study_date", "side", "view", "view_modifiers"),
    *("n_micro", "n_macro", "n_clusters", "quality", "excluded_reason", "warnings"),
)


def read_cases(folder: Path, sources: Mapping[str, Task] | None = None) -> CasesById:
    """Return the images of each case, by case id, as images.csv and clusters.csv tell them.

    Raises
    ------
    DetectorError
        If the tables are not there or not ours.
    """
    clusters: dict[str, list[Cluster]] = {}
    try:
        for row in _rows(folder / "clusters.csv"):
            clusters.setdefault(row["image_id"], []).append(_cluster(row))
        return _cases(
            CaseImage(row["image_id"], _kept(row), tuple(clusters.get(row["image_id"], ())), source)
            for row in _rows(folder / "images.csv")
            for source in [(sources or {}).get(row["image_id"])]
        )
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise DetectorError(
            f"{folder} holds no tables images.csv and clusters.csv of a run; make them with"
            " detector run PATH --out DIR --formats csv,report"
        ) from error


def cases_of(rows: Iterable[tuple[Mapping[str, str], Iterable[Mapping[str, str]], Task | None]]) -> CasesById:
    """Return the images of each case, by case id, of rows of images.csv, each with its rows of clusters.csv."""
    return _cases(
        CaseImage(row["image_id"], _kept(row), tuple(map(_cluster, clusters)), source) for row, clusters, source in rows
    )


def _cases(images: Iterable[CaseImage]) -> CasesById:
    cases: dict[str, list[CaseImage]] = {}
    for image in images:
        cases.setdefault(image.row["case_id"] or image.image_id, []).append(image)
    return {case_id: tuple(images) for case_id, images in cases.items()}


def _kept(row: Mapping[str, str]) -> dict[str, str]:
    return {name: row[name] for name in _COLUMNS}


def _cluster(row: Mapping[str, str]) -> Cluster:
    return row["review"] == "true", float(row["suspicion"] or 0), row["reasons"]


def _rows(table: Path) -> Iterator[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as handle:
        yield from csv.DictReader(handle)


def _count_rows(table: Path) -> int:
    try:
        return sum(1 for _ in _rows(table))
    except OSError:
        return 0


def _size_and_time(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:  # the worker will say so
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _head(page: Path) -> str:
    try:
        with page.open("rb") as handle:
            return handle.read(_HEAD_BYTES).decode("ascii", "replace")
    except OSError:
        return ""
