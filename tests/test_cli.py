"""The command: what it offers, what it refuses and how, and that runs end and resume as promised."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from detector.batch import Job, run_batch
from detector.cli import NOT_A_DIAGNOSIS, app, main
from detector.errors import explain_missing, extra_missing
from detector.settings import Settings
from tests.dicom_files import breast_pixels, make_mammogram, save

ROOT = Path(__file__).parents[1]
TABLES = ("images.csv", "spots.csv", "clusters.csv", "errors.csv", "skipped.csv")
COMMANDS = ("run", "info", "settings", "phantom", "evaluate", "report", "review", "send")


def call(*arguments: object) -> Result:
    """Call the command in this process, as `main` does."""
    return CliRunner().invoke(app, list(map(str, arguments)))


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """Return what the command says as it ends with status 2."""
    monkeypatch.setattr(sys, "argv", ["detector", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return " ".join(said.err.split())


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start the command in a process group of its own, as a terminal does."""
    command = [sys.executable, "-c", "from detector.cli import main; main()", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=ROOT, start_new_session=True)


def make_images(folder: Path, number: int, shape: tuple[int, int] = (256, 200)) -> Path:
    folder.mkdir()
    for i in range(number):
        spacing = f"{102.4 / shape[0]:.6g}"
        dataset = make_mammogram(
            breast_pixels(shape, seed=i), SOPInstanceUID=f"1.2.3.{i}", ImagerPixelSpacing=[spacing, spacing]
        )
        save(folder / f"{i}.dcm", dataset)
    return folder


# ----------------------------------------------------------------------------------------------------- what it offers


def test_the_commands_are_these_and_each_help_shows_an_example() -> None:
    assert {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    } == set(COMMANDS)
    for command in ((), *((name,) for name in COMMANDS)):
        shown = call(*command, "--help")
        assert shown.exit_code == 0
        assert "Example: detector" in shown.output


def test_the_help_is_not_cut_and_explains_all() -> None:
    assert "..." not in call("--help").output.split("Commands:")[1]
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    for name, command in group.commands.items():
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys, detector.cli
try:
    detector.cli.main()
except SystemExit:
    print(*(m for m in ("numpy", "cv2", "pydicom", "scipy", "rich", "sqlite3", "multiprocessing") if m in sys.modules))
