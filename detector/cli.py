"""The command ``detector``; the only module that prints."""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Self

import typer

from detector.errors import DetectorError, explain_missing, extra_missing

if TYPE_CHECKING:
    from detector.batch import Estimate, Job, Progress, Summary
    from detector.batch.run import Runner
    from detector.batch.tabulate import Totals
    from detector.evaluate.phantoms import Recipe
    from detector.export.dicom.send import CStore
    from detector.records import Identity
    from detector.review import Store
    from detector.settings import Settings

NOT_A_DIAGNOSIS = "Flags for a radiologist's review. Not a diagnosis; other signs of disease were not looked for."
_PLAIN_EVERY_S = 10.0
_WATCH_EVERY_S = 5.0
_MOST_NAMED = 10

app = typer.Typer(
    name="detector",
    help="Finds calcifications on mammograms and flags groups of them for a radiologist's review; never diagnoses.",
    epilog="Example: detector run mammograms/ --out results",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class OperatingPoint(enum.StrEnum):
    """Which spots count."""

    SENSITIVE = "sensitive"
    BALANCED = "balanced"
    SPECIFIC = "specific"


class Pictures(enum.StrEnum):
    """Which images get pictures."""

    ALL = "all"
    FINDINGS = "findings"
    NONE = "none"


class Side(enum.StrEnum):
    """Side of a phantom."""

    LEFT = "L"
    RIGHT = "R"


class View(enum.StrEnum):
    """View of a phantom."""

    CC = "CC"
    MLO = "MLO"


def main() -> None:
    """Run the command; end with its exit status."""
    try:
        app()
    except DetectorError as error:
        typer.echo(f"detector: {error}", err=True)
        sys.exit(2)
    except ImportError as error:
        typer.echo(f"detector: {explain_missing(error)}", err=True)
        sys.exit(2)
    except BrokenPipeError:  # the reader of our output has gone: detector settings | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _version(wanted: bool) -> None:
    if wanted:
        from detector.batch.find import PROGRAM
        from detector.batch.manifest import version_of

        typer.echo(f"{PROGRAM} {version_of(PROGRAM) or '(not installed)'}")
        raise typer.Exit


@app.callback()
def _detector(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command(
    short_help="Analyse mammograms; leave tables, pictures and pages.",
    epilog="Example: detector run mammograms/ --out results --workers 4",
)
def run(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Files, or folders that are searched to the bottom; DICOM is known by content, not by name.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of the results; made if missing.", show_default=False)
    ],
    workers: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Local processes.", show_default="the CPUs available")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A running dask scheduler (tcp://host:port) whose workers do the work instead.",
            show_default=False,
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="Settings; `detector settings` shows all. Flags come before the file.",
            show_default=False,
        ),
    ] = None,
    spacing_mm: Annotated[
        float | None, typer.Option(metavar="X", help="Pixel spacing of images that state none.", show_default=False)
    ] = None,
    spacing_map: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="The same by file: path,spacing_mm.", show_default=False)
    ] = None,
    force_spacing: Annotated[
        bool, typer.Option("--force-spacing", help="Let a given spacing override a stated one.")
    ] = False,
    operating_point: Annotated[
        OperatingPoint | None, typer.Option(help="Which spots count.", show_default="balanced")
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="X",
            help="Lowest confidence in spots.csv; 0 lists every candidate kept.",
            show_default="the operating point's",
        ),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            metavar="LIST", help="Of csv,json,parquet,overlay,crops,report and, as DICOM objects, sr,tid1500,gsps,seg."
        ),
    ] = "csv,json,overlay,crops,report",
    pictures: Annotated[Pictures, typer.Option(help="Which images get pictures.")] = Pictures.ALL,
    cases: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Which images belong together: path,case_id.", show_default="by study"),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="S", help="Longest time for one file, in seconds.")
    ] = 600.0,
    max_megapixels: Annotated[
        float | None, typer.Option(metavar="N", help="Largest image that is decoded.", show_default="150")
    ] = None,
    memory_limit: Annotated[
        int | None, typer.Option(min=200, metavar="MB", help="Most memory of a worker (Linux).", show_default="none")
    ] = None,
    log_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Log, a line a file.", show_default=False)
    ] = None,
    pseudonymise: Annotated[
        bool, typer.Option("--pseudonymise", help="Hash paths and UIDs with a key that is kept in DIR/pseudonym.key.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume/--fresh", help="Do only what is not done, or all anew.")] = True,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash what is done, though its size and time are unchanged.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep looking, take files once they are complete; Ctrl-C or SIGTERM ends.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count, and estimate time and disk; write nothing.")
    ] = False,
) -> None:
    """Analyse mammograms and leave tables, overlay pictures and magnified crops in DIR.

    A second run with the same DIR does only what is not done yet; other formats, pictures or another operating point
    repeat no detection.

    Exit status: 0 all analysed; 1 some or all failed (DIR/errors.csv); 2 nothing could be done; 130 or 143 stopped.
    """
    from detector.batch import Job, Limits, estimate, read_map, read_spacings

    if cluster is not None and workers is not None:
        raise typer.BadParameter("give either --workers, of this machine, or --cluster", param_hint="--cluster")
    job = Job(
        paths=tuple(paths),
        out=out,
        settings=_settings(settings, operating_point, max_megapixels),
        formats=_formats(formats),
        pictures=pictures.value,
        limits=Limits(workers or _cpus(), timeout, memory_limit or 0),
        min_confidence=min_confidence,
        spacing_mm=_spacing(spacing_mm),
        spacings=read_spacings(spacing_map) if spacing_map else {},
        cases=read_map(cases, "case_id") if cases else {},
        force_spacing=force_spacing,
        pseudonymise=pseudonymise,
        fresh=not resume,
        verify=verify,
        watch_s=_WATCH_EVERY_S if watch else 0.0,
        command=("detector", *sys.argv[1:]),
    )
    if dry_run:
        _show_estimate(estimate(job), job)
        return
    runner = _runner(cluster, out)
    with _logging(log_file):
        raise typer.Exit(_run(job, quiet, runner))


