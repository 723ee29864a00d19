"""One page on how good a program is on a data set: the curve, the tables, and what went most wrong."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detector.errors import ExportError
from detector.evaluate.datasets import DATASETS
from detector.evaluate.froc import Curve, Per, Score, draw_curves, write_rows
from detector.evaluate.marks import write_marks
from detector.evaluate.matching import SpotRule
from detector.evaluate.results import CLUSTER_RATE, PER_VIEW, SPOT_RATE, Results
from detector.evaluate.study import Study
from detector.evaluate.truth import ImageTruth, Pair
from detector.evaluate.uncertainty import Row
from detector.evaluate.worst import FIELD_MM, Case, draw_case, worst_clusters, worst_spots
from detector.export.files import whole_file
from detector.export.pictures import encode_png
from detector.read import read_mammogram
from detector.records import FloatImage, Spots

PAGE = "report.html"

_STYLE = """
body { font: 15px/1.45 sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; color: #1c1c1c }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 1.6em }
table { border-collapse: collapse; margin: .6em 0 } td, th { padding: .2em .7em; border-bottom: 1px solid #ddd }
th { text-align: left } td.number { text-align: right; font-variant-numeric: tabular-nums }
figure { display: inline-block; margin: .4em .6em; width: min-content; vertical-align: top; font-size: .8em }
figure img { display: block } figure.curve, figure.curve img { width: 34em; height: auto }
p.note { color: #555 }
"""
_NOTICE = (
    "These figures hold for these images, by these rules, and are no promise for any other population. "
    "A confidence is no probability in any woman's case."
)


def write_report(study: Study, results: Results, out: Path, command: str = "") -> Path:
    """Write the page, its curves as pictures and its tables as CSV.

    Parameters
    ----------
    study : Study
    results : Results
        Of this study.
    out : Path
        Folder; made if missing.
    command : str
        How it was made, shown on the page.

    Returns
    -------
    Path
        Of the page, which holds all its pictures and needs no network.

    Raises
    ------
    ExportError
        If matplotlib is not installed, or the folder cannot be written.
    ReadError
        If an image that a crop is to be cut from cannot be read.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_tables(study, results, out)
        parts = [_head(study, command), *_curves(results, out), *_worst(study, results, out), _tables(results)]
        page = out / PAGE
        with whole_file(page) as file:
            file.write(_page(f"Evaluation: {DATASETS[study.name].title}", parts).encode())
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror}") from error
    return page


def _write_tables(study: Study, results: Results, out: Path) -> None:
    named = {"sensitivity": results.sensitivity, "mean_sensitivity": results.areas, "images": results.images}
    named |= {"cases": results.cases, "groups": results.groups}
    for name, rows in named.items():
        write_rows(out / f"{name}.csv", rows)
    for name, score in [("spots", results.spots.get(SpotRule.OWN)), ("clusters", results.clusters.get(PER_VIEW))]:
        if score is not None:
            write_rows(out / f"curve_{name}.csv", score.curve().rows())
    write_marks(out / "reference.csv", [_reference_alone(t) for t, _ in study.pairs])


def _reference_alone(truth: ImageTruth) -> ImageTruth:
    """Return the truth without what the set marks: reference mask and ignored zones, for the next method."""
    return replace(truth, spots=Spots.empty(), marks=(), positive=None, located=True)


# --------------------------------------------------------------------------------------------------------------
# the page


def _page(title: str, parts: Sequence[str]) -> str:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{html.escape(title)}</h1>",
            *parts,
            f'<p class="note">{_NOTICE}</p></body></html>\n',
        ]
    )


def _head(study: Study, command: str) -> str:
    truths = [t for t, _ in study.pairs]
    counts = {
        "images": len(truths),
        "women": len({t.patient_id for t in truths}),
        "single calcifications marked": sum(len(t.spots) for t in truths),
        "groups marked": sum(len(t.marks) for t in truths),
        "of the images with a label only": sum(not t.located for t in truths),
        "of the images with zones that count neither way": sum(bool(t.ignored) for t in truths),
    }
    known = DATASETS[study.name]
    lines = [f"Method: {study.method}.", f"Marked is: {known.truth}. Positive is: {known.positive}."]
    lines.append("; ".join(f"{n} {what}" for what, n in counts.items() if n) + ".")
    if study.n_failed:
        lines.append(f"Not analysed, and counted as if nothing was found in them: {study.n_failed} images.")
    if command:
        lines.append(f"Made by: {command}")
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _curves(results: Results, out: Path) -> list[str]:
    parts = []
    if results.spots:
        scores: Mapping[str, Score] = {rule.value: score for rule, score in results.spots.items()}
        per = _per(next(iter(scores.values())))
        parts.append(_curve_part("Single calcifications", scores, per, out / "curve_spots.png"))
    if results.clusters:
        parts.append(_curve_part("Groups", results.clusters, "image", out / "curve_clusters.png"))
    return parts


