"""A run that leaves DICOM objects: one set a study, anew when it grows, with the reason where one cannot be made."""

import csv
import dataclasses
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest

from detector.batch import Job, run_batch
from detector.batch.studies import OBJECT_FORMATS
from detector.errors import DetectorError
from detector.export.dicom import FORMATS, read_cad_sr
from tests.dicom_studies import make_study

ROOT = Path(__file__).parents[1]


def here(tasks: Iterable[Any], work: Any, *_: object) -> Iterator[tuple[Any, Any]]:
    for task in tasks:
        yield task, work(task)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    make_study(folder)
    return folder


def rows(out: Path, table: str = "images") -> list[dict[str, str]]:
    return list(csv.DictReader((out / f"{table}.csv").read_text("utf-8").splitlines()))


def objects(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted((out / "dicom").rglob("*")) if p.is_file()}


def job(images: Path, out: Path, formats: Iterable[str] = OBJECT_FORMATS) -> Job:
    return Job((images,), out, formats=frozenset({"csv", *formats}), pictures="none")


def test_both_lists_of_formats_are_one() -> None:
    assert OBJECT_FORMATS == FORMATS


def test_a_study_is_written_once_and_anew_when_it_grows(images: Path, tmp_path: Path) -> None:
    some, out = tmp_path / "some", tmp_path / "out"
    shutil.copytree(images, some)
    (some / "RMLO.dcm").rename(tmp_path / "RMLO.dcm")
    run_batch(job(some, out), runner=here)
    first = objects(out)
    names = [name.rpartition("/")[2] for name in first]
    assert names.count("cad_sr.dcm") == names.count("measurements.dcm") == 1
    assert sum(name.endswith("_gsps.dcm") for name in names) == 3
    run_batch(job(some, out), runner=here)
    assert objects(out) == first
    (tmp_path / "RMLO.dcm").rename(some / "RMLO.dcm")
    run_batch(job(some, out), runner=here)
    second = objects(out)
    changed = {name.rpartition("/")[2] for name in first if first[name] != second[name]}
    assert changed == {"cad_sr.dcm", "measurements.dcm", "made_of.json"}
    (report,) = out.rglob("cad_sr.dcm")
    assert "PredecessorDocumentsSequence" in pydicom.dcmread(report)
    assert len(read_cad_sr(report).images) == 4


def test_the_same_run_elsewhere_gives_the_same_objects(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "moved" / "deep")
    run_batch(job(images, tmp_path / "one"), runner=here)
    run_batch(dataclasses.replace(job(tmp_path / "moved", tmp_path / "two")), runner=here)
    one, two = ({n: b for n, b in objects(tmp_path / out).items() if n.endswith(".dcm")} for out in ("one", "two"))
    assert one == two and len(one) >= 6


def test_another_operating_point_is_other_content(images: Path, tmp_path: Path) -> None:
    run_batch(job(images, tmp_path, ["sr"]), runner=here)
    (report,) = tmp_path.rglob("cad_sr.dcm")
    before = pydicom.dcmread(report).SOPInstanceUID
    settings = job(images, tmp_path).settings
    cluster = dataclasses.replace(settings.cluster, operating_point="sensitive")
    changed = dataclasses.replace(
        job(images, tmp_path, ["sr"]), settings=dataclasses.replace(settings, cluster=cluster)
    )
    run_batch(changed, runner=here)
    assert pydicom.dcmread(report).SOPInstanceUID != before


def test_what_the_sources_lack_is_in_the_warnings_and_failures_in_the_report(images: Path, tmp_path: Path) -> None:
    some, out = tmp_path / "some", tmp_path / "out"
    shutil.copytree(images, some)
    bare = pydicom.dcmread(some / "LCC.dcm")
    del bare.StudyInstanceUID
    bare.save_as(some / "LCC.dcm")
    cut = (some / "RCC.dcm").read_bytes()
    (some / "RCC.dcm").write_bytes(cut[: len(cut) // 2])
    for _ in range(2):  # the second time from what the first has noted
        run_batch(job(some, out), runner=here)
        warnings = {row["path"]: row["warnings"] for row in rows(out)}
        assert (
            "sr, tid1500, gsps, seg left out: the header of LCC.dcm has no valid Study Instance UID"
            in warnings["LCC.dcm"]
        )
        assert "left out" not in warnings["LMLO.dcm"] + warnings["RMLO.dcm"]
        assert [row["path"] for row in rows(out, "errors")] == ["RCC.dcm"]
    (report,) = out.rglob("cad_sr.dcm")
    read = read_cad_sr(report)
    assert sorted(image.failed for image in read.images) == [False, False, True]


def test_a_stopped_run_leaves_objects_to_the_next(images: Path, tmp_path: Path) -> None:
    asked = 0

    def stopped() -> bool:
        nonlocal asked
        asked += 1
        return asked > 0

    run_batch(job(images, tmp_path), stopped=stopped, runner=here)
    assert not (tmp_path / "dicom").exists()
    run_batch(job(images, tmp_path), runner=here)
    assert len(list(tmp_path.rglob("cad_sr.dcm"))) == 1


def test_pseudonyms_and_objects_exclude_each_other(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="exclude each other"):
        run_batch(dataclasses.replace(job(images, tmp_path, ["csv", "sr"]), pseudonymise=True), runner=here)


def test_workers_write_the_same(images: Path, tmp_path: Path) -> None:
    run_batch(job(images, tmp_path / "one", ["sr"]), runner=here)
    run_batch(job(images, tmp_path / "two", ["sr"]))
    one, two = ([p.read_bytes() for p in (tmp_path / out).rglob("cad_sr.dcm")] for out in ("one", "two"))
    assert one == two and len(one) == 1
