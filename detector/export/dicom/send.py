"""DICOM objects into a PACS, by C-STORE or by DICOMweb, each once."""

from __future__ import annotations

import csv
import importlib
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit, urlunsplit

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from detector.errors import DetectorError, ExportError, extra_missing
from detector.export.dicom.cad_sr import CAD_SR
from detector.export.dicom.measurements import TID1500
from detector.export.dicom.presentation import GSPS
from detector.export.dicom.segmentation import SEG
from detector.export.files import printable

SENT = "sent.csv"
"""What a folder's objects were stored where: a line is added as soon as the PACS has answered."""
SOP_CLASSES = (CAD_SR.sop_class, TID1500.sop_class, GSPS, SEG)
_ATTEMPTS = 4
_FIRST_WAIT_S = 0.5


@dataclass(frozen=True)
class Result:
    """What became of one object: its file, and why it was not stored, else an empty reason."""

    file: Path
    reason: str = ""
    before: bool = False
    """It was stored by an earlier call."""

    @property
    def stored(self) -> bool:
        """Return whether the PACS has it."""
        return not self.reason


class ConnectionBroken(Exception):
    """The connection to the PACS is lost or was never made; worth another try."""


class Channel(Protocol):
    """A way into a PACS."""

    @property
    def name(self) -> str:
        """Where it leads to, without any password."""

    def store(self, dataset: Dataset) -> str:
        """Store an object; return why the PACS refuses it, else an empty text.

        Raises
        ------
        ConnectionBroken
            If the connection is lost or cannot be made.
        """

    def close(self) -> None:
        """End the connection, if there is one."""


