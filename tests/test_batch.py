"""A run leaves whole results, resumes, and repeats no more than it must."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from detector.batch import Job, Limits, Progress, Summary, estimate, manifest, run_batch
from detector.batch import run as batch_run
from detector.batch.ledger import Ledger
from detector.batch.pool import _last_words
from detector.batch.work import FileWork, Outcome, Task
from detector.errors import DetectorError
from detector.evaluate.phantoms import Group, Recipe, make_phantom
from detector.export.phantoms import DicomForm, write_dicom
from detector.read import read_mammogram
from detector.records import Morphology
from detector.settings import Settings
from tests.dicom_files import breast_pixels, make_mammogram, save

TABLES = ("images.csv", "spots.csv", "clusters.csv", "errors.csv", "skipped.csv")
SMALL = {"rows": 400, "cols": 300, "spacing_mm": 0.125}


def operating_point(name: str) -> Settings:
    return Settings.from_mapping({"cluster": {"operating_point": name}, "read": {"smallest_field_mm": 20.0}})


SETTINGS = operating_point("balanced")
GROUP = Group(Morphology.FINE_PLEOMORPHIC, 8, extent_mm=6.0, size_mm=(0.8, 1.4))


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three small images: a group of calcifications, an empty film, a breast without a group."""
    folder = tmp_path_factory.mktemp("phantoms")
    for seed, groups in ((1, (GROUP,)), (3, ())):
        recipe = Recipe(**SMALL, groups=groups)  # type: ignore[arg-type]
        write_dicom(folder / f"{seed}.dcm", make_phantom(seed, recipe)[0], case=seed)
    save(folder / "2.dcm", make_mammogram(np.full((256, 200), 40, np.uint16)))
    return folder


@pytest.fixture
def inputs(phantoms: Path, tmp_path: Path) -> Path:
    """Return a copy of the phantoms, to be changed."""
    return Path(shutil.copytree(phantoms, tmp_path / "in"))


