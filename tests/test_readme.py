"""What README.md tells: its commands are taken, its options, columns, files and names exist, its example runs."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

import detector
from detector.batch import FORMATS
from detector.cli import app
from scripts import bench
from scripts.readme import ROOT, accuracy, commands, parts, put, speed
from tests.review_cases import make_results, make_view

README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
NOT_IN_THE_TABLE = {".lock", ".partial"}
"""Of no use to anyone but the next run."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def arguments_of_detect(line: str) -> list[str]:
    """Return what scripts/detect would hand to `detector`."""
    words = shlex.split(line.split(">")[0])[1:]
    return words if words[0] in COMMANDS else ["run", *words]


def detect_lines() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("scripts/detect ")]
    others = ("send ", "review ", "report ")  # a PACS must answer, results must be there
    return [line for line in lines if not line.startswith(tuple(f"scripts/detect {name}" for name in others))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, made the current one, that holds the folders of images that README.md names."""
    monkeypatch.chdir(tmp_path)
    for name in ("sample_data", "mammograms", "films", "inbox"):
        (tmp_path / name).mkdir()
        shutil.copy(ROOT / "sample_data/LCC.dcm", tmp_path / name)
    return tmp_path


# --------------------------------------------------------------------------------------------------------------
# what is printed


def test_the_first_screen_says_what_it_is_what_it_is_not_and_how_to_start() -> None:
    first = README[: README.index("\n## ")]
    assert first.index("docs/overlay.jpg") < first.index("Intended use") < first.index("What it is not")
    assert len(first.splitlines()) < 40
    assert commands(README) == ["scripts/detect sample_data --out results", "scripts/test"]
    words = " ".join(first.replace("*", "").split())
    for said in ("research, and a second look at calcifications on standard views", "not cleared", "never diagnoses"):
        assert said in words
    for never in ("triage", "rule-out", "unsupervised use", "specimens", "implants", "tomosynthesis", "normal"):
        assert never in words[words.index("What it is not") :]


@pytest.mark.parametrize(("name", "content"), parts().items(), ids=parts())
def test_generated_parts_are_up_to_date(name: str, content: str) -> None:
    assert put(README, name, content) == README, "run scripts/readme"


def test_no_part_is_missing_and_none_left_empty() -> None:
    names = re.findall(r"<!-- (?!end of)(.*?) -->", README)
    assert set(parts()) | {"times"} <= set(names)
    assert re.findall(r"<!-- (.*?) -->\s*<!-- end of \1 -->", README) == []


@pytest.mark.parametrize(
    "name", ["overlay.jpg", "crop.jpg", "ohif.jpg", "presentation_state.jpg", "review_case.jpg", "review_worklist.jpg"]
)
def test_pictures_are_there_and_not_too_large(name: str) -> None:
    path = ROOT / "docs" / name
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        assert max(picture.size) >= 1000
    assert path.stat().st_size < 500_000


def test_numbers_of_other_papers_are_found_in_them(tmp_path: Path) -> None:
    rooms = {"detect": 0.5}
    around = {"read and decode": 0.1, "draw overlay": 0.3}
    dog, log = bench.Peer(4.3, 20.1), bench.Peer(6.2, 19.8)
    others = (10.2, (3.0, 3.1, 3.2), (6.0, 6.1, 6.2))
    times = bench.Times(0.61, dog, log, 0.2, (6.9, 7.04, 7.2), *others, rooms, around)
    (tmp_path / "BENCHMARKS.md").write_text(bench.report(times, {"4096 x 3328": 600.0}, None, 3))
    for number in ("4096 x 3328", "0.61 s", "7.0 times", "about 1 s", "600 MB for", bench.processor()):
        assert number in speed(tmp_path)
    block = "<!-- {0} -->\nOn {0}.\n\n| x |\n|---|\n| {0} |\n\n| y |\n<!-- end of {0} -->\n"
    tables = block.format("film") + block.format("digital")
    (tmp_path / "ACCURACY.md").write_text(tables)
    assert "\n\n| x |\n|---|\n| film |\n\nDigital" in accuracy(tmp_path)
    (tmp_path / "ACCURACY.md").write_text(re.sub(r"[|].*", "", tables))
    assert accuracy(tmp_path) == ""


def links() -> Iterator[str]:
    yield from re.findall(r"\]\(([^)]+)\)", README)
    yield from re.findall(r'(?:src|href)="([^"]+)"', README)


@pytest.mark.parametrize("link", sorted(set(links())))
def test_links_lead_somewhere(link: str) -> None:
    file, _, heading = link.partition("#")
    text = (ROOT / file).read_bytes().decode("utf-8", "ignore")
    assert not heading or re.search(rf"^#+ {heading}$", text, re.MULTILINE | re.IGNORECASE)


# --------------------------------------------------------------------------------------------------------------
# commands


def test_every_option_exists() -> None:
    known = {option for command in COMMANDS.values() for p in command.params for option in (*p.opts, *p.secondary_opts)}
    ours = re.sub(r"^\.venv/bin/dask .*$", "", README, flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w<!-])--[a-z][a-z-]*", ours))
    assert named - known - {"--help"} == set()


@pytest.mark.parametrize("line", detect_lines())
def test_every_command_is_taken(line: str, folder: Path) -> None:
    arguments = arguments_of_detect(line)
    (folder / "mine.toml").write_text(detector.Settings().to_toml())
    if arguments[0] == "run" and "--dry-run" not in arguments:
        arguments.append("--dry-run")
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    if ">" in line:
        assert detector.Settings.from_toml(done.stdout) == detector.Settings()


def test_every_command_on_results_is_taken(folder: Path) -> None:
    make_results(folder / "results", {"case": [make_view("1.2.3", "L", "CC", "left")]})
    lines = re.findall(r"^scripts/detect ((?:review|report) .*)$", README, re.MULTILINE)
    assert {line.split()[0] for line in lines} == {"review", "report"}
    for line in lines:
        ending = (
            [] if line.startswith("report") or "--export" in line else ["--export", "decisions.csv"]
        )  # or it serves
        done = CliRunner().invoke(app, [*shlex.split(line), *ending])
        assert done.exit_code == 0, done.output


def test_formats_are_those_that_there_are() -> None:
    sentence = README[README.index("`--formats` takes") :].split(";")[0]
    assert re.findall(r"`(\w+)`", sentence) == list(FORMATS)


def test_a_run_leaves_what_the_table_says_and_nothing_else(folder: Path) -> None:
    (command,) = [line for line in detect_lines() if "--formats" in line]
    done = CliRunner().invoke(app, [*arguments_of_detect(command), "--workers", "1"])
    assert done.exit_code == 0, done.output
    out = folder / "results"
    named = re.findall(r"^\| `([\w./]+)` \| ", README[README.index("## What a run leaves") :], re.MULTILINE)
    there = {path.name + "/" * path.is_dir() for path in out.iterdir() if path.name not in NOT_IN_THE_TABLE}
    assert there == {name for name in named if "/" in name or "." in name}
    assert len(list((out / "overlays").iterdir())) == 1


# --------------------------------------------------------------------------------------------------------------
# Python


def test_the_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = blocks("python")
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    exec(example, names)
    assert isinstance(names["reading"], detector.Reading)
    assert names["reading"].settings["cluster"]["operating_point"] == "sensitive"
    assert getattr(names["picture"], "shape", ()) == (1920, 1440, 3)


def test_every_name_of_the_package_exists() -> None:
    named = set(re.findall(r"\bdetector\.([A-Za-z_]\w*)", README))
    assert named >= {"read_mammogram", "analyse", "draw_overlay", "make_phantom"}
    assert named - set(detector.__all__) == set()