@dataclass
class CStore:
    """C-STORE (PS3.4 B) over one association, made anew when it breaks.

    Attributes
    ----------
    host : str
    port : int
    called, calling : str
        Application entity titles, theirs and ours.
    timeout_s : float
        Longest wait for an answer.
    """

    host: str
    port: int
    called: str
    calling: str = "DETECTOR"
    timeout_s: float = 30.0
    _association: Any = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """Title, host and port."""
        return f"{self.called}@{self.host}:{self.port}"

    def store(self, dataset: Dataset) -> str:
        """Store an object, as `Channel.store`."""
        association = self._associated()
        kinds = {context.abstract_syntax for context in association.accepted_contexts}
        if dataset.SOPClassUID not in kinds:
            return "it does not take objects of this kind"
        try:
            answer = association.send_c_store(dataset)
        except (RuntimeError, OSError) as error:
            raise ConnectionBroken(str(error)) from error
        if "Status" not in answer:
            raise ConnectionBroken("the association was broken off")
        status = int(answer.Status)
        # B000, B006 and B007 are warnings: it is stored
        return "" if status == 0 or status & 0xF000 == 0xB000 else f"it answered with status {status:04X}"

    def close(self) -> None:
        """Release the association."""
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None

    def _associated(self) -> Any:
        if self._association is None or not self._association.is_established:
            entity = _import("pynetdicom").AE(ae_title=self.calling)
            entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = self.timeout_s
            for kind in SOP_CLASSES:
                entity.add_requested_context(kind, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
            self._association = entity.associate(self.host, self.port, ae_title=self.called)
            if self._association.is_rejected:
                raise ExportError(
                    f"{self.name} rejects the association; let it know {self.calling}, or see --aet and --calling-aet"
                )
            if not self._association.is_established:
                raise ConnectionBroken("there is no connection")
        return self._association


@dataclass
class Stow:
    """STOW-RS (PS3.18 10.5): DICOMweb.

    Attributes
    ----------
    url : str
        Root of the service, for example ``http://localhost:8042/dicom-web``; a name and password in it are used.
    timeout_s : float
        Longest wait for an answer.
    """

    url: str
    timeout_s: float = 30.0
    _client: Any = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The address without name and password."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def store(self, dataset: Dataset) -> str:
        """Store an object, as `Channel.store`."""
        client = self._connected()
        requests = _import("requests")
        try:
            answer = client.store_instances([dataset])
        except requests.exceptions.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status in (408, 429, 502, 503, 504):
                raise ConnectionBroken(f"it answers with HTTP status {status}") from error
            return f"it answers with HTTP status {status}"
        except (requests.exceptions.RequestException, OSError) as error:
            raise ConnectionBroken(type(error).__name__) from error
        failed = answer.get("FailedSOPSequence")
        return f"it answers with failure {int(failed[0].get('FailureReason', 0)):04X}" if failed else ""

    def close(self) -> None:
        """Forget the session."""
        self._client = None

    def _connected(self) -> Any:
        if self._client is None:
            session = _import("requests").Session()
            parts = urlsplit(self.url)
            if parts.username:
                session.auth = (unquote(parts.username), unquote(parts.password or ""))
            api = _import("dicomweb_client")
            try:
                self._client = api.DICOMwebClient(self.name, session=session, timeout=self.timeout_s)
            except (ValueError, TypeError) as error:
                raise ExportError(f"{self.name} is no address of a DICOMweb service: give --stow URL") from error
        return self._client


def send_objects(
    folder: Path,
    channel: Channel,
    tell: Callable[[Result], None] = lambda _: None,
    *,
    fresh: bool = False,
) -> list[Result]:
    """Store all objects of a result folder in a PACS; what it has been told to have already is left out.

    Parameters
    ----------
    folder : Path
        A result folder, or any folder of objects.
    channel : Channel
        `CStore` or `Stow`.
    tell : callable
        Hears of every object.
    fresh : bool
        Store all anew, whatever was stored before.

    Returns
    -------
    list of Result
        One an object, in the order of their paths.

    Raises
    ------
    ExportError
        If there is no object, the PACS cannot be reached at all, or the library for it is missing.
    """
    files = find_objects(folder)
    done = set() if fresh else set(_stored_before(folder, channel.name))
    results = []
    with warnings.catch_warnings():
        # what pydicom warns of quotes values of the header
        warnings.simplefilter("ignore")
        try:
            for file in files:
                results.append(_send_one(folder, file, channel, done))
                tell(results[-1])
        finally:
            channel.close()
    return results


def find_objects(folder: Path) -> list[Path]:
    """Return the objects in a result folder, or in any folder, by path.

    Raises
    ------
    ExportError
        If there is none.
    """
    root = folder / "dicom" if (folder / "dicom").is_dir() else folder
    files = sorted(root.rglob("*.dcm"))
    if not files:
        raise ExportError(
            f"{printable(str(folder))} holds no DICOM objects; make some with: detector run PATH --out DIR"
            " --formats sr,tid1500,gsps,seg"
        )
    return files


def _send_one(folder: Path, file: Path, channel: Channel, done: set[str]) -> Result:
    try:
        dataset = pydicom.dcmread(file)
        uid = str(dataset.SOPInstanceUID)
    except Exception as error:  # no object of ours
        return Result(file, f"it is no DICOM object ({type(error).__name__})")
    if uid in done:
        return Result(file, before=True)
    reason = _store(channel, dataset)
    if not reason:
        _note(folder, channel.name, uid, file)
    return Result(file, reason)


def _store(channel: Channel, dataset: Dataset) -> str:
    """Store an object, trying anew with growing waits while the connection breaks."""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_FIRST_WAIT_S * 2 ** (attempt - 1))
        try:
            return channel.store(dataset)
        except ConnectionBroken as error:
            channel.close()
            last = str(error)
    raise ExportError(
        f"{channel.name} cannot be reached ({printable(last)}); when it can, the same command sends what is left"
    )


def _stored_before(folder: Path, destination: str) -> Iterator[str]:
    if not (folder / SENT).is_file():
        return
    with (folder / SENT).open(encoding="utf-8", newline="") as handle:
        for row in csv.reader(handle):
            # a line that a kill cut short has fewer cells, and its object is sent again
            if len(row) == 3 and row[0] == destination:
                yield row[1]


def _note(folder: Path, destination: str, uid: str, file: Path) -> None:
    """Add a line for an object that is stored, on the disk before the next is sent."""
    path = folder / SENT
    try:
        with path.open("a+", encoding="utf-8", newline="") as handle:
            if not path.stat().st_size:
                csv.writer(handle).writerow(["destination", "sop_instance_uid", "path"])
            csv.writer(handle).writerow([destination, uid, printable(str(file.relative_to(folder)))])
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise ExportError(f"{printable(str(path))} cannot be written: {error.strerror or error}") from error


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DetectorError(extra_missing("sending", name, "dicom")) from error
