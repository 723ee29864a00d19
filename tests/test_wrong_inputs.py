"""A folder with all that can be wrong: each thing ends in a row with a sentence, and the good ones are analysed."""

from __future__ import annotations

import csv
import ctypes
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset

from tests.dicom_files import SECONDARY_CAPTURE, breast_pixels, make_mammogram, save

GOOD = {
    "plain.dcm": "",
    "with spaces and 100 %": "",
    "Übersicht äöü ß 乳房.dcm": "",
    "=HYPERLINK(evil).dcm": "",
    "--out.dcm": "",
    "deep/er/IM0001": "",
    "'quoted\" $(reboot) `id`;.dcm": "",
    "n" * 251 + ".dcm": "",
    "line\nend\x1b[31m.dcm": "line\\x0aend\\x1b[31m.dcm",
    "no utf-8 \udcff.dcm": "no utf-8 \\xff.dcm",
    "uid goes up.dcm": "",
}
"""Names of good images and, where it differs, what the tables call them."""

FAILED = {
    "bomb.dcm": "BadPixels: .*megapixels",
    "cut in header.dcm": r"(ReadError|BadPixels): .*(damaged|cut short)",
    "cut in pixels.dcm": "BadPixels: .*cut short",
    "dangling link": "ReadError: .*link to something that is not there",
    "huge.dcm": "BadPixels: .*3,600 megapixels.*--max-megapixels",
    "link to itself": "ReadError: .*cannot be opened",
    "locked folder": "ReadError: .*permission denied",
    "locked.dcm": "ReadError: .*permission denied",
    "nested.dcm": "(ReadError|BadPixels): .*",
    "no pixels.dcm": "BadPixels: .*no pixels",
    "no spacing.dcm": "NoPixelSpacing: .*--spacing-mm",
    "other bytes.dcm": "UIDReused: Original.dcm has the same SOP Instance UID",
    "reduced.dcm": "NoPixelSpacing: .*field of",
    "spacing absurd.dcm": "NoPixelSpacing: .*not plausible",
    "syntax unknown.dcm": "BadPixels: .*transfer syntax.*not supported",
    "wrong length.dcm": "BadPixels: .*",
    "damaged jpeg.dcm": "BadPixels: .*damaged",
}
SKIPPED = {
    ".hidden.dcm": "hidden",
    "DICOMDIR": "DICOMDIR",
    "archive.zip": "zip archive",
    "biopsy.dcm": "biopsy",
    "colour.dcm": "colour",
    "colour.png": "colour",
    "copy.dcm": "duplicate of Original.dcm",
    "ct.dcm": r"another (modality|kind).*CT",
    "earlier run": "results of an earlier run",
    "empty.dcm": "empty",
    "flat.dcm": "flat-field",
    "gsps.dcm": "another kind.*Presentation State",
    "link to above": "searched already",
    "notes.txt": "no image",
    "photo.jpg": "JPEG",
    "pipe": "pipe",
    "projection.dcm": "projection",
    "quality.dcm": "quality-control",
    "random.dcm": "nothing in its header",
    "report.dcm": "another kind.*SR",
    "report.pdf": "PDF",
    "scan.png": "no spacing",
    "specimen.dcm": "specimen",
    "tomo.dcm": "tomosynthesis",
}


def mammogram(number: int, **attributes: Any) -> Dataset:
    """Return a mammogram with UIDs of its own."""
    uids = {"SOPInstanceUID": f"1.2.826.0.1.3680043.8.498.9.{number}", "StudyInstanceUID": f"1.2.3.{number}"}
    return make_mammogram(**{**uids, **attributes})


def make_good(folder: Path) -> None:
    for number, name in enumerate(GOOD):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, make_mammogram(breast_pixels(seed=number), SOPInstanceUID=f"1.2.3.4.{number}"))
    dataset = mammogram(99)
    path = save(folder / "uid goes up.dcm", dataset)
    uid = dataset.SOPInstanceUID.encode()
    path.write_bytes(
        path.read_bytes().replace(uid, b"../../../../../../tmp/evil/uid/x/y".ljust(len(uid), b"z")[: len(uid)])
    )


