"""Input made to do harm: it writes nothing outside the result folder, and what it says comes out as harmless text."""

from __future__ import annotations

import csv
import html.parser
import io
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from detector.batch import FORMATS, Job, run_batch
from detector.evaluate.phantoms import Group, make_phantom
from detector.evaluate.recipes import Recipe
from detector.export.phantoms import write_dicom
from detector.export.tables import cell
from detector.records import Morphology
from tests.test_cli import start

UIDS = (
    "../../../../escaped",
    "/etc/escaped",
    "..\\..\\escaped",
    "1.2.3/../../escaped",
    "1.2.3\x1b]0;escaped\x07",
    "1." + "9" * 5000,
    "C:\\escaped",
    "con",
    "1.2.3\0.png",
)
TEXTS = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    '"><svg/onload=alert(1)>',
    "{{7*7}}",
    "javascript:alert(1)",
    "=HYPERLINK(1)",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\t=1+1",
    ";=1+1",
    "\x1b[2J\x1b]0;x\x07",
    "\x9b31m\u202e\u2066",
    "%n%s$(reboot)`id`",
    "line\r\n=end",
)
FIELDS = (
    "Manufacturer", "ManufacturerModelName", "SeriesDescription", "ProtocolName", "StudyDate", "ViewPosition",
    "AcquisitionDeviceProcessingDescription", "IrradiationEventUID", "AcquisitionUID", "AcquisitionDate",
    "AcquisitionTime", "PatientID", "StudyID", "AccessionNumber", "BodyPartExamined",
)  # fmt: skip
SMALL = Recipe(
    rows=400,
    cols=320,
    spacing_mm=0.25,
    groups=(Group(Morphology.FINE_PLEOMORPHIC, 8, extent_mm=6.0, size_mm=(0.8, 1.4)),),
)


def write_evil(folder: Path) -> Path:
    """Write one image a text and a UID; the names of the files and folders are as evil as a disk allows."""
    folder.mkdir()
    plain = write_dicom(folder.parent / "plain.dcm", make_phantom(1, SMALL)[0])
    for number, (text, uid) in enumerate(zip(TEXTS, itertools.cycle(UIDS), strict=False)):
        dataset = pydicom.dcmread(plain)
        for keyword in FIELDS:
            put(dataset, keyword, text)
        dataset.SpecificCharacterSet, dataset.SOPInstanceUID = "ISO_IR 192", f"1.2.3.{number}"
        put(dataset, "StudyInstanceUID", uid if number % 2 else f"1.2.4.{number}")
        if number >= len(TEXTS) - len(UIDS):
            put(dataset, "SOPInstanceUID", uid)
        place = folder / text.replace("/", "_").replace("\0", "_") / "evil <b>.dcm"
        place.parent.mkdir()
        dataset.save_as(place)
    return folder


def put(dataset: pydicom.Dataset, keyword: str, text: str) -> None:
    """Put in a value that pydicom would rather not write."""
    if keyword not in dataset:
        setattr(dataset, keyword, None)
    element = dataset[keyword]
    if element.VR in ("LO", "SH"):
        element._value = text
    elif element.VR in ("DA", "TM", "UI", "CS"):
        element._value = text.encode("ascii", "ignore").decode()


_ADDRESSES = ("href", "src", "action", "formaction", "data", "srcdoc", "xlink:href")


def _runs(address: str | None) -> bool:
    return re.match(r"\s*(javascript|data:text|vbscript)", address or "", re.I) is not None


