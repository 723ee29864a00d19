"""Makes an environment of this project from a lock file, and installs the system tools that the tests use.

``environment.py make FOLDER LOCK STAMP`` and ``environment.py tools [--long]``; called by `detect` and `test`, with no
more than Python itself. Nothing is installed outside FOLDER but Debian packages, and those only where apt-get may.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

TOOLS = {
    "dsrdump": "dcmtk",
    "dcmpschk": "dcmtk",
    "dcmp2pgm": "dcmtk",
    "Orthanc": "orthanc orthanc-dicomweb",
    "chromium": "chromium",
}
"""Commands that tests need, and the Debian packages of each; tests/conftest.py reads this list as well."""

LONG_TOOLS = {"npm": "npm"}
"""The same for tests that take long, which alone install them."""

OPENCV_LIBRARIES = ("libgl1", "libglib2.0-0")
"""Debian packages that opencv-python loads from the system."""

WARM_UP = "import cv2, imagecodecs, pydicom, scipy.ndimage, scipy.spatial, skimage, typer, rich.progress"
"""Compiles what every run imports; pip would compile all, which takes longer than all the rest."""


class SetUpError(Exception):
    """The environment cannot be made; the message is one sentence for the user."""


def make(folder: Path, lock: Path, stamp: str) -> None:
    """Make the environment, waiting for another set-up of it that is under way.

    Parameters
    ----------
    folder : Path
        Where the environment goes; what a broken-off set-up left there is removed.
    lock : Path
        Requirements with hashes.
    stamp : str
        Written to ``folder/stamp`` when all is done, for the caller to see that nothing need be.

    Raises
    ------
    SetUpError
        If the folder cannot be written, the packages not fetched, or OpenCV not loaded.
    """
    try:
        folder.mkdir(exist_ok=True)
        with _locked(folder):
            if _read(folder / "stamp") == stamp:
                return
            # Apart from the stamp, so that the headless OpenCV, put in by hand, is not removed by the next start.
            if _read(folder / "installed") != stamp:
                _install(folder, lock)
                (folder / "installed").write_text(stamp + "\n")
            _load_opencv(folder)
            (folder / "stamp").write_text(stamp + "\n")
    except OSError as error:
        raise SetUpError(
            f"{folder} cannot be written ({error.strerror}): copy the project to a folder of your own and start there."
        ) from error


def install_tools(long: bool = False) -> None:
    """Install the tools of `TOOLS` that are missing, where that may be; the tests say what is still missing.

    Parameters
    ----------
    long : bool
        Those of `LONG_TOOLS` as well.
    """
    tools = TOOLS | LONG_TOOLS if long else TOOLS
    missing = {package for command in tools if not shutil.which(command) for package in tools[command].split()}
    if missing:
        _apt_install(sorted(missing), None)


def _install(folder: Path, lock: Path) -> None:
    _say(f"Setting up {folder} (once; a minute or so, 650 MB) ...")
    for old in folder.iterdir():
        if old.name != "lock":
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    log = folder / "setup.log"
    if _run([sys.executable, "-I", "-m", "venv", str(folder)], log):
        raise SetUpError(f"The environment {folder} could not be made: {_last_line(log)}")
    pip = [str(folder / "bin/python"), "-I", "-m", "pip", "install", "--no-compile", "--disable-pip-version-check"]
    if _run([*pip, "--no-input", "--only-binary", ":all:", "--require-hashes", "-r", str(lock)], log):
        raise SetUpError(
            f"The packages could not be installed; is the package index within reach? pip's words are in {log}, "
            f"the last of them: {_last_line(log)}"
        )
    project = lock.parents[2]
    if _run([*pip, "--no-index", "--no-deps", "--no-build-isolation", "-e", "."], log, project):
        raise SetUpError(f"The project itself could not be installed; pip's words are in {log}: {_last_line(log)}")


def _load_opencv(folder: Path) -> None:
    python, log = str(folder / "bin/python"), folder / "setup.log"
    quoted = shlex.quote(python)
    if _run([python, "-I", "-c", WARM_UP], log) == 0:
        return
    reason = _last_line(log)
    if "cannot open shared object" in reason:
        if _apt_install(OPENCV_LIBRARIES, log) and _run([python, "-I", "-c", WARM_UP], log) == 0:
            return
        raise SetUpError(
            f"OpenCV cannot be loaded ({reason}): install the system's libraries (Debian, Ubuntu: apt-get install "
            f"{' '.join(OPENCV_LIBRARIES)}; Fedora: dnf install mesa-libGL glib2), or take the build that needs none "
            f"({quoted} -m pip uninstall -y opencv-python, then {quoted} -m pip install opencv-python-headless), "
            "and start again."
        )
    raise SetUpError(f"The installed packages cannot be loaded; more is in {log}: {reason}")


def _apt_install(packages: Sequence[str], log: Path | None) -> bool:
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    _say(f"Installing {' '.join(packages)} with apt-get ...")
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    return not _run(install, log) or (not _run(["apt-get", "update"], log) and not _run(install, log))


def _run(command: Sequence[str], log: Path | None, cwd: Path | None = None) -> int:
    ours = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "DEBIAN_FRONTEND": "noninteractive"}
    with log.open("a") if log else Path(os.devnull).open("w") as out:
        return subprocess.call(
            command, env={**os.environ, **ours}, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    import fcntl  # not on Windows, where nothing calls this script

    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"Waiting for another set-up of {folder} ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield  # the system frees the lock when the file closes, a kill included


def _read(file: Path) -> str:
    try:
        return file.read_text().rstrip("\n")
    except FileNotFoundError:
        return ""


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no message"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Do what the module's first lines say; return the exit status, 2 if nothing could be done."""
    try:
        if arguments[0] == "make":
            make(Path(arguments[1]), Path(arguments[2]), arguments[3])
        else:
            install_tools(long="--long" in arguments)
    except SetUpError as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        _say("Set-up broken off; the next start does it anew.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