@app.command(
    short_help="Show what is read from a file.",
    epilog="Example: detector info image.dcm",
)
def info(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Mammogram: DICOM, PNG, TIFF or PGM.", show_default=False)
    ],
    spacing_mm: Annotated[
        float | None, typer.Option(metavar="X", help="Pixel spacing if the file states none.", show_default=False)
    ] = None,
) -> None:
    """Show what is read from a file: side, view, spacing and its source, quality."""
    from detector.pipeline import analyse
    from detector.read import read_mammogram

    reading = analyse(read_mammogram(file, _spacing(spacing_mm)))
    for name, value in _facts(reading.identity):
        typer.echo(f"{name + ':':24}{value}")
    typer.echo(f"{'breast:':24}{reading.breast_area_cm2:.0f} cm2")
    typer.echo(f"{'quality:':24}{reading.quality.replace('|', ', ')}")


@app.command(
    short_help="Show all settings as TOML.",
    epilog="Example: detector settings > mine.toml; detector run mammograms/ --out results --settings mine.toml",
)
def settings() -> None:
    """Show all settings as TOML, each with its meaning, unit, range and the source of its default."""
    from detector.settings import Settings

    typer.echo(Settings().to_toml(), nl=False)


@app.command(
    short_help="Write computed mammograms with their truth.",
    epilog="Example: detector phantom --out phantoms --seed 1 --number 4",
)
def phantom(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder; made if missing.", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same phantom.")] = 1,
    number: Annotated[int, typer.Option(min=1, help="How many; each takes the next seed.")] = 1,
    side: Annotated[Side, typer.Option(help="Side of the breast.")] = Side.LEFT,
    view: Annotated[View, typer.Option(help="View of the breast.")] = View.CC,
) -> None:
    """Write mammograms of breasts that never were, as DICOM, each with its truth as CSV."""
    from detector.evaluate.phantoms import Recipe
    from detector.export.files import check_folder

    check_folder(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for this in range(seed, seed + number):
            _write_phantom(out, this, Recipe(side=side.value, view=view.value))
    except OSError as error:
        raise DetectorError(f"{_printable(out)} cannot be written: {error.strerror}; choose another --out") from error


@app.command(
    short_help="Measure accuracy on a data set whose truth is known.",
    epilog="Example: detector evaluate mini-mias all-mias/ --out evaluation",
)
def evaluate(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET",
            help="inbreast, cbis-ddsm, mini-mias, vindr-mammo, cmmd, kios, or marks (your own table).",
        ),
    ],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of the set, or your table of marks.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the report.", show_default=False)],
    findings: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Score these tables instead: a folder or CSV file.", show_default=False),
    ] = None,
    zones: Annotated[
        Path | None,
        typer.Option(metavar="FILE.csv", help="Zones to ignore and reference masks, as marks.", show_default=False),
    ] = None,
    spacing_mm: Annotated[
        float | None,
        typer.Option(metavar="X", help="Pixel spacing of images that state none.", show_default="the set's"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Local processes.", show_default="the CPUs available")
    ] = None,
    skip_missing: Annotated[bool, typer.Option("--skip-missing", help="Pass over listed images not there.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
) -> None:
    """Say how well calcifications are found on a data set whose truth is known: DIR/report.html and tables.

    The images are analysed into DIR/run, which resumes; or the findings of any program are scored, if they have the
    columns of spots.csv or clusters.csv. Pictures of the set stay in DIR.

    Exit status: as of `detector run`.
    """
    from detector.evaluate.froc import check_matplotlib
    from detector.evaluate.report import write_report
    from detector.evaluate.results import evaluate_study
    from detector.evaluate.study import plan_run, read_images, study_of_findings, study_of_run
    from detector.export.files import check_folder

    check_matplotlib()
    check_folder(out)
    images, status = read_images(dataset, path, zones, skip_missing=skip_missing), 0
    if findings is None:
        with _logging(None):
            status = _run(plan_run(dataset, images, out / "run", workers or _cpus(), _spacing(spacing_mm)), quiet)
        if status not in (0, 1):
            raise typer.Exit(status)
        study = study_of_run(dataset, images, out / "run")
    else:
        study = study_of_findings(dataset, images, findings, _spacing(spacing_mm))
    page = write_report(study, evaluate_study(study), out, " ".join(["detector", *map(_printable, sys.argv[1:])]))
    typer.echo(_printable(page))
    raise typer.Exit(status)


@app.command(
    short_help="Make the review pages of a run anew.",
    epilog="Example: detector report results",
)
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Result folder.", show_default=False)],
    workers: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Local processes.", show_default="the CPUs available")
    ] = None,
) -> None:
    """Make DIR/report.html and the review pages anew, from tables and Readings; no image is decoded.

    Cases without pictures get no page; `detector run` with the format report makes both.
    """
    from detector.batch import Limits, rebuild_report

    with _Stop() as stop:
        pages = rebuild_report(folder, Limits(workers or _cpus(), 600.0), stop)
    typer.echo(f"{_counted(pages, 'page')} and {_printable(folder / 'report.html')}")
    if stop.signal:
        raise typer.Exit(128 + stop.signal)


