"""``manifest.json``: with what a run was made, so that it can be made again."""

from __future__ import annotations

import datetime
import functools
import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from detector.batch.find import MANIFEST, PROGRAM
from detector.export.files import whole_file
from detector.records import SCHEMA_VERSION

_LIBRARIES = (
    "imagecodecs",
    "numpy",
    "opencv-python",
    "opencv-python-headless",
    "pillow",
    "pydicom",
    "scikit-image",
    "scipy",
)
_PACKAGE = Path(__file__).parent.parent


def write_manifest(folder: Path, values: Mapping[str, Any]) -> None:
    """Write the manifest whole: `values`, and what is known of program and machine.

    Raises
    ------
    OSError
        If the folder or the disk refuses.
    """
    manifest = {
        "program": PROGRAM,
        "schema_version": SCHEMA_VERSION,
        "version": version_of(PROGRAM),
        "git_revision": _git_revision(),
        "code": code_hash(),
        "libraries": library_versions(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": _cpu(),
        **values,
    }
    with whole_file(folder / MANIFEST) as handle:
        handle.write(json.dumps(manifest, indent=2, ensure_ascii=True).encode() + b"\n")


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that findings and pictures depend on."""
    return {name: found for name in _LIBRARIES if (found := version_of(name))}


def version_of(package: str) -> str:
    """Return the version of an installed package, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


@functools.cache
def code_hash(rooms_alone: bool = False) -> str:
    """Return a hash of the sources, so that results of other code are not taken for those of this one.

    Parameters
    ----------
    rooms_alone : bool
        Leave out what only shows results: tables, pictures, this package.
    """
    apart = {"cli.py", "evaluate", "review", *(("batch", "export") if rooms_alone else ())}
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*")):
        name = file.relative_to(_PACKAGE)
        if file.is_file() and name.parts[0] not in apart and "__pycache__" not in name.parts:
            digest.update(name.as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@functools.cache
def _git_revision() -> str:
    if not (_PACKAGE.parent / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(_PACKAGE.parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _cpu() -> str:
    """Return the machine and the model of its processor: floats can differ in the last bits between classes."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{platform.machine()} {line.partition(':')[2].strip()}"
    except OSError:
        pass
    return f"{platform.machine()} {platform.processor()}".strip()
