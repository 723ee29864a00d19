"""Files written whole, names that are safe on every disk, and text for terminals, logs and pictures."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from detector.errors import ExportError

PART = ".part"
"""How the hidden temporary names of `whole_file` end; a process that is killed leaves one behind."""

_SAFE_NAME = re.compile(r"[0-9a-f]{1,64}(\.[0-9a-f]+)*(_f[0-9]+)?")

_FORMULA, _GUARDED = (re.compile(rf"(^|[;\r\n]){mark}(?=[^\S\r\n]*[=+\-@＝＋－＠])") for mark in ("", "'"))


@contextlib.contextmanager
def whole_file(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Open `path` for writing so that it is there whole or not at all, whatever happens meanwhile.

    The bytes go to a temporary name in the same folder, are forced to the disk, and are then renamed.

    Parameters
    ----------
    path : Path
        File to write or to replace; its folder must exist.
    mode : int
        Permissions of a new file, before the process's mask.

    Yields
    ------
    BinaryIO

    Raises
    ------
    OSError
        If the folder or the disk refuses.
    """
    name = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    partial = path.with_name(f".{name}.{os.getpid()}{PART}")
    try:
        with open(partial, "wb", opener=lambda file, flags: os.open(file, flags, mode)) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, so that a rename outlives a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it where they are missing, each so that it outlives a power cut."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(PermissionError):  # one may write there and not look
            sync_folder(folder.parent)


def check_folder(folder: Path) -> None:
    """Raise if something else stands where a folder is to be, or one above it.

    Raises
    ------
    ExportError
        If it does; the message names it.
    """
    for place in (folder, *folder.parents):
        if os.path.lexists(place) and not os.path.isdir(place):  # noqa: PTH112 - Path.is_dir() raises for long names
            raise ExportError(f"{printable(str(place))} is a file, not a folder; choose another --out")


def put_file(path: Path, content: bytes) -> None:
    """Write a file as `whole_file` does, and the folders above it where they are missing."""
    make_folder(path.parent)
    with whole_file(path) as handle:
        handle.write(content)


def file_stem(image_id: str) -> str:
    """Return the name, without suffix, of the files made for an image.

    It is the id where that is a UID or hexadecimal, so nothing but digits, dots and the letters a to f, perhaps with a
    frame's number (``_f2``); anything else (a UID in the wild can hold ``../``) is replaced by its hash.
    """
    if len(image_id) <= 72 and _SAFE_NAME.fullmatch(image_id):
        return image_id
    return "x" + hashlib.sha256(image_id.encode("utf-8", "surrogateescape")).hexdigest()[:40]


def reading_name(image_id: str) -> str:
    """Return where in a result folder the Reading of an image lies: spread over 4,096 sub-folders by hash."""
    folder = hashlib.sha256(image_id.encode("utf-8", "surrogateescape")).hexdigest()[:3]
    return f"readings/{folder}/{file_stem(image_id)}.json"


def printable(text: str) -> str:
    r"""Return the text with everything that a terminal, a log or a reader's eye could be fooled by as ``\x..``.

    That is control characters, line ends, marks that turn the direction of writing, and the undecodable bytes of a
    file name.

    Examples
    --------
    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def guarded(text: str) -> str:
    """Return text for a cell of a CSV file: what a spreadsheet would run as a formula gets an apostrophe before it.

    Each line is guarded, and each part between semicolons, at which some spreadsheets split (OWASP, "CSV injection").

    Examples
    --------
    >>> guarded("=1+1"), guarded("a;-b")
    ("'=1+1", "a;'-b")
    """
    return _FORMULA.sub(r"\1'", text)


def unguarded(text: str) -> str:
    """Return the text that `guarded` was given."""
    return _GUARDED.sub(r"\1", text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it is due."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as Python carries it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