class Tags(html.parser.HTMLParser):
    """Collects what a page would run or load."""

    def __init__(self) -> None:
        super().__init__()
        self.run: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.run += [f"{tag} {name}" for name, _ in attrs if name.startswith("on")]
        self.run += [f"{tag} {name}={value}" for name, value in attrs if name in _ADDRESSES and _runs(value)]
        if tag in ("svg", "img", "iframe", "object", "embed") and any(name in ("src", "data") for name, _ in attrs):
            self.run += [value for name, value in attrs if name in ("src", "data") and value == "x"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Return the result folder of a run with all formats over what is evil, and what it said."""
    root = tmp_path_factory.mktemp("evil") / "a/b/c/d"
    root.mkdir(parents=True)
    inputs, out = write_evil(root / "in"), root / "out"
    before = tree(root.parents[3], out)
    end = start("run", inputs, "--out", out, "--workers", 2, "--formats", ",".join(FORMATS), "--log-file", out / "log")
    said, errors = end.communicate()
    assert end.returncode in (0, 1), errors
    assert tree(root.parents[3], out) == before, "something was written outside the result folder"
    yield out, said + errors
    shutil.rmtree(root.parents[3])


def tree(folder: Path, without: Path) -> set[str]:
    return {str(p) for p in folder.rglob("*") if p != without and without not in p.parents}


def test_most_of_it_is_analysed(ran: tuple[Path, str]) -> None:
    """Else the rest would prove little."""
    out, said = ran
    with (out / "images.csv").open(encoding="utf-8", newline="") as handle:
        assert len(list(csv.DictReader(handle))) >= len(TEXTS) - 2, said


def test_names_are_plain(ran: tuple[Path, str]) -> None:
    out, _ = ran
    names = [path.relative_to(out).as_posix() for path in out.rglob("*")]
    assert [name for name in names if not re.fullmatch(r"[A-Za-z0-9._/-]{1,200}", name) or ".." in name] == []
    assert not [path for path in out.rglob("*") if path.is_symlink() or out not in path.resolve().parents]


def test_cells_do_nothing_in_a_spreadsheet_and_nothing_in_a_terminal(ran: tuple[Path, str]) -> None:
    out, _ = ran
    number = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?")
    for table in out.glob("*.csv"):
        text = table.read_bytes().decode("utf-8")
        for row in csv.reader(io.StringIO(text, newline="")):
            for value in row:
                assert value.isprintable(), (table.name, value)
                for part in re.split("[;,\t]", value):
                    assert number.fullmatch(part) or not re.match(r"\s*[=+\-@]", part), (table.name, value)


def test_text_is_printable_wherever_it_is_shown(ran: tuple[Path, str]) -> None:
    out, said = ran
    for text in (said, (out / "log").read_text("utf-8")):
        assert all(line.isprintable() for line in text.splitlines())
    for path in out.glob("**/*.json"):
        json.loads(path.read_text("utf-8"))
        assert path.read_bytes().isascii() or all(line.isprintable() for line in path.read_text("utf-8").splitlines())


def test_pages_run_nothing_of_it(ran: tuple[Path, str]) -> None:
    out, _ = ran
    pages = list(out.glob("**/*.html"))
    assert len(pages) > len(TEXTS) // 2
    texts = ""
    for page in pages:
        tags = Tags()
        tags.feed(source := page.read_text("utf-8"))
        assert tags.run == []
        assert "<script>alert(1)" not in source
        assert "49" not in re.findall(
            r"\{\{7\*7\}\}|(?<![\d.])49(?![\d.])", " ".join(re.findall(r"<h1>.*?</h1>", source))
        )
        assert all(line.isprintable() for text in tags.texts for line in text.split("\n") if "\t" not in line)
        texts += " ".join(tags.texts)
    assert "=HYPERLINK" in texts  # it is shown, as text


def test_objects_are_valid_files_of_their_study_folder(ran: tuple[Path, str]) -> None:
    out, _ = ran
    objects = list((out / "dicom").rglob("*.dcm"))
    assert objects
    for path in objects:
        uid = str(pydicom.dcmread(path).SOPInstanceUID)
        assert re.fullmatch(r"[0-9.]{1,64}", uid)


def test_case_ids_of_the_users_table_are_harmless_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    mammogram, cases = make_phantom(1, SMALL)[0], {}
    for number, text in enumerate(TEXTS):
        write_dicom(tmp_path / f"in/{number:02}.dcm", mammogram, case=number + 1)
        cases[f"{number:02}.dcm"] = text
    job = Job((tmp_path / "in",), tmp_path / "out", cases=cases, formats=frozenset({"csv", "report"}))
    run_batch(job, runner=lambda tasks, work, *_: ((task, work(task)) for task in tasks))
    with (tmp_path / "out/images.csv").open(encoding="utf-8", newline="") as handle:
        assert [row["case_id"] for row in csv.DictReader(handle)] == [cell(text) for text in TEXTS]
    assert all(re.fullmatch(r"[A-Za-z0-9._/-]+", str(p.relative_to(tmp_path))) for p in (tmp_path / "out").rglob("*"))
    assert len(list((tmp_path / "out/report").glob("*.html"))) == len(TEXTS)
    for page in (tmp_path / "out").rglob("*.html"):
        tags = Tags()
        tags.feed(page.read_text("utf-8"))
        assert tags.run == []