@app.command(
    short_help="Serve the review pages of a run; keep decisions.",
    epilog="Example: detector review results",
)
def review(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Result folder.", show_default=False)],
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; beyond this machine only with a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8765,
    token: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            envvar="DETECTOR_REVIEW_TOKEN",
            help="What a browser must bring, 16 characters or more.",
            show_default=False,
        ),
    ] = "",
    blind: Annotated[
        bool, typer.Option("--blind", help="Hide findings until the reader has recorded his own opinion.")
    ] = False,
    show_identity: Annotated[
        bool, typer.Option("--show-identity", help="Read the patient from the headers for the screen; store nothing.")
    ] = False,
    import_from: Annotated[
        Path | None,
        typer.Option(
            "--import", metavar="FILE", help="Add the decisions of a decisions.csv first.", show_default=False
        ),
    ] = None,
    export_to: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Write all decisions as CSV, and end.", show_default=False),
    ] = None,
) -> None:
    """Serve the review pages of DIR to browsers on this machine, and keep decisions in DIR/decisions.sqlite.

    A decision is never overwritten; readers see each other's decisions after their own. Ctrl-C ends.
    """
    from detector.batch.cases import settings_of
    from detector.review import STORE, Store, read_decisions, write_decisions

    settings_of(folder)
    store = Store(folder / STORE)
    if import_from is not None:
        added = store.add(read_decisions(import_from))
        typer.echo(f"{_counted(len(added), 'decision')} of {_printable(import_from)}")
    if export_to is not None:
        kept = [decision for decision, _ in store.all()]
        write_decisions(export_to, kept)
        typer.echo(f"{_counted(len(kept), 'decision')} in {_printable(export_to)}")
        return
    _serve(folder, store, (host, port, token), blind, show_identity)