def _per(score: Score) -> Per:
    return "image" if any(math.isnan(area) for area in score.area_cm2) else "cm2"


def _curve_part(title: str, scores: Mapping[str, Score], per: Per, path: Path) -> str:
    curves: Mapping[str, Curve] = {name: score.curve() for name, score in scores.items()}
    draw_curves(path, curves, per)
    picture = _picture(path.read_bytes(), f"{title}: sensitivity over false positives")
    return f'<figure class="curve"><figcaption><b>{title}</b></figcaption>{picture}</figure>'


def _picture(png: bytes, words: str) -> str:
    return f'<img alt="{html.escape(words)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


def _tables(results: Results) -> str:
    at = f"at {SPOT_RATE:g} false spots a cm² or {CLUSTER_RATE:g} false clusters an image"
    titled = {
        "Sensitivity at given false positives": results.sensitivity,
        "Mean sensitivity from none up to a limit of false positives": results.areas,
        "Whole images": results.images,
        "Cases with flagged groups": results.cases,
        f"By size, contrast, form and place, {at}": results.groups,
    }
    return "".join(f"<h2>{html.escape(title)}</h2>{_table(rows)}" for title, rows in titled.items() if rows)


def _table(rows: Sequence[Row]) -> str:
    names = [n for n in dict.fromkeys(name for row in rows for name in row) if any(_shown(r.get(n)) for r in rows)]
    head = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in names)
    body = "".join("<tr>" + "".join(_cell(row.get(name)) for name in names) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: object) -> str:
    kind = ' class="number"' if isinstance(value, int | float) else ""
    return f"<td{kind}>{html.escape(_shown(value))}</td>"


def _shown(value: object) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# --------------------------------------------------------------------------------------------------------------
# what went wrong

_Worst = Callable[[Score, Sequence[Pair], float], tuple[list[Case], list[Case]]]


def _worst(study: Study, results: Results, out: Path) -> list[str]:
    parts, rows = [], []
    todo: list[tuple[str, Score, float, _Worst, float]] = []
    if results.spots:
        todo.append(("spots", results.spots[SpotRule.OWN], results.spot_threshold, worst_spots, FIELD_MM[0]))
    if results.clusters:
        todo.append(("clusters", results.clusters[PER_VIEW], results.cluster_threshold, worst_clusters, FIELD_MM[1]))
    for what, score, threshold, find, field_mm in todo:
        for name, cases in zip(("misses", "false positives"), find(score, study.located, threshold), strict=True):
            rows += [{"objects": what, "case": name} | vars(case) for case in cases]
            crops = _crops(study, cases, field_mm, threshold)
            title = f"Worst {name} among {what}, {field_mm:g} mm across"
            words = "Without and with rings: green is marked, orange found." if crops else "None."
            parts.append(f"<h2>{title}</h2><p>{words}</p>{crops}")
    write_rows(out / "worst.csv", rows)
    return parts


def _crops(study: Study, cases: Sequence[Case], field_mm: float, threshold: float) -> str:
    pairs = {t.image_id: (t, f) for t, f in study.pairs}
    pictures: dict[Case, str] = {}
    for image_id in dict.fromkeys(case.image_id for case in cases):
        pixels = _pixels(study, image_id)
        for case in cases:
            if case.image_id == image_id:
                drawn = draw_case(pixels, case, pairs[image_id], field_mm, threshold)
                pictures[case] = _picture(encode_png(drawn), case.what)
    return "".join(
        f"<figure>{pictures[case]}<figcaption>{html.escape(case.what)}<br>{html.escape(case.image_id)}, "
        f"row {case.row_px:.0f}, column {case.col_px:.0f}</figcaption></figure>"
        for case in cases
    )


def _pixels(study: Study, image_id: str) -> FloatImage:
    """Return the image; nothing of one that was not analysed."""
    if image_id not in study.references:
        return np.zeros((1, 1), np.float32)
    return read_mammogram(study.files[image_id], study.references[image_id].identity.spacing_mm[0]).pixels
