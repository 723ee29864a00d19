"""What can go wrong, as one tree.

::

    DetectorError
    ├── ReadError            a file that cannot be read as a mammogram
    │   ├── NotAMammogram    it is something else: skipped, not failed
    │   ├── NoPixelSpacing   its pixel size in millimetres is unknown or absurd
    │   └── BadPixels        its pixels are missing, truncated, too many or undecodable
    ├── SettingsError        an unknown setting, or a value out of its range
    └── ExportError          a result that cannot be written

Every message is one sentence for the user: what is wrong, in which file where there is one, and what to do.
No message holds a patient's name, id or birth date.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


class DetectorError(Exception):
    """Root of all errors that the package raises on purpose."""


class ReadError(DetectorError):
    """A file cannot be read as a mammogram."""


class NotAMammogram(ReadError):
    """The file is readable but is no image that the program is meant for."""


class NoPixelSpacing(ReadError):
    """The size of a pixel in millimetres is not stated, or not plausible."""


class BadPixels(ReadError):
    """The pixels are missing, truncated, too many, or cannot be decoded."""


class SettingsError(DetectorError):
    """A setting is unknown, of the wrong type, or out of its range."""


class ExportError(DetectorError):
    """A result cannot be written."""


def extra_missing(purpose: str, library: str, extra: str) -> str:
    """Return one sentence that says which library is missing for what, and the line that installs its extra.

    The line is for the Python that runs, and names the project's folder if the package is run from it.

    Parameters
    ----------
    purpose : str
        What needs the library, to begin the sentence with.
    library : str
    extra : str
        Of ``pyproject.toml``.
    """
    project = Path(__file__).resolve().parents[1]
    is_there = (project / "pyproject.toml").is_file()
    source = f"-e {shlex.quote(f'{project}[{extra}]')}" if is_there else f"'.[{extra}]'"
    where = "" if is_there else " in the project's folder"
    command = f"{shlex.quote(sys.executable)} -m pip install {source}"
    return f"{purpose} needs {library}, which is not installed; install it{where} with: {command}"


def explain_missing(error: ImportError) -> str:
    """Return one sentence that says which library is missing and what to do."""
    if "libGL" in str(error):
        return (
            "OpenCV needs the system's library libGL, which is missing; install it (Debian, Ubuntu: apt-get install"
            " libgl1), or put opencv-python-headless in the place of opencv-python"
        )
    return f"a library is missing ({error}); install the program again"