def make_failed(folder: Path) -> None:
    whole = save(folder / "whole", mammogram(1)).read_bytes()
    (folder / "whole").unlink()
    (folder / "cut in header.dcm").write_bytes(whole[:300])
    (folder / "cut in pixels.dcm").write_bytes(whole[:-20_000])
    (folder / "random.dcm").write_bytes(bytes(128) + b"DICM" + np.random.default_rng(0).bytes(5000))
    (folder / "dangling link").symlink_to(folder / "nothing")
    (folder / "link to itself").symlink_to(folder / "link to itself")
    (folder / "locked folder").mkdir()
    save(folder / "locked.dcm", mammogram(2))
    save(folder / "huge.dcm", mammogram(3, Rows=60000, Columns=60000))
    save(folder / "no pixels.dcm", mammogram(4, PixelData=None))
    save(folder / "no spacing.dcm", mammogram(5, ImagerPixelSpacing=None))
    save(folder / "Original.dcm", mammogram(6))
    shutil.copy(folder / "Original.dcm", folder / "copy.dcm")
    save(folder / "other bytes.dcm", mammogram(6, SeriesDescription="other"))
    save(folder / "reduced.dcm", mammogram(7, ImagerPixelSpacing=["0.07", "0.07"]))
    save(folder / "spacing absurd.dcm", mammogram(8, ImagerPixelSpacing=["40", "40"]))
    save(folder / "wrong length.dcm", mammogram(9, Rows=300))
    damaged = mammogram(10, syntax="1.2.840.10008.1.2.4.70")
    damaged.PixelData = damaged.PixelData[:60] + bytes(len(damaged.PixelData) - 80) + damaged.PixelData[-20:]
    save(folder / "damaged jpeg.dcm", damaged)
    unknown = save(folder / "syntax unknown.dcm", mammogram(11, syntax="1.2.840.10008.1.2.4.70"))
    unknown.write_bytes(unknown.read_bytes().replace(b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.77"))
    make_bombs(folder)


def make_bombs(folder: Path) -> None:
    deflated = save(folder / "bomb.dcm", mammogram(12, syntax="1.2.840.10008.1.2.1.99", Rows=60000, Columns=60000))
    data = deflated.read_bytes()
    start = 132 + 12 + struct.unpack("<L", data[140:144])[0]
    body = zlib.decompress(data[start:], -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    deflated.write_bytes(data[:start] + packer.compress(body + bytes(200 << 20)) + packer.flush())
    whole = save(folder / "nested.dcm", mammogram(13)).read_bytes()
    start = 132 + 12 + struct.unpack("<L", whole[140:144])[0]
    sequence = struct.pack("<HH2sHL", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    (folder / "nested.dcm").write_bytes(whole[:start] + 1000 * sequence + whole[start:])


def make_skipped(folder: Path) -> None:
    save(folder / ".hidden.dcm", mammogram(20))
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "notes.txt").write_text("Patient Jane Doe")
    (folder / "report.pdf").write_bytes(b"%PDF-1.4\n")
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        archive.writestr("../../evil.dcm", "x")
    os.mkfifo(folder / "pipe")
    (folder / "link to above").symlink_to(folder)
    (folder / "earlier run/overlays").mkdir(parents=True)
    (folder / "earlier run/manifest.json").write_text('{"program": "microcalcification-detector"}')
    save(folder / "earlier run/overlays/inside.dcm", mammogram(21))
    picture = breast_pixels()
    (folder / "scan.png").write_bytes(imagecodecs.png_encode(picture))
    (folder / "colour.png").write_bytes(imagecodecs.png_encode(np.zeros((9, 9, 3), np.uint8)))
    (folder / "photo.jpg").write_bytes(imagecodecs.jpeg8_encode(np.zeros((9, 9), np.uint8)))
    prefix = "1.2.840.10008.5.1.4.1.1."
    save(folder / "ct.dcm", mammogram(22, SOPClassUID=f"{prefix}2", Modality="CT"))
    save(folder / "report.dcm", mammogram(23, SOPClassUID=f"{prefix}88.50", Modality="SR", PixelData=None))
    save(folder / "gsps.dcm", mammogram(24, SOPClassUID=f"{prefix}11.1", Modality="PR", PixelData=None))
    save(folder / "tomo.dcm", mammogram(25, SOPClassUID=f"{prefix}13.1.3"))
    save(folder / "projection.dcm", mammogram(26, SOPClassUID=f"{prefix}13.1.4"))
    save(folder / "DICOMDIR", mammogram(27, SOPClassUID="1.2.840.10008.1.3.10", PixelData=None))
    save(folder / "specimen.dcm", mammogram(28, ImageType=["ORIGINAL", "PRIMARY", "SPECIMEN"]))
    save(folder / "biopsy.dcm", mammogram(29, ImageType=["ORIGINAL", "PRIMARY", "STEREO_SCOUT"]))
    save(folder / "flat.dcm", mammogram(30, ImageType=["ORIGINAL", "PRIMARY", "FLAT_FIELD"]))
    save(folder / "quality.dcm", mammogram(31, QualityControlImage="YES"))
    colours = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    save(
        folder / "colour.dcm",
        mammogram(32, pixels=np.zeros((9, 27), np.uint8), SOPClassUID=SECONDARY_CAPTURE, Columns=9, **colours),
    )


def heed_permissions() -> Callable[[], None] | None:
    """Return what makes a process heed permissions even if root runs the tests: it gives up that privilege."""
    if os.geteuid() != 0:
        return None
    libc = ctypes.CDLL(None)

    def drop() -> None:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH; 24 is PR_CAPBSET_DROP
            libc.prctl(24, capability, 0, 0, 0)

    return drop


def snapshot(folder: Path, without: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of all that lies in a folder but in another."""
    return {
        str(p): (p.lstat().st_size, p.lstat().st_mtime_ns)
        for p in folder.rglob("*")
        if p != without and without not in p.parents
    }


def detector(*arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home)}
    command = [sys.executable, "-c", "from detector.cli import main; main()", *map(str, arguments)]
    return subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[1],
        preexec_fn=heed_permissions(),
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str], bool]:
    """Return the result folder of a run over everything wrong, how it ended, and whether all else was left alone."""
    root = tmp_path_factory.mktemp("wrong")
    (root / "in").mkdir()
    (root / "home").mkdir()
    for make in (make_good, make_failed, make_skipped):
        make(root / "in")
    (root / "in/locked folder").chmod(0)
    (root / "in/locked.dcm").chmod(0)
    out = root / "in/out"
    out.mkdir()
    before = snapshot(root, out)
    end = detector("run", root / "in", "--out", out, "--workers", 2, "--log-file", out / "run.log", home=root / "home")
    after = snapshot(root, out)
    (root / "in/locked folder").chmod(0o700)
    return out, end, before == after


def test_there_are_enough_wrong_things() -> None:
    assert len(FAILED) + len(SKIPPED) >= 30


def test_each_wrong_thing_is_a_row_with_a_sentence(ran: tuple[Path, Any, bool]) -> None:
    errors = {row["path"]: f"{row['error']}: {row['message']}" for row in table(ran[0] / "errors.csv")}
    skipped = {row["path"]: row["reason"] for row in table(ran[0] / "skipped.csv")}
    assert set(errors) == set(FAILED)
    assert set(skipped) == set(SKIPPED)
    for rows, expected in ((errors, FAILED), (skipped, SKIPPED)):
        for path, words in expected.items():
            assert re.search(words, rows[path]), f"{path}: {rows[path]}"


def test_the_good_ones_are_analysed(ran: tuple[Path, Any, bool]) -> None:
    images = {row["path"]: row for row in table(ran[0] / "images.csv")}
    names = {shown or name for name, shown in GOOD.items()} | {"Original.dcm"}
    assert set(images) == {re.sub(r"^(?=[=-])|(?<=;)(?=[=-])", "'", name) for name in names}
    assert len({row["image_id"] for row in images.values()}) == len(images)
    assert len(list((ran[0] / "overlays").iterdir())) == len(images)


def test_the_end_tells_that_some_failed(ran: tuple[Path, Any, bool]) -> None:
    end = ran[1]
    assert end.returncode == 1
    assert f"{len(GOOD) + 1} analysed, {len(FAILED)} failed, {len(SKIPPED)} skipped." in end.stdout
    assert "errors.csv" in end.stdout
    assert "Not a diagnosis" in end.stdout
    assert "Traceback" not in end.stdout + end.stderr


def test_nothing_is_written_elsewhere(ran: tuple[Path, Any, bool]) -> None:
    assert ran[2]


def test_no_patient_is_named_and_no_terminal_is_fooled(ran: tuple[Path, Any, bool]) -> None:
    out, end, _ = ran
    texts = [end.stdout, end.stderr, (out / "run.log").read_text("utf-8")]
    texts += [path.read_text("utf-8") for path in (*out.glob("*.csv"), *out.glob("*.json"), *out.glob("readings/*/*"))]
    assert len(texts) > 10
    for text in texts:
        assert not re.search("Secret|SECRET|19010203|Jane", text)
        assert all(line.isprintable() for line in text.splitlines())


def test_nothing_to_analyse_is_status_2(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/.notes.txt").write_text("x")
    end = detector("run", tmp_path / "in", "--out", tmp_path / "out", home=tmp_path)
    assert end.returncode == 2
    assert "no mammogram" in end.stderr
    assert [row["path"] for row in table(tmp_path / "out/skipped.csv")] == [".notes.txt"]