"""
    end = subprocess.run([sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert end.stdout.splitlines()[-1] == ""


def test_version_is_shown() -> None:
    assert call("--version").output.startswith("microcalcification-detector ")


def test_settings_are_shown_as_a_file_that_can_be_given_back() -> None:
    shown = call("settings").output
    assert tomllib.loads(shown) == Settings().to_mapping()
    assert "source:" in shown


def test_phantoms_are_written_with_their_truth_and_info_reads_them(tmp_path: Path) -> None:
    made = call("phantom", "--out", tmp_path / "new", "--seed", 5, "--side", "R", "--view", "MLO")
    assert made.exit_code == 0
    assert {p.name for p in (tmp_path / "new").iterdir()} == {
        f"phantom_5_RMLO{rest}" for rest in (".dcm", "_spots.csv", "_clusters.csv")
    }
    shown = call("info", tmp_path / "new/phantom_5_RMLO.dcm").output
    facts = dict(line.split(":", 1) for line in shown.splitlines())
    assert facts["side, view"].lstrip() == "R, MLO"
    assert facts["pixel spacing"].strip() == "0.07 x 0.07 mm (rows, columns)"
    assert facts["quality"].strip() == "good"
    truth = (tmp_path / "new/phantom_5_RMLO_spots.csv").read_text().splitlines()
    assert len(truth) > 10
    assert truth[1].startswith(facts["image"].strip() + ",1,")


# ---------------------------------------------------------------------------------------------------- what it refuses


def test_wrong_usage_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(tmp_path / "in", 1)
    (tmp_path / "file").write_text("")
    (tmp_path / "unknown.toml").write_text("[cluster]\nlinks_mm = 3\n")
    (tmp_path / "range.toml").write_text("[cluster]\nlink_mm = 300\n")
    (tmp_path / "map.csv").write_text("path\n")
    for arguments, words in (
        (
            ("--formats", "csv,srt"),
            "'srt' is not offered; there are csv, json, parquet, overlay, crops, report, sr, tid1500, gsps, seg",
        ),
        (("--formats", ""), "--formats: name at least one of csv, json"),
        (("--formats", " ,"), "--formats: name at least one of csv, json"),
        (("--formats", "\x1b[2J"), r"'\x1b[2J' is not offered"),
        (("--settings", tmp_path / "unknown.toml"), "unknown setting cluster.links_mm"),
        (("--settings", tmp_path / "range.toml"), "cluster.link_mm = 300 is not allowed; it must be from 0.5 to 30"),
        (("--settings", tmp_path / "none.toml"), "none.toml cannot be read"),
        (("--max-megapixels", 0), "read.max_megapixels = 0.0 is not allowed"),
        (("--operating-point", "wild"), "'wild' is not one of"),
        (("--min-confidence", 1.5), "--min-confidence"),
        (("--spacing-mm", 0), "--spacing-mm"),
        (("--spacing-mm", "nan"), "--spacing-mm"),
        (("--spacing-map", tmp_path / "map.csv"), "no column spacing_mm"),
        (("--cases", tmp_path / "map.csv"), "no column case_id"),
        (
            ("--spacing-map", tmp_path / "none.csv"),
            "none.csv does not exist; give a CSV file with the columns path,spacing",
        ),
        (("--cases", tmp_path / "none.csv"), "none.csv does not exist; give a CSV file with the columns path,case_id"),
        (("--cases", tmp_path), "cannot be read: Is a directory; give a CSV file"),
        (("--workers", 0), "--workers"),
        (("--log-file", tmp_path / "file/run.log"), "run.log cannot be written"),
        (("--out", tmp_path / "file"), "file is a file, not a folder; choose another --out"),
        (("--out", tmp_path / "file/x"), "file is a file, not a folder; choose another --out"),
        (("--out", tmp_path / "file", "--dry-run"), "file is a file, not a folder; choose another --out"),
        (("--unknown",), "--unknown"),
    ):
        said = refused(capsys, monkeypatch, "run", tmp_path / "in", "--out", tmp_path / "out", *arguments)
        assert words in said
    assert "missing" in refused(capsys, monkeypatch, "run", tmp_path / "missing", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "it cannot be opened" in refused(capsys, monkeypatch, "info", tmp_path / "missing.dcm")
    for command in (("phantom",), ("evaluate", "marks", tmp_path / "map.csv")):
        said = refused(capsys, monkeypatch, *command, "--out", tmp_path / "file")
        assert said == f"detector: {tmp_path / 'file'} is a file, not a folder; choose another --out"


def test_a_missing_extra_is_named_with_its_install_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = refused(capsys, monkeypatch, "run", tmp_path, "--out", tmp_path / "out", "--formats", "parquet")
    assert f"{sys.executable} -m pip install -e '{ROOT}[parquet]'" in said
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, "detector.batch.cluster", raising=False)
    said = refused(capsys, monkeypatch, "run", tmp_path, "--out", tmp_path / "out", "--cluster", "tcp://a:1")
    assert f"-m pip install -e '{ROOT}[cluster]'" in said


def test_an_installed_program_asks_for_the_projects_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("detector.errors.__file__", str(tmp_path / "site-packages" / "detector" / "errors.py"))
    said = extra_missing("sending", "pynetdicom", "dicom")
    assert said.startswith("sending needs pynetdicom, which is not installed; install it in the project's folder with")
    assert said.endswith(f"{sys.executable} -m pip install '.[dicom]'")


def test_a_missing_library_is_one_sentence(tmp_path: Path) -> None:
    code = "import sys; sys.modules['cv2'] = None; from detector.cli import main; main()"
    command = [sys.executable, "-c", code, "run", str(tmp_path), "--out", str(tmp_path / "out")]
    end = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (end.returncode, end.stdout) == (2, "")
    assert end.stderr.startswith("detector: a library is missing")
    assert len(end.stderr.splitlines()) == 1
    assert "libgl1" in explain_missing(ImportError("libGL.so.1: cannot open shared object file"))


def test_a_folder_in_use_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_images(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = refused(capsys, monkeypatch, "run", tmp_path / "in", "--out", tmp_path / "out")
    assert "in use by another run" in said


def test_flags_come_before_the_file_and_the_file_before_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "mine.toml").write_text(
        '[cluster]\noperating_point = "specific"\nlink_mm = 4\n[read]\nmax_megapixels = 9\n'
    )
    arguments = ("run", tmp_path / "in", "--out", tmp_path / "out", "--settings", tmp_path / "mine.toml")
    for flags, expected in (
        ((), ("specific", 4.0, 9.0)),
        (("--operating-point", "sensitive"), ("sensitive", 4.0, 9.0)),
    ):
        assert call(*arguments, *flags).exit_code == 2  # for want of mammograms, but the manifest is there
        used = json.loads((tmp_path / "out/manifest.json").read_text())["settings"]
        assert (
            used["cluster"]["operating_point"],
            used["cluster"]["link_mm"],
            used["read"]["max_megapixels"],
        ) == expected
        assert used["assess"] == Settings().to_mapping()["assess"]


def test_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 2)
    shown = call("run", tmp_path / "in", "--out", tmp_path / "out", "--dry-run")
    assert shown.exit_code == 0
    assert "2 files, 0 other things skipped." in shown.output
    assert "0 done already, 2 to do" in shown.output
    assert not (tmp_path / "out").exists()


def test_one_is_not_said_in_the_plural(tmp_path: Path) -> None:
    inputs, out = make_images(tmp_path / "in", 2), tmp_path / "out"
    (inputs / ".hidden").write_text("")
    (inputs / "1.dcm").rename(tmp_path / "1.dcm")
    (tmp_path / "cases.csv").write_text("path,case_id\nnone.dcm,A\n")
    shown = call("run", inputs, "--out", out, "--dry-run", "--workers", 1).output
    assert shown.startswith("1 file, 1 other thing skipped.\n")
    assert " with 1 worker and " in shown
    run_here(inputs, out)
    said = call("run", tmp_path / "1.dcm", "--out", out, "--workers", 1, "--cases", tmp_path / "cases.csv").output
    assert "No file was found for 1 path of --cases or --spacing-map.\n" in said
    assert "also holds 1 image of earlier runs on other paths, now in no table.\n" in said


@pytest.mark.parametrize(
    ("files", "status", "words"),
    [
        ((), 2, "detector: no mammogram was found: there are no files\n"),
        (("a.txt",), 2, "detector: no mammogram was found: 1 skipped ({out}/skipped.csv says why)\n"),
        (
            ("a.txt", "dangling"),
            1,
            "No mammogram was analysed: 1 failed ({out}/errors.csv says why),"
            " 1 skipped ({out}/skipped.csv says why).\n",
        ),
    ],
)
def test_a_run_that_finds_nothing_says_so_in_one_sentence(
    tmp_path: Path, files: tuple[str, ...], status: int, words: str
) -> None:
    inputs, out = tmp_path / "in", tmp_path / "OUT"
    inputs.mkdir()
    for name in files:
        if name == "dangling":
            (inputs / name).symlink_to(inputs / "nothing")
        else:
            (inputs / name).write_text("x")
    end = call("run", inputs, "--out", out, "--workers", 1)
    assert (end.exit_code, end.output) == (status, words.format(out=out))


# ------------------------------------------------------------------------------------------------------------- a run


def run_here(inputs: Path, out: Path) -> None:
    """Do the work of a run in this process, one file after the other."""
    run_batch(Job((inputs,), out), runner=lambda tasks, work, *_: ((task, work(task)) for task in tasks))


def test_a_run_of_two_workers_ends_with_a_summary_and_the_tables_of_one(tmp_path: Path) -> None:
    inputs, out = make_images(tmp_path / "in", 3), tmp_path / "out"
    said, errors = (end := start("run", inputs, "--out", out, "--workers", 2)).communicate()
    assert end.returncode == 0, errors
    assert said.startswith("3 analysed, 0 failed, 0 skipped.\n")
    assert said.endswith(f"{NOT_A_DIAGNOSIS}\n")
    run_here(inputs, tmp_path / "here")
    for name in TABLES:
        assert (out / name).read_bytes() == (tmp_path / "here" / name).read_bytes()
    again = call("run", inputs, "--out", out)
    assert (again.exit_code, again.output) == (0, said)
    quiet = call("run", inputs, "--out", out, "--quiet")
    assert (quiet.exit_code, quiet.output) == (0, "")


def runs(pid: int) -> bool:
    """Return whether a process does anything still: one that has ended may stay in the list until it is collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(seen: Callable[[], object], end: subprocess.Popen[str]) -> None:
    """Wait until a condition holds, while the command runs."""
    while not seen():
        assert end.poll() is None, end.communicate()
        time.sleep(0.01)