@pytest.fixture(scope="session")
def finished(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results of a run over the phantoms, not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "out"
    run(phantoms, out)
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """Return a copy of the results of a run over the phantoms."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


class Here:
    """Does the work in this process, and counts what was done."""

    def __init__(self, order: int = 1, most: int = 1000) -> None:
        self.tasks: list[Task] = []
        self.outcomes: list[Outcome] = []
        self.order, self.most = order, most

    def __call__(self, tasks: Iterable[Task], work: FileWork, _: Limits, __: object) -> Iterator[tuple[Task, Outcome]]:
        for task in list(tasks)[:: self.order][: self.most]:
            outcome = work(task)
            self.tasks.append(task)
            self.outcomes.append(outcome)
            yield task, outcome

    @property
    def detected(self) -> list[str]:
        return [t.shown for t, o in zip(self.tasks, self.outcomes, strict=True) if "detect" in o.seconds]

    @property
    def drawn(self) -> list[str]:
        return [t.shown for t, o in zip(self.tasks, self.outcomes, strict=True) if o.pictures is not None]


def run(inputs: Path, out: Path, here: Here | None = None, **options: object) -> Summary:
    job = Job((inputs,), out, **{"settings": SETTINGS, **options})  # type: ignore[arg-type]
    return run_batch(job, runner=here or Here())


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES}


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


# ------------------------------------------------------------------------------------------------------- one run


def test_a_run_leaves_what_the_interface_promises(inputs: Path, tmp_path: Path) -> None:
    (inputs / "notes.txt").write_text("not an image")
    (inputs / "cut.dcm").write_bytes((inputs / "1.dcm").read_bytes()[:60_000])
    out = tmp_path / "out"
    summary = run(inputs, out, command=("detector", "run"))
    images = table(out / "images.csv")
    assert [row["path"] for row in images] == ["1.dcm", "2.dcm", "3.dcm"]
    assert [row["path"] for row in table(out / "errors.csv")] == ["cut.dcm"]
    assert [row["path"] for row in table(out / "skipped.csv")] == ["notes.txt"]
    assert int(images[0]["n_clusters"]) >= 1
    assert {row["image_id"] for row in table(out / "spots.csv")} <= {row["image_id"] for row in images}
    clusters = table(out / "clusters.csv")
    assert len(clusters) == sum(int(row["n_clusters"]) for row in images) == summary.totals.clusters
    assert sum(row["review"] == "true" for row in clusters) == summary.totals.review_clusters
    assert files(out / "overlays") == {f"{row['image_id']}.png" for row in images}
    assert files(out / "crops") == {f"{row['image_id']}_c{row['cluster_id']}.png" for row in clusters}
    assert len(files(out / "readings")) == 3
    assert [row["image_id"] for row in table(out / "timings.csv")] == [row["image_id"] for row in images]
    assert all(float(row["detect"]) > 0 and float(row["draw"]) > 0 for row in table(out / "timings.csv"))
    assert (summary.totals.analysed, summary.totals.failed, summary.totals.skipped) == (3, 1, 1)


def test_the_manifest_says_how_the_run_was_made(inputs: Path, tmp_path: Path) -> None:
    command = ("detector", "run", "a\x1b")
    run(inputs / "1.dcm", tmp_path / "out", settings=operating_point("specific"), command=command)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["settings"]["cluster"]["operating_point"] == "specific"
    assert manifest["command"] == ["detector", "run", "a\\x1b"]
    assert manifest["counts"]["analysed"] == 1
    assert manifest["finished"] is True
    assert manifest["start"] <= manifest["end"]
    assert manifest["libraries"]["numpy"]


def test_order_of_work_and_interruptions_do_not_show(phantoms: Path, finished: Path, tmp_path: Path) -> None:
    for _ in range(3):
        run(phantoms, tmp_path / "cut", Here(order=-1, most=1))
    assert tables(finished) == tables(tmp_path / "cut")
    assert files(finished) == files(tmp_path / "cut")


def test_the_caller_hears_of_every_file(phantoms: Path, out: Path) -> None:
    heard: list[Progress] = []
    run_batch(Job((phantoms,), out, SETTINGS, min_confidence=0.1), heard.append, runner=Here())
    assert [(p.due, p.done, p.path) for p in heard] == [(3, 0, ""), (3, 1, "1.dcm"), (3, 2, "2.dcm"), (3, 3, "3.dcm")]


def test_the_second_of_two_runs_on_one_folder_stops(inputs: Path, tmp_path: Path) -> None:
    class Meanwhile(Here):
        def __call__(self, *args: object) -> Iterator[tuple[Task, Outcome]]:
            with pytest.raises(DetectorError, match="in use by another run"):
                run(inputs, tmp_path / "out")
            return iter(())

    run(inputs, tmp_path / "out", Meanwhile())


def test_what_is_not_ours_is_not_touched(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/images.csv").write_text("mine")
    for fresh in (False, True):
        with pytest.raises(DetectorError, match=r"images\.csv"):
            run(inputs, tmp_path / "out", fresh=fresh)
    assert (tmp_path / "out/images.csv").read_text() == "mine"


def test_results_may_lie_among_the_inputs(inputs: Path, tmp_path: Path) -> None:
    (inputs / "2.dcm").unlink()
    (inputs / "3.dcm").unlink()
    run(inputs, inputs / "out")
    before = tables(inputs / "out")
    run(inputs, inputs / "out")
    assert tables(inputs / "out") == before
    assert [row["path"] for row in table(inputs / "out/skipped.csv")] == []


# -------------------------------------------------------------------------------------------------- a second run


def test_nothing_is_done_twice(phantoms: Path, out: Path) -> None:
    before = tables(out)
    here = Here()
    run(phantoms, out, here)
    assert here.tasks == []
    assert tables(out) == before


def test_another_operating_point_repeats_no_detection(phantoms: Path, out: Path, tmp_path: Path) -> None:
    run(phantoms, tmp_path / "fresh", settings=operating_point("sensitive"))
    assert tables(tmp_path / "fresh") != tables(out)
    here = Here()
    run(phantoms, out, here, settings=operating_point("sensitive"))
    assert (here.detected, here.drawn) == ([], ["1.dcm", "2.dcm", "3.dcm"])
    assert tables(tmp_path / "fresh") == tables(out)
    for folder in ("overlays", "crops"):
        assert files(tmp_path / "fresh" / folder) == files(out / folder)
        for name in files(out / folder):
            assert (tmp_path / "fresh" / folder / name).read_bytes() == (out / folder / name).read_bytes()


def test_pictures_that_contradict_the_tables_are_removed(phantoms: Path, out: Path) -> None:
    run(phantoms, out, settings=operating_point("specific"), formats=frozenset({"csv"}))
    assert files(out / "overlays") | files(out / "crops") == set()


def test_pictures_that_still_agree_are_kept(phantoms: Path, out: Path) -> None:
    listed = len(table(out / "spots.csv"))
    here = Here()
    run(phantoms, out, here, formats=frozenset({"csv"}), min_confidence=0.0)
    assert here.drawn == here.detected == []
    assert len(files(out / "overlays")) == 3
    assert len(table(out / "spots.csv")) > listed


def test_pictures_of_findings_alone_or_of_none(phantoms: Path, out: Path, tmp_path: Path) -> None:
    here = Here()
    run(phantoms, out, here, pictures="findings")
    images = {row["image_id"]: row for row in table(out / "images.csv")}
    found = {i for i, row in images.items() if row["n_clusters"] != "0" or row["n_macro"] != "0"}
    assert files(out / "overlays") == {f"{i}.png" for i in found}
    assert 0 < len(found) < 3
    assert here.detected == []
    run(phantoms / "1.dcm", tmp_path / "none", pictures="none")
    assert files(tmp_path / "none/overlays") | files(tmp_path / "none/crops") == set()


def test_lost_pictures_and_readings_are_made_again(phantoms: Path, out: Path) -> None:
    before = tables(out)
    ids = [row["image_id"] for row in table(out / "images.csv")]
    (out / "overlays" / f"{ids[0]}.png").unlink()
    next((out / "readings").rglob(f"{ids[1]}.json")).unlink()
    here = Here()
    run(phantoms, out, here)
    assert (here.drawn, here.detected) == (["1.dcm", "2.dcm"], ["2.dcm"])
    assert tables(out) == before


def test_a_damaged_reading_is_made_again_when_it_is_needed(phantoms: Path, out: Path) -> None:
    first, second, third = (out / "readings").rglob("*.json")
    first.write_text("{}")
    second.write_text(third.read_text())
    here = Here()
    run(phantoms, out, here, min_confidence=0.9)
    assert len(here.detected) == 2


def test_changed_files_are_done_again_and_touched_ones_are_not(inputs: Path, tmp_path: Path) -> None:
    run(inputs, tmp_path / "out", formats=frozenset({"csv"}))
    old = table(tmp_path / "out/images.csv")[0]["image_id"]
    os.utime(inputs / "3.dcm", ns=(1, 1))
    shutil.copy(inputs / "2.dcm", inputs / "1.dcm")
    (inputs / "2.dcm").unlink()
    here = Here()
    run(inputs, tmp_path / "out", here, formats=frozenset({"csv"}))
    assert [t.shown for t in here.tasks] == ["1.dcm", "3.dcm"]
    assert here.detected == ["1.dcm"]
    assert [row["path"] for row in table(tmp_path / "out/images.csv")] == ["1.dcm", "3.dcm"]
    assert not list((tmp_path / "out/readings").rglob(f"{old}*"))


def change_in_secret(path: Path) -> None:
    """Change a pixel, and neither size nor time."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[:-2] + b"\1\1")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_size_and_time_are_believed_unless_verified(inputs: Path, tmp_path: Path) -> None:
    run(inputs, tmp_path / "out", formats=frozenset({"csv"}))
    change_in_secret(inputs / "1.dcm")
    here = Here()
    run(inputs, tmp_path / "out", here, formats=frozenset({"csv"}), settings=operating_point("specific"))
    assert (len(here.tasks), here.detected) == (3, [])
    here = Here()
    run(inputs, tmp_path / "out", here, formats=frozenset({"csv"}), settings=operating_point("specific"), verify=True)
    assert (len(here.tasks), here.detected) == (3, ["1.dcm"])


def test_a_picture_is_never_drawn_of_other_bytes_than_its_reading(inputs: Path, tmp_path: Path) -> None:
    run(inputs, tmp_path / "out", formats=frozenset({"csv"}))
    change_in_secret(inputs / "1.dcm")
    here = Here()
    run(inputs, tmp_path / "out", here)
    assert (here.drawn, here.detected) == (["1.dcm", "2.dcm", "3.dcm"], ["1.dcm"])


def test_pictures_of_a_verified_run_are_kept(phantoms: Path, out: Path) -> None:
    here = Here()
    run(phantoms, out, here, verify=True)
    assert (len(here.tasks), here.drawn, here.detected) == (3, [], [])
    assert len(files(out / "overlays")) == 3


def test_a_file_that_costs_its_worker_is_a_row_with_the_signal(inputs: Path, tmp_path: Path) -> None:
    class Crash(Here):
        def __call__(self, tasks: Iterable[Task], work: FileWork, *_: object) -> Iterator[tuple[Task, Any]]:
            for task in tasks:
                yield task, _last_words(-signal.SIGSEGV) if task.shown == "2.dcm" else work(task)

    run(inputs, tmp_path / "out", Crash())
    (row,) = table(tmp_path / "out/errors.csv")
    assert (row["path"], row["error"]) == ("2.dcm", "Crash")
    assert "SIGSEGV" in row["message"]
    assert [r["path"] for r in table(tmp_path / "out/images.csv")] == ["1.dcm", "3.dcm"]
    here = Here()
    run(inputs, tmp_path / "out", here)
    assert here.detected == ["2.dcm"]


def test_tables_are_written_now_and_then_and_not_for_each_file(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    class Look(Here):
        def __call__(self, *given: Any) -> Iterator[tuple[Task, Outcome]]:
            for task, outcome in super().__call__(*given):
                yield task, outcome
                seen.append((tmp_path / "out/images.csv").exists())

    run(inputs, tmp_path / "out", Look(), formats=frozenset({"csv"}))
    monkeypatch.setattr(batch_run, "_TABLES_S", 0.0)
    run(inputs, tmp_path / "out", Look(), formats=frozenset({"csv"}), fresh=True)
    assert seen == [False] * 3 + [True] * 3


def test_what_failed_is_tried_again(inputs: Path, tmp_path: Path) -> None:
    whole = (inputs / "1.dcm").read_bytes()
    (inputs / "1.dcm").write_bytes(whole[:-1000])
    assert run(inputs, tmp_path / "out").totals.failed == 1
    (inputs / "1.dcm").write_bytes(whole)
    here = Here()
    assert run(inputs, tmp_path / "out", here).totals.failed == 0
    assert here.detected == ["1.dcm"]


def test_fresh_does_all_anew(phantoms: Path, out: Path) -> None:
    (out / "mine.txt").write_text("mine")
    here = Here()
    run(phantoms, out, here, fresh=True, formats=frozenset({"csv"}))
    assert len(here.detected) == 3
    assert files(out / "overlays") == set()
    assert (out / "mine.txt").exists()


def test_images_of_other_paths_are_counted_and_left_alone(phantoms: Path, out: Path) -> None:
    assert run(phantoms / "1.dcm", out).others == 2
    assert len(table(out / "images.csv")) == 1
    here = Here()
    run(phantoms, out, here)
    assert here.detected == []
    assert len(table(out / "images.csv")) == 3


def test_parquet_is_made_later_without_detection(phantoms: Path, out: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    run(phantoms, out, formats=frozenset({"csv"}))
    here = Here()
    run(phantoms, out, here, formats=frozenset({"parquet"}))
    assert here.tasks == []
    read = parquet.read_table(out / "spots.parquet").to_pydict()
    rows = table(out / "spots.csv")
    assert read["confidence"] == [float(row["confidence"]) for row in rows]


def test_a_damaged_ledger_is_named(phantoms: Path, out: Path) -> None:
    (out / "ledger.sqlite").write_bytes(b"no database" * 500)
    with pytest.raises(DetectorError, match="--fresh"):
        run(phantoms, out)
    assert run(phantoms / "1.dcm", out, fresh=True).totals.analysed == 1


def test_dry_run_counts_and_writes_nothing(inputs: Path, tmp_path: Path) -> None:
    (inputs / ".hidden").write_text("")
    (inputs / "2.dcm").unlink()
    (inputs / "3.dcm").unlink()
    job = Job((inputs,), tmp_path / "out", SETTINGS)
    guess = estimate(job)
    assert (guess.found, guess.skipped, guess.done, guess.due) == (1, 1, 0, 1)
    assert guess.seconds > 0 < guess.megabytes
    assert not (tmp_path / "out").exists()
    run(inputs, tmp_path / "out")
    before = files(tmp_path / "out")
    assert (estimate(job).done, estimate(job).due) == (1, 0)
    assert files(tmp_path / "out") == before


# ------------------------------------------------------------------------------------- files that belong together


def with_uid_of(source: Path, image: Path, path: Path) -> None:
    """Write an image under the SOP Instance UID of another one."""
    dataset = pydicom.dcmread(image)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.dcmread(source).SOPInstanceUID
    dataset.save_as(path)


@pytest.mark.parametrize("order", [1, -1])
def test_of_equal_uids_the_first_by_path_counts(inputs: Path, tmp_path: Path, order: int) -> None:
    shutil.copy(inputs / "2.dcm", inputs / "2 copy.dcm")
    with_uid_of(inputs / "2.dcm", inputs / "1.dcm", inputs / "4.dcm")
    (inputs / "1.dcm").unlink()
    (inputs / "3.dcm").unlink()
    out = tmp_path / "out"
    run(inputs, out, Here(order))
    assert [row["path"] for row in table(out / "images.csv")] == ["2 copy.dcm"]
    assert [(row["path"], row["reason"].split(":")[0]) for row in table(out / "skipped.csv")] == [
        ("2.dcm", "duplicate of 2 copy.dcm")
    ]
    assert [(row["path"], row["error"]) for row in table(out / "errors.csv")] == [("4.dcm", "UIDReused")]
    assert files(out / "crops") == set()  # the image that was taken shows nothing, unlike 4.dcm
    before = tables(out)
    here = Here()
    run(inputs, out, here)
    assert here.tasks == []
    (inputs / "2 copy.dcm").unlink()
    run(inputs, out)
    assert [row["path"] for row in table(out / "images.csv")] == ["2.dcm"]
    shutil.copy(inputs / "2.dcm", inputs / "2 copy.dcm")
    run(inputs, out)
    assert tables(out) == before


def test_a_uid_taken_by_another_run_is_not_mistaken(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with_uid_of(inputs / "1.dcm", inputs / "2.dcm", tmp_path / "other/1.dcm")
    (inputs / "2.dcm").unlink()
    (inputs / "3.dcm").unlink()
    run(inputs, tmp_path / "out", formats=frozenset({"csv"}))
    before = tables(tmp_path / "out")
    run(tmp_path / "other", tmp_path / "out", formats=frozenset({"csv"}))
    here = Here()
    run(inputs, tmp_path / "out", here, formats=frozenset({"csv"}))
    assert here.detected == ["1.dcm"]
    assert tables(tmp_path / "out") == before


def test_of_one_exposure_the_image_for_presentation_counts(tmp_path: Path) -> None:
    mammogram = make_phantom(1, Recipe(**SMALL, groups=(GROUP,)))[0]  # type: ignore[arg-type]
    (tmp_path / "in").mkdir()
    write_dicom(tmp_path / "in/1.dcm", mammogram, DicomForm(intent="processing"))
    write_dicom(tmp_path / "in/2.dcm", mammogram, DicomForm(intent="presentation"))
    for path in (tmp_path / "in").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.AcquisitionDate, dataset.AcquisitionTime = "20200102", "101112.5"
        dataset.save_as(path)
    summary = run(tmp_path / "in", tmp_path / "out")
    images = table(tmp_path / "out/images.csv")
    assert images[0]["exposure_id"] == images[1]["exposure_id"] != ""
    assert images[0]["excluded_reason"] == f"same exposure as {images[1]['image_id']}, which counts"
    assert images[1]["excluded_reason"] == ""
    assert (summary.totals.analysed, summary.totals.excluded) == (2, 1)
    assert summary.totals.clusters == int(images[1]["n_clusters"])


def test_every_frame_of_a_file_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    frames = np.stack([breast_pixels(seed=i) for i in range(3)])
    save(tmp_path / "in/1.dcm", make_mammogram(frames))
    save(tmp_path / "in/2.dcm", make_mammogram(frames[0], SOPInstanceUID="1.2.3"))
    assert run(tmp_path / "in", tmp_path / "out", Here(most=1)).stopped
    assert not run(tmp_path / "in", tmp_path / "out").stopped
    images = table(tmp_path / "out/images.csv")
    assert [(row["path"], row["frame"]) for row in images] == [
        ("1.dcm", "1"),
        ("1.dcm", "2"),
        ("1.dcm", "3"),
        ("2.dcm", "0"),
    ]
    assert len(files(tmp_path / "out/overlays")) == len({row["image_id"] for row in images}) == 4
    assert {row["excluded_reason"] for row in images} == {""}
    here = Here()
    run(tmp_path / "in", tmp_path / "out", here)
    assert here.tasks == []


def test_cases_come_from_the_file_or_the_study(inputs: Path, tmp_path: Path) -> None:
    assert run(inputs, tmp_path / "out", cases={"1.dcm": "=case 1", "9.dcm": "9"}).unmatched == 1
    images = table(tmp_path / "out/images.csv")
    assert [row["case_id"] for row in images] == ["'=case 1", images[1]["study_uid"], images[2]["study_uid"]]
    here = Here()
    run(inputs, tmp_path / "out", here)
    assert here.tasks == []
    assert table(tmp_path / "out/images.csv")[0]["case_id"] == images[0]["study_uid"]


# --------------------------------------------------------------------------------------------- spacings and names


def without_spacing(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        if keyword in dataset:
            del dataset[keyword]
    dataset.save_as(path)


def test_a_given_spacing_redoes_those_that_need_it(inputs: Path, tmp_path: Path) -> None:
    without_spacing(inputs / "1.dcm")
    without_spacing(inputs / "2.dcm")
    assert run(inputs, tmp_path / "out").totals.failed == 2
    here = Here()
    assert run(inputs, tmp_path / "out", here, spacing_mm=0.3, spacings={"2.dcm": 0.32}).totals.failed == 0
    assert here.detected == ["1.dcm", "2.dcm"]
    images = table(tmp_path / "out/images.csv")
    assert [row["spacing_mm"] for row in images] == ["0.3", "0.32", images[2]["spacing_mm"]]
    assert [row["spacing_source"] == "given" for row in images] == [True, True, False]
    here = Here()
    run(inputs, tmp_path / "out", here, spacing_mm=0.32)
    assert here.detected == ["1.dcm"]
    here = Here()
    run(inputs, tmp_path / "out", here, spacing_mm=0.32, force_spacing=True)
    assert "3.dcm" in here.detected
    assert table(tmp_path / "out/images.csv")[2]["spacing_source"] == "given"


def test_pseudonyms_hide_paths_and_uids_everywhere(inputs: Path, tmp_path: Path) -> None:
    secrets = [f"{keyword}" for keyword in ("Doe^Jane", "jane_doe", "19500101")]
    for path in list(inputs.iterdir()):
        dataset = pydicom.dcmread(path)
        dataset.PatientName, dataset.PatientBirthDate = "Doe^Jane", "19500101"
        secrets += [str(dataset.SOPInstanceUID), str(dataset.StudyInstanceUID)]
        secrets += [read_mammogram(path, settings=SETTINGS.read).identity.exposure_id]
        dataset.save_as(inputs / f"jane_doe_{path.name}")
        path.unlink()
    (inputs / "jane_doe_notes.txt").write_text("Doe^Jane")
    (inputs / "jane_doe_cut.dcm").write_bytes((inputs / "jane_doe_1.dcm").read_bytes()[:-5000])
    out = tmp_path / "out"
    heard: list[Progress] = []
    job = Job((inputs,), out, SETTINGS, pseudonymise=True, cases={"jane_doe_1.dcm": "7"}, command=("jane_doe",))
    run_batch(job, heard.append, runner=Here())
    written = b"".join((out / name).read_bytes() + name.encode() for name in sorted(files(out)))
    for secret in secrets:
        assert secret.encode() not in written
        assert secret not in str(heard)
    assert len(table(out / "images.csv")) == 3
    assert "7" in [row["case_id"] for row in table(out / "images.csv")]
    assert (out / "pseudonym.key").stat().st_mode & 0o077 == 0
    here = Here()
    run(inputs, out, here, pseudonymise=True)
    assert here.detected == []
    with pytest.raises(DetectorError, match="pseudonymise"):
        run(inputs, out)


def test_a_full_disk_ends_the_run_and_the_next_one_resumes(inputs: Path, tmp_path: Path) -> None:
    class Full(Here):
        def __call__(self, tasks: Iterable[Task], work: FileWork, *_: object) -> Iterator[tuple[Task, Outcome]]:
            for i, task in enumerate(tasks):
                if i == 1:
                    shutil.rmtree(tmp_path / "out/.partial")
                yield task, work(task)

    with pytest.raises(DetectorError, match="cannot be written"):
        run(inputs, tmp_path / "out", Full())
    with contextlib.closing(sqlite3.connect(tmp_path / "out/ledger.sqlite")) as ledger:
        assert ledger.execute("SELECT count(*) FROM files").fetchone() == (1,)
    here = Here()
    run(inputs, tmp_path / "out", here)
    assert here.detected == ["2.dcm", "3.dcm"]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the names of open files in /proc")
def test_power_may_fail_at_any_time(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes are forced to the disk before they get their name, the name before the ledger tells of it."""
    events: list[tuple[str, str]] = []
    fsync, replace, mkdir, commit = os.fsync, os.replace, os.mkdir, Ledger.commit

    def see_fsync(handle: int) -> None:
        fsync(handle)
        events.append(("forced", str(Path(f"/proc/self/fd/{handle}").readlink())))

    def see_replace(old: Any, new: Any, **more: Any) -> None:
        events.append(("renamed", str(Path(old).resolve())))
        replace(old, new, **more)
        events.append(("named", str(Path(new).resolve())))

    def see_mkdir(path: Any, *more: Any, **most: Any) -> None:
        mkdir(path, *more, **most)
        events.append(("named", str(Path(path).resolve())))

    def see_commit(ledger: Ledger) -> None:
        events.append(("commit", ""))
        commit(ledger)

    monkeypatch.setattr(os, "fsync", see_fsync)
    monkeypatch.setattr(os, "replace", see_replace)
    monkeypatch.setattr(os, "mkdir", see_mkdir)
    monkeypatch.setattr(Ledger, "commit", see_commit)
    run(inputs, tmp_path / "out", formats=frozenset({"csv", "overlay", "report", "sr"}), pseudonymise=False)
    named = [i for i, (what, name) in enumerate(events) if what == "named" and ".partial" not in name]
    assert len(named) > 20
    for i in named:
        after = events[i + 1 :]
        place = str(Path(events[i][1]).parent)
        entered = after.index(("commit", "")) if ("commit", "") in after else len(after)
        assert ("forced", place) in after[:entered], f"{events[i]} is entered before its folder is forced"
    for i, (what, name) in enumerate(events):
        assert what != "renamed" or ("forced", name) in events[:i], f"{name} gets its name before it is forced"


def test_results_of_other_code_are_not_taken_for_those_of_this(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = shutil.copytree(Path(manifest.__file__).parents[1], tmp_path / "detector")
    monkeypatch.setattr(manifest, "_PACKAGE", copy)
    hashes = []
    for name in (
        "records.py",
        "cli.py",
        "export/tables.py",
        *(str(p.relative_to(copy)) for p in copy.glob("read/*.py")),
    ):
        with (copy / name).open("a") as source:
            source.write("# changed\n")
        manifest.code_hash.cache_clear()
        hashes.append((name, manifest.code_hash(rooms_alone=True), manifest.code_hash()))
    manifest.code_hash.cache_clear()
    (_, rooms, whole), (_, cli_rooms, cli_whole), (_, table_rooms, table_whole), *reads = hashes
    assert (rooms, whole) == (cli_rooms, cli_whole)
    assert rooms == table_rooms
    assert whole != table_whole
    assert len({reading for _, reading, _ in reads} | {rooms}) == len(reads) + 1 > 1
