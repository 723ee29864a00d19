"""What a stranger meets first: licence, lock files, change log, and the commands that set the project up."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts import environment

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {name: (ROOT / f"scripts/locks/{name}.txt").read_text() for name in ("run", "test")}
SHELL_SCRIPTS = (
    *(f"scripts/{name}" for name in ("detect", "docs", "endurance", "faults", "lock", "notebooks", "test")),
    "scripts/environment.sh",
    ".ci/run",
)
NOT_OURS = (".git", ".venv", ".venv-test", "results", "__pycache__", ".*_cache", ".hypothesis", "dist", "build", "site")


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", LOCKS[lock], re.MULTILINE))


def project_files() -> Iterator[Path]:
    """Return what is or may come under version control, as text."""
    for folder, names, files in os.walk(ROOT):
        names[:] = [n for n in names if not any(Path(n).match(p) for p in NOT_OURS)]
        yield from (Path(folder) / f for f in files)


# --------------------------------------------------------------------------------------------------------------
# papers


def test_licence_is_the_whole_of_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert all(f"\n   {n}. " in text for n in range(1, 10))
    assert "END OF TERMS AND CONDITIONS" in text


def test_every_package_that_is_fetched_has_its_licence_named() -> None:
    named = (ROOT / "THIRD_PARTY_LICENSES.md").read_text()
    missing = [name for name in pins("run") if not re.search(rf"[|,] {re.escape(name)}( \(|,| \|)", named)]
    assert not missing


def test_the_change_log_knows_this_version() -> None:
    log = (ROOT / "CHANGELOG.md").read_text()
    assert "## Unreleased" in log or f"## {PROJECT['version']}" in log


def test_nobodys_machine_is_named() -> None:
    # Put together here, so that this file does not name them either.
    hosts = ["pypi" + ".org", "python" + "hosted.org", "debian" + ".org", "npmjs" + ".org", "crates" + ".io"]
    homes = ["/" + home + "/" for home in ("work", "root", "home/[a-z]", "Users/[A-Za-z]", "tmp/w", "opt/pypi")]
    pattern = re.compile("|".join([*map(re.escape, hosts), rf"(?<![\w.~}}])(?:{'|'.join(homes)})"]))
    found = []
    for path in project_files():
        if path.suffix in (".dcm", ".png", ".npz", ".pyc"):
            continue
        text = path.read_text("utf-8", errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in pattern.finditer(text)]
    assert not found


# --------------------------------------------------------------------------------------------------------------
# lock files


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_has_hashes_and_no_address(lock: str) -> None:
    entries = re.split(r"\n(?! )", LOCKS[lock].strip())
    for entry in entries:
        assert re.fullmatch(r"[a-z0-9-]+==\S+( ; [^\n]+?)?( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry
    assert len(entries) == len(pins(lock))


@pytest.mark.parametrize(("lock", "extras"), [("run", []), ("test", ["test"])])
def test_the_lock_is_as_pyproject_asks(lock: str, extras: list[str]) -> None:
    wanted = [*PROJECT["dependencies"], *(r for e in extras for r in PROJECT["optional-dependencies"][e])]
    locked = pins(lock)
    for requirement in map(Requirement, wanted):
        version = locked.get(canonicalize_name(requirement.name))
        assert version, f"{requirement.name} is not locked: run scripts/lock"
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}: run scripts/lock"


def test_tests_run_with_the_versions_that_users_get() -> None:
    assert pins("run").items() <= pins("test").items()


# --------------------------------------------------------------------------------------------------------------
# scripts


@pytest.mark.parametrize("script", SHELL_SCRIPTS)
def test_shell_scripts_are_valid_and_can_be_started(script: str) -> None:
    for shell in ("sh", "bash"):
        assert subprocess.run([shell, "-n", script], cwd=ROOT, check=False).returncode == 0
    assert script.endswith(".sh") or os.access(ROOT / script, os.X_OK)


def test_ci_runs_the_tests_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".ci/run").read_text().splitlines() if not line.startswith("#")]
    assert lines == ['exec "$(dirname -- "$0")/../scripts/test"']


def tools(folder: Path, *pythons: tuple[str, str]) -> str:
    """Return a PATH that holds what the scripts need of a system, and no Python but those given as (name, target)."""
    folder.mkdir()
    for name in ("cat", "cksum", "dirname"):
        (folder / name).symlink_to(shutil.which(name) or name)
    for name, target in pythons:
        if target.startswith("#!"):
            (folder / name).write_text(target)
            (folder / name).chmod(0o755)
        else:
            (folder / name).symlink_to(target)
    return str(folder)


def copy_of_the_project(folder: Path) -> Path:
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_OURS))
    return folder


def start(command: Sequence[str | Path], cwd: Path, path: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env: Mapping[str, str] = {**os.environ, "PATH": path, "PYTHONPATH": "/nowhere", **variables}
    return subprocess.run(command, cwd=cwd, env=env, check=False, capture_output=True, text=True)


def base_python() -> str:
    return str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())


def test_one_command_goes_from_a_fresh_copy_to_results_and_then_only_starts(tmp_path: Path) -> None:
    root = copy_of_the_project(tmp_path / "a cöpy [1]")
    path = tools(tmp_path / "tools", ("python3", base_python()))
    first = start([Path(root.name) / "scripts/detect", f"{root.name}/sample_data", "--out", "out"], tmp_path, path)
    assert first.returncode == 0, first.stderr
    assert first.stderr.startswith("Setting up ")
    assert (tmp_path / "out/spots.csv").is_file()  # seen from the folder that the command was given in

    made = (root / ".venv/setup.log").stat()
    for arguments, status, said in (
        (["--version"], 0, PROJECT["version"]),
        (["settings"], 0, "[detect]"),
        ([], 0, "Usage"),
        (["no such folder", "--out", "out2"], 2, "no such folder"),  # no command, so a path
    ):
        done = start([root / "scripts/detect", *arguments], root, path)
        assert (done.returncode, said in done.stdout + done.stderr) == (status, True), done
    assert (root / ".venv/setup.log").stat() == made


def test_a_fetch_that_fails_is_told_in_one_sentence(tmp_path: Path) -> None:
    root = copy_of_the_project(tmp_path / "copy")
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "0", "PIP_CONFIG_FILE": os.devnull}
    unset = {"PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    path = tools(tmp_path / "tools", ("python3", base_python()))
    done = start([root / "scripts/detect", "--version"], root, path, **nowhere, **unset)
    assert done.returncode == 2
    assert "is the package index within reach?" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not (root / ".venv/stamp").exists()


@pytest.mark.parametrize(
    ("stub", "said"),
    [
        (None, "no Python 3 is there"),
        ("#!/bin/sh\necho 10\n", "python3 is Python 3.10"),
        ("#!/bin/sh\necho 15\n", "python3 is Python 3.15"),
        ("#!/bin/sh\ncase $3 in *venv*) exit 1 ;; esac\necho 12\n", "python3.12-venv"),
        ("#!/bin/sh\necho 'pyenv: python3: command not found' >&2; exit 127\n", "no Python 3 is there"),
    ],
)
def test_a_system_without_a_fit_python_is_told_so(tmp_path: Path, stub: str | None, said: str) -> None:
    root = copy_of_the_project(tmp_path / "copy")
    path = tools(tmp_path / "tools", *([("python3", stub)] if stub else []))
    for script in ("detect", "test"):
        done = start([root / "scripts" / script], root, path)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / ".venv").write_text("in the way")
    with pytest.raises(environment.SetUpError, match=r"\.venv cannot be written"):
        environment.make(tmp_path / ".venv", ROOT / "scripts/locks/run.txt", "stamp")


def test_opencv_without_its_system_library_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ".venv"
    error = "ImportError: libGL.so.1: cannot open shared object file: No such file or directory"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").write_text(f"#!/bin/sh\necho '{error}' >&2\nexit 1\n")
    (folder / "bin/python").chmod(0o755)
    (folder / "installed").write_text("stamp")
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get there
    with pytest.raises(environment.SetUpError, match=r"libGL\.so\.1.*apt-get install libgl1.*opencv-python-headless"):
        environment.make(folder, ROOT / "scripts/locks/run.txt", "stamp")
    assert not (folder / "stamp").exists()


# --------------------------------------------------------------------------------------------------------------
# what takes long


def test_no_message_asks_an_index_for_the_program() -> None:
    """It is in none: `detector.errors.extra_missing` says how an extra is installed."""
    asking = PROJECT["name"] + "["
    assert [f.name for f in (ROOT / "detector").rglob("*.py") if asking in f.read_text("utf-8")] == []


def test_what_long_tests_need_is_installed_for_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(environment, "_apt_install", lambda packages, _: asked.append(packages))
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert environment.main(["tools"]) == environment.main(["tools", "--long"]) == 0
    assert set(asked[1]) - set(asked[0]) == {"npm"} and set(asked[0]) < set(asked[1])


def found_python(minor: int) -> str | None:
    """Return the path of Python 3.`minor` on PATH or in pyenv; a name may be there and still not run."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [shutil.which(f"python3.{minor}"), *map(str, pyenv.glob(f"versions/3.{minor}.*/bin/python3"))]
    code = "import sys, ensurepip, venv; print(sys.executable)"
    for candidate in filter(None, candidates):
        done = subprocess.run([candidate, "-I", "-c", code], check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.strip()
    return None


@pytest.mark.long
@pytest.mark.parametrize("minor", [11, 12, 13, 14])
def test_the_main_job_runs_on_every_python(tmp_path: Path, minor: int) -> None:
    python = found_python(minor)
    if not python:
        pytest.skip(f"Python 3.{minor} was not found")
    root = copy_of_the_project(tmp_path / "copy")
    path = tools(tmp_path / "tools", ("python3", python))
    done = start([root / "scripts/detect", "sample_data", "--out", "out"], root, path)
    assert done.returncode == 0, done.stderr
    assert f"Python 3.{minor}." in (root / ".venv/stamp").read_text()
    assert (root / "out/spots.csv").is_file()


@pytest.mark.long
def test_pip_install_gives_the_main_job(tmp_path: Path) -> None:
    root = copy_of_the_project(tmp_path / "copy")
    subprocess.run([base_python(), "-m", "venv", tmp_path / "env"], check=True)
    subprocess.run([tmp_path / "env/bin/python", "-m", "pip", "install", "--quiet", root], check=True)
    shutil.rmtree(root / "detector")
    done = start([tmp_path / "env/bin/detector", "run", root / "sample_data", "--out", "out"], tmp_path, os.defpath)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/spots.csv").is_file()


@pytest.mark.long
def test_a_set_up_that_was_killed_is_redone_and_two_at_once_share_one(tmp_path: Path) -> None:
    root = copy_of_the_project(tmp_path / "copy")
    path = tools(tmp_path / "tools", ("python3", base_python()))
    command = [str(root / "scripts/detect"), "--version"]
    env = {**os.environ, "PATH": path}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, start_new_session=True) as killed:
        while not list(root.glob(".venv/lib/python3*/site-packages/numpy")):
            assert killed.poll() is None
        os.killpg(killed.pid, 9)
    assert not (root / ".venv/stamp").exists()
    both = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(PROJECT["version"].encode() in out for out, _ in said)
    assert sum(b"Setting up" in err for _, err in said) == 1


@pytest.mark.long
def test_a_copy_that_was_moved_is_set_up_anew(tmp_path: Path) -> None:
    root = copy_of_the_project(tmp_path / "copy")
    path = tools(tmp_path / "tools", ("python3", base_python()))
    assert start([root / "scripts/detect", "--version"], root, path).returncode == 0
    moved = root.rename(tmp_path / "moved")
    again = start([moved / "scripts/detect", "--version"], moved, path)
    assert again.returncode == 0
    assert again.stderr.startswith("Setting up ")