def workers_of(end: subprocess.Popen[str]) -> list[int]:
    """Return the process ids of the workers, by what they were started to do."""
    workers = []
    for child in Path(f"/proc/{end.pid}/task/{end.pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                workers.append(int(child))
    return workers


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_a_run_that_is_killed_resumes_to_the_same_tables(tmp_path: Path) -> None:
    inputs, out = make_images(tmp_path / "in", 5, (480, 375)), tmp_path / "out"
    arguments = ("run", inputs, "--out", out, "--workers", 1)

    def done() -> int:
        return len(list((out / "overlays").glob("*.png")))

    end = start(*arguments)
    until(lambda: done() > 0, end)
    os.kill(workers_of(end)[0], signal.SIGKILL)
    before = done()
    until(lambda: done() > before, end)
    orphans = workers_of(end)
    end.kill()
    end.communicate()

    end = start(*arguments)
    _, errors = end.communicate()
    assert end.returncode == 0, errors
    deadline = time.monotonic() + 60
    while any(runs(pid) for pid in orphans):
        assert time.monotonic() < deadline, "a worker outlives its parent"
        time.sleep(0.05)
    run_here(inputs, tmp_path / "here")
    for name in TABLES:
        assert (out / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_ends_in_good_order(tmp_path: Path, number: int, status: int) -> None:
    inputs, out = make_images(tmp_path / "in", 3), tmp_path / "out"
    end = start("run", inputs, "--out", out, "--workers", 1)
    until(lambda: (out / ".partial").exists() and workers_of(end), end)
    os.killpg(end.pid, number)
    said, errors = end.communicate()
    assert (end.returncode, errors) == (status, "")
    assert "the same command resumes" in said
    assert json.loads((out / "manifest.json").read_text())["finished"] is False
    assert (out / "images.csv").exists()
    assert not (out / ".partial").exists()