@app.command(
    short_help="Send the DICOM objects of a run to a PACS.",
    epilog="Example: detector send results --to pacs.example:104 --aet PACS",
)
def send(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Result folder.", show_default=False)],
    to: Annotated[
        str | None, typer.Option("--to", metavar="HOST:PORT", help="PACS to send to by C-STORE.", show_default=False)
    ] = None,
    aet: Annotated[str, typer.Option(metavar="AET", help="Application entity title of the PACS.")] = "ANY-SCP",
    calling_aet: Annotated[str, typer.Option(metavar="AET", help="Our own title.")] = "DETECTOR",
    stow: Annotated[
        str | None, typer.Option(metavar="URL", help="DICOMweb service to send to instead.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume/--fresh", help="Send what was not stored yet, or all.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
) -> None:
    """Send the DICOM objects of a run to a PACS; a line an object, and DIR/sent.csv says what is stored.

    Exit status: 0 all are stored; 1 some were refused; 2 nothing could be done, or the PACS is out of reach.
    """
    from detector.export.dicom.send import Result, Stow, send_objects

    def tell(result: Result) -> None:
        name = _printable(result.file.relative_to(folder))
        if not result.stored:
            typer.echo(f"not stored {name}: {result.reason}", err=True)
        elif not quiet:
            typer.echo(f"{'stored before' if result.before else 'stored'} {name}")

    if (to is None) == (stow is None):
        raise typer.BadParameter("give either --to HOST:PORT or --stow URL", param_hint="--to")
    channel = Stow(stow) if stow is not None else _c_store(to or "", aet, calling_aet)
    results = send_objects(folder, channel, tell, fresh=not resume)
    stored = sum(result.stored for result in results)
    if not quiet:
        typer.echo(f"{stored} of {_counted(len(results), 'object')} stored in {channel.name}.")
    if stored < len(results):
        raise typer.Exit(1)


# --------------------------------------------------------------------------------------------------------------
# options


def _c_store(to: str, aet: str, calling_aet: str) -> CStore:
    from detector.export.dicom.send import CStore

    host, _, port = to.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise typer.BadParameter("must be HOST:PORT, for example localhost:4242", param_hint="--to")
    for title in (aet, calling_aet):
        if not title.strip() or len(title) > 16 or not title.isascii():
            raise typer.BadParameter("an application entity title has 1 to 16 plain letters", param_hint="--aet")
    return CStore(host.strip("[]"), int(port), aet, calling_aet)


def _settings(file: Path | None, operating_point: OperatingPoint | None, max_megapixels: float | None) -> Settings:
    """Return the settings: defaults, then the file, then the flags."""
    from detector.settings import Settings

    chosen = Settings()
    if file is not None:
        try:
            chosen = Settings.from_toml(file.read_text("utf-8"))
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or "it is no text in UTF-8"
            raise DetectorError(f"the settings {_printable(file)} cannot be read: {why}") from error
    flags: dict[str, dict[str, object]] = {}
    if operating_point is not None:
        flags["cluster"] = {"operating_point": operating_point.value}
    if max_megapixels is not None:
        flags["read"] = {"max_megapixels": max_megapixels}
    return Settings.from_mapping(flags, chosen)


def _formats(text: str) -> frozenset[str]:
    from detector.batch import FORMATS

    wanted = [word.strip() for word in text.split(",") if word.strip()]
    for word in wanted:
        if word not in FORMATS:
            raise typer.BadParameter(
                f"'{_printable(word)}' is not offered; there are {', '.join(FORMATS)}", param_hint="--formats"
            )
    if "parquet" in wanted:
        from detector.export.tables import import_pyarrow

        import_pyarrow()
    if not wanted:
        raise typer.BadParameter(f"name at least one of {', '.join(FORMATS)}", param_hint="--formats")
    return frozenset(wanted)


def _spacing(spacing_mm: float | None) -> float | None:
    if spacing_mm is not None and not 0 < spacing_mm < float("inf"):
        raise typer.BadParameter("must be a number of mm over 0", param_hint="--spacing-mm")
    return spacing_mm


def _cpus() -> int:
    """Return how many CPUs this process may use: what the scheduler grants, and what the container is limited to."""
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text("ascii").split()
        granted = min(granted, -(-int(quota) // int(period)))
    return max(1, granted)


# --------------------------------------------------------------------------------------------------------------
# review


def _serve(folder: Path, store: Store, listen: tuple[str, int, str], blind: bool, show_identity: bool) -> None:
    from detector.batch.cases import images_of
    from detector.review import Review, ReviewServer

    if not (folder / "report.html").is_file():
        raise DetectorError(
            f"{_printable(folder)} holds no review pages; detector report {_printable(folder)} makes them"
        )
    host, port, token = listen
    images = images_of(folder) if show_identity else ()
    served = Review(folder.resolve(), store, token, blind, show_identity, images)
    with _Stop() as stop:
        server = ReviewServer(served, host, port)
        server.start()
        typer.echo(f"{server.url}\nCtrl-C ends.")
        while not stop():
            time.sleep(0.1)
        server.stop()
    raise typer.Exit(128 + stop.signal)


# --------------------------------------------------------------------------------------------------------------
# a run


class _Stop:
    """Hears Ctrl-C and SIGTERM while it is entered: the first ends the run in good order, the second at once."""

    def __init__(self) -> None:
        self.signal = 0

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self.signal:
            os._exit(128 + number)
        self.signal = number

    def __call__(self) -> bool:
        return bool(self.signal)


def _runner(cluster: str | None, out: Path) -> Runner:
    """Return who does the work: processes of this machine, or a cluster."""
    if cluster is None:
        from detector.batch.pool import run_locally

        return run_locally
    try:
        from detector.batch.cluster import Cluster
    except ImportError as error:
        raise DetectorError(extra_missing("--cluster", "dask.distributed", "cluster")) from error
    return Cluster(cluster, out)


def _run(job: Job, quiet: bool, runner: Runner | None = None) -> int:
    from detector.batch import run_batch

    with _Stop() as stop, _progress(quiet) as tell:

        def hear(progress: Progress) -> None:
            _log(progress)
            tell(progress)

        summary = run_batch(job, hear, stop, runner or _runner(None, job.out))
    logging.getLogger("detector").info("end: %d analysed, %d failed", summary.totals.analysed, summary.totals.failed)
    if not quiet:
        _show_summary(summary, job)
    if summary.stopped and stop.signal:
        return 128 + stop.signal
    if summary.totals.failed:
        return 1
    if not summary.totals.analysed:
        typer.echo(f"detector: no {_why_nothing(summary.totals, job)}", err=True)
        return 2
    return 0


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show rate and time left on stderr: a bar on a terminal, else a line now and then."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar() as tell:
            yield tell
    else:
        yield _Lines()


@contextlib.contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task, start = bar.add_task("", total=None, rate=""), time.monotonic()

        def tell(progress: Progress) -> None:
            rate = _rate(progress, start)
            bar.update(task, total=progress.due, completed=progress.done, rate=f"{rate}, {progress.failed} failed")

        yield tell


class _Lines:
    def __init__(self) -> None:
        self._start = self._last = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last < _PLAIN_EVERY_S or not progress.done:
            return
        self._last = now
        left = (now - self._start) / progress.done * (progress.due - progress.done)
        typer.echo(
            f"{progress.done} of {_counted(progress.due, 'file')}, {progress.failed} failed,"
            f" {_rate(progress, self._start)}, about {_duration(left)} left",
            err=True,
        )


def _rate(progress: Progress, start: float) -> str:
    if not progress.done:
        return "starting"
    return f"{progress.done / max(1e-3, time.monotonic() - start):.2g} files/s"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextlib.contextmanager
def _logging(file: Path | None) -> Iterator[None]:
    """Send the log to a file, if one is asked for; without one there is none."""
    logger = logging.getLogger("detector")
    logger.propagate = False
    try:
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(file, encoding="utf-8") if file is not None else logging.NullHandler()
    except OSError as error:
        raise DetectorError(f"the log {_printable(file)} cannot be written: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def _log(progress: Progress) -> None:
    if progress.path:
        level = logging.WARNING if progress.status == "failed" else logging.INFO
        message = f": {progress.message}" if progress.message else ""
        logging.getLogger("detector").log(level, "%s %s%s", progress.status, progress.path, message)
    else:
        logging.getLogger("detector").info("start: %s to do", _counted(progress.due, "file"))


def _show_summary(summary: Summary, job: Job) -> None:
    totals, out = summary.totals, _printable(job.out)
    if totals.analysed:
        _show_findings(totals, job)
    elif summary.stopped:
        typer.echo("No mammogram was analysed yet.")
    elif totals.failed:
        typer.echo(f"No {_why_nothing(summary.totals, job)}.")
    if summary.unmatched:
        typer.echo(f"No file was found for {_counted(summary.unmatched, 'path')} of --cases or --spacing-map.")
    if summary.others:
        typer.echo(
            f"{out} also holds {_counted(summary.others, 'image')} of earlier runs on other paths, now in no table."
        )
    if summary.stopped:
        typer.echo("Stopped before the end; the same command resumes.")
    if totals.analysed:
        typer.echo(NOT_A_DIAGNOSIS)


def _show_findings(totals: Totals, job: Job) -> None:
    out = _printable(job.out)
    typer.echo(f"{totals.analysed} analysed, {totals.failed} failed, {totals.skipped} skipped.")
    if totals.excluded:
        typer.echo(f"Not counted below: {_counted(totals.excluded, 'further image')} of the same exposures.")
    clusters, images = _counted(totals.clusters, "cluster"), _counted(len(totals.flagged), "image")
    typer.echo(f"{totals.review_clusters} of {clusters} flagged, on {images}.")
    for path in totals.flagged[:_MOST_NAMED]:
        typer.echo(f"  {path}")
    if len(totals.flagged) > _MOST_NAMED:
        typer.echo(f"  and {len(totals.flagged) - _MOST_NAMED} more: review in {out}/clusters.csv")
    places = [
        name
        for name in ("report.html", "images.csv", "clusters.csv", "spots.csv", "overlays", "crops", "dicom")
        if (job.out / name).exists()
    ]
    typer.echo(f"Results: {', '.join(places)} in {out}")
    if totals.failed:
        typer.echo(f"What failed, and why: {out}/errors.csv")


def _why_nothing(totals: Totals, job: Job) -> str:
    """Return the end of a sentence, after its "no": what became of the files of a run that has analysed none."""
    parts = [
        f"{number} {became} ({_printable(job.out / table)} says why)"
        for number, became, table in (
            (totals.failed, "failed", "errors.csv"),
            (totals.skipped, "skipped", "skipped.csv"),
        )
        if number
    ]
    return f"mammogram was {'analysed' if totals.failed else 'found'}: {', '.join(parts) or 'there are no files'}"


def _show_estimate(estimate: Estimate, job: Job) -> None:
    typer.echo(f"{_counted(estimate.found, 'file')}, {_counted(estimate.skipped, 'other thing')} skipped.")
    typer.echo(f"{estimate.done} done already, {estimate.due} to do.")
    typer.echo(
        f"About {_duration(estimate.seconds)} with {_counted(job.limits.workers, 'worker')} and"
        f" {estimate.megabytes:.0f} MB in {_printable(job.out)}, if all are mammograms of full size."
        " Nothing was written."
    )


def _facts(identity: Identity) -> Iterator[tuple[str, str]]:
    yield "image", identity.image_id
    yield "size", f"{identity.rows} rows x {identity.cols} columns"
    view = " ".join(filter(None, (identity.view or "unknown", "|".join(identity.view_modifiers))))
    yield "side, view", f"{identity.side or 'unknown'}, {view}"
    yield "pixel spacing", " x ".join(f"{mm:g}" for mm in identity.spacing_mm) + " mm (rows, columns)"
    yield "spacing from", identity.spacing_source
    yield "sizes", "in mm" if identity.sizes_known else "unknown: magnification without its factor"
    yield "intent", identity.presentation_intent or "unknown"
    yield "device", f"{identity.manufacturer} {identity.model}".strip() or "unknown"
    yield "warnings", ", ".join(identity.warnings) or "none"


def _write_phantom(out: Path, seed: int, recipe: Recipe) -> None:
    from detector.evaluate.phantoms import make_phantom
    from detector.export.phantoms import write_dicom
    from detector.export.tables import CLUSTER_COLUMNS, SPOT_COLUMNS, open_csv, rows_of
    from detector.read import read_mammogram

    mammogram, truth = make_phantom(seed, recipe)
    stem = f"phantom_{seed}_{recipe.side}{recipe.view}"
    image_id = read_mammogram(write_dicom(out / f"{stem}.dcm", mammogram, case=seed)).identity.image_id
    for name, table, columns in (("spots", truth.spots, SPOT_COLUMNS), ("clusters", truth.clusters, CLUSTER_COLUMNS)):
        with open_csv(out / f"{stem}_{name}.csv", columns) as write:
            write(rows_of(image_id, table, columns))
    typer.echo(f"{_printable(out / stem)}.dcm")


def _counted(number: int, noun: str) -> str:
    from detector.export.files import counted

    return counted(number, noun)


def _printable(text: object) -> str:
    from detector.export.files import printable

    return printable(str(text))
