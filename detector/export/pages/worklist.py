"""The worklist: one row per case, highest rank first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detector.export.files import file_stem, printable
from detector.export.pages.render import Run, render_page
from detector.settings import AssessSettings

LEVELS = ("", "low", "medium", "high")


@dataclass(frozen=True)
class CaseRow:
    """What the worklist says of a case.

    Attributes
    ----------
    case_id : str
    study_date : str
    views : tuple of str
        ``R CC`` and so on, in the order in which they hang.
    sides : str
        Sides with a cluster, or else all sides: ``R``, ``L``, ``RL`` or nothing.
    n_review, n_clusters, n_micro, n_macro : int
        Of the images that count.
    level : int
        Index into `LEVELS` of the highest cluster, 0 without one.
    suspicion : float
        The highest among flagged clusters, or else among all; decides the order and is not shown.
    reasons : tuple of str
        Of flagged clusters.
    limits : tuple of str
        What limits the reading.
    paths : tuple of str
        Searched.
    has_page, has_thumbnail : bool
    """

    case_id: str
    study_date: str = ""
    views: tuple[str, ...] = ()
    sides: str = ""
    n_review: int = 0
    n_clusters: int = 0
    n_micro: int = 0
    n_macro: int = 0
    level: int = 0
    suspicion: float = 0.0
    reasons: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    has_page: bool = False
    has_thumbnail: bool = False


def level_of(suspicion: float, settings: AssessSettings) -> int:
    """Return the index into `LEVELS` of a cluster's suspicion, as `pictures.suspicion_words` tells it."""
    return 1 + (suspicion >= settings.review_suspicion) + (suspicion >= settings.high_suspicion)


def render_worklist(rows: Sequence[CaseRow], run: Run, n_failed: int = 0, n_skipped: int = 0) -> str:
    """Return the worklist as HTML.

    Parameters
    ----------
    rows : sequence of CaseRow
        In any order; flagged cases come first, then by rank.
    run : Run
    n_failed, n_skipped : int
        Files that failed, and files that were no mammograms.
    """
    ranked = sorted(rows, key=lambda row: (not row.n_review, -row.suspicion, -row.n_clusters, row.case_id))
    data = [
        [
            printable(row.case_id),
            file_stem(row.case_id),
            row.study_date,
            list(map(printable, row.views)),
            row.sides,
            row.n_review,
            row.n_clusters,
            row.n_micro,
            row.n_macro,
            row.level,
            list(map(printable, row.reasons)),
            list(map(printable, row.limits)),
            " ".join(map(printable, row.paths)),
            int(row.has_page),
            int(row.has_thumbnail),
        ]
        for row in ranked
    ]
    return render_page(
        "worklist.html",
        run,
        ("decisions.js", "worklist.js"),
        n_cases=len(rows),
        n_flagged=sum(row.n_review > 0 for row in rows),
        n_failed=n_failed,
        n_skipped=n_skipped,
        data=data,
    )
