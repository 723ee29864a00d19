"""Objects into a real PACS and out again, by C-STORE and by DICOMweb; once each, whatever breaks in between."""

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from detector.cli import main
from detector.errors import ExportError
from detector.export.dicom import StudyImage, write_objects
from detector.export.dicom.cad_sr import CAD_SR
from detector.export.dicom.measurements import TID1500
from detector.export.dicom.presentation import GSPS
from detector.export.dicom.send import SENT, CStore, Result, Stow, send_objects
from scripts.orthanc import Orthanc, free_port, running
from tests.dicom_studies import make_study

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.needs("Orthanc")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[StudyImage]:
    return make_study(tmp_path_factory.mktemp("study"), n_spots=6, n_clusters=1)


@pytest.fixture
def results(study: list[StudyImage], tmp_path: Path) -> Path:
    write_objects(study, tmp_path / "out" / "dicom")
    return tmp_path / "out"


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    with running(tmp_path / "orthanc") as server:
        yield server


def objects_in(folder: Path) -> dict[str, Dataset]:
    read = [pydicom.dcmread(path) for path in folder.rglob("*.dcm")]
    return {str(dataset.SOPInstanceUID): dataset for dataset in read}


def assert_all_there(orthanc: Orthanc, folder: Path) -> None:
    """Assert that the PACS holds each object of the folder once, element by element."""
    ours = objects_in(folder)
    instances = orthanc.get("/instances")
    theirs = [pydicom.dcmread(io.BytesIO(orthanc.file(i))) for i in instances]
    assert sorted(str(d.SOPInstanceUID) for d in theirs) == sorted(ours)
    for dataset in theirs:
        assert dataset == ours[str(dataset.SOPInstanceUID)]


@pytest.mark.parametrize("way", ["C-STORE", "STOW"])
def test_objects_are_stored_once_and_come_back_equal(way: str, orthanc: Orthanc, results: Path) -> None:
    def channel() -> CStore | Stow:
        return CStore("127.0.0.1", orthanc.dicom, "ORTHANC") if way == "C-STORE" else Stow(orthanc.dicomweb)

    heard: list[Result] = []
    first = send_objects(results, channel(), heard.append)
    assert first == heard and len(first) == 10
    assert all(r.stored and not r.before for r in first)
    assert_all_there(orthanc, results)
    assert all(r.before for r in send_objects(results, channel()))
    assert not any(r.before for r in send_objects(results, channel(), fresh=True))  # sent twice, still one copy
    assert_all_there(orthanc, results)

    web = DICOMwebClient(orthanc.dicomweb)
    (found,) = web.search_for_studies()
    study_uid = found["0020000D"]["Value"][0]
    kinds = [s["00080060"]["Value"][0] for s in web.search_for_series(study_uid)]
    assert sorted(kinds) == ["PR", "PR", "SEG", "SR", "SR"]
    by_uid = objects_in(results)
    retrieved = list(web.retrieve_study(study_uid))
    assert len(retrieved) == 10
    for dataset in retrieved:
        dataset.remove_private_tags()
        assert dataset == by_uid[str(dataset.SOPInstanceUID)]


def test_changed_objects_join_those_before(orthanc: Orthanc, study: list[StudyImage], results: Path) -> None:
    channel = CStore("127.0.0.1", orthanc.dicom, "ORTHANC")
    send_objects(results, channel)
    before = set(objects_in(results))
    write_objects(study[:3], results / "dicom", ["sr"])
    assert [r.before for r in send_objects(results, channel)].count(False) == 1
    stored = {str(pydicom.dcmread(io.BytesIO(orthanc.file(i))).SOPInstanceUID) for i in orthanc.get("/instances")}
    assert stored == before | set(objects_in(results)) and len(stored) == 11


def test_a_sender_that_is_killed_sends_the_rest_when_it_runs_again(orthanc: Orthanc, results: Path) -> None:
    proxy = Slow(orthanc.dicom)
    command = [sys.executable, "-c", "from detector.cli import main; main()", "send", str(results)]
    sender = subprocess.Popen(
        [*command, "--to", f"127.0.0.1:{proxy.port}", "--aet", "ORTHANC"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    end = time.monotonic() + 60
    while time.monotonic() < end and not ((results / SENT).is_file() and len(_lines(results)) > 3):
        time.sleep(0.01)
    os.kill(sender.pid, signal.SIGKILL)
    sender.wait()
    assert 3 < len(_lines(results)) < 11
    with (results / SENT).open("a") as file:
        file.write("ORTHANC@127.0.0.1:1,2.25")  # a line that was cut short
    done = subprocess.run(
        [*command, "--to", f"127.0.0.1:{proxy.port}", "--aet", "ORTHANC"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "stored before" in done.stdout and "10 of 10 objects stored in" in done.stdout
    assert_all_there(orthanc, results)


def _lines(results: Path) -> list[str]:
    return (results / SENT).read_text().splitlines()


class Slow:
    """Passes bytes on to a port, slowly, and can break its connections."""

    def __init__(self, target: int, wait_s: float = 0.02, breaks_after: int = 0) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._target, self._wait_s, self._left = target, wait_s, breaks_after
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._server.accept()
            except OSError:
                return
            self.connections += 1
            there = socket.create_connection(("127.0.0.1", self._target))
            for source, sink in ((here, there), (there, here)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                time.sleep(self._wait_s)
                if self._left:
                    self._left -= 1
                    if not self._left:
                        break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._server.close()


@pytest.mark.parametrize("way", ["C-STORE", "STOW"])
def test_a_connection_that_breaks_is_made_anew(way: str, orthanc: Orthanc, results: Path) -> None:
    proxy = Slow(orthanc.dicom if way == "C-STORE" else orthanc.http, 0.0, breaks_after=14)
    channel: CStore | Stow = CStore("127.0.0.1", proxy.port, "ORTHANC")
    if way == "STOW":
        channel = Stow(f"http://127.0.0.1:{proxy.port}/dicom-web")
    assert all(r.stored for r in send_objects(results, channel))
    assert proxy.connections > 1
    assert_all_there(orthanc, results)


def test_a_pacs_that_dies_in_the_middle_has_all_after_the_next_run(
    orthanc: Orthanc, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector.export.dicom.send._FIRST_WAIT_S", 0.01)
    channel = CStore("127.0.0.1", orthanc.dicom, "ORTHANC", timeout_s=5)
    count = 0

    def tell(_: Result) -> None:
        nonlocal count
        count += 1
        if count == 4:
            orthanc.kill()

    with pytest.raises(ExportError, match=r"cannot be reached.*the same command sends what is left"):
        send_objects(results, channel, tell)
    assert count == 4
    orthanc.start()
    assert [r.before for r in send_objects(results, channel)].count(True) == 4
    assert_all_there(orthanc, results)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return what runs ``detector send`` in this process: exit status, output, messages."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["detector", "send", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    monkeypatch.setattr("detector.export.dicom.send._FIRST_WAIT_S", 0.01)
    return run


def test_the_command_says_what_it_did_and_what_was_wrong(
    orthanc: Orthanc, results: Path, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    status, out, _ = command(str(results), "--stow", orthanc.dicomweb)
    assert status == 0
    assert len(out.splitlines()) == 11 and "10 of 10 objects stored in" in out
    (results / "dicom" / "broken.dcm").write_bytes(b"no object")
    status, out, err = command(str(results), "--stow", orthanc.dicomweb, "--quiet")
    assert (status, out) == (1, "")
    assert "not stored dicom/broken.dcm: it is no DICOM object" in err
    for arguments, words in (
        ([str(results)], "either --to HOST:PORT or --stow URL"),
        ([str(results), "--to", "pacs"], "HOST:PORT"),
        ([str(results), "--to", f"127.0.0.1:{free_port()}"], "cannot be reached"),
        ([str(tmp_path / "orthanc"), "--to", "127.0.0.1:1"], "holds no DICOM objects"),
        ([str(results), "--stow", "pacs"], "no address of a DICOMweb service"),
    ):
        status, _, err = command(*arguments)
        assert status == 2, err
        assert words in " ".join(err.split())


def test_each_object_is_told_of_by_itself(results: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    """A PACS that takes no segmentations, is out of room for one report, and coerces the presentation states."""
    answers = {CAD_SR.sop_class: 0xA700, TID1500.sop_class: 0x0000, GSPS: 0xB000}
    server, port = AE(ae_title="PACS"), free_port()
    for kind in answers:
        server.add_supported_context(kind)
    handlers = [(evt.EVT_C_STORE, lambda event: answers[event.request.AffectedSOPClassUID])]
    running = server.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
    assert running is not None
    try:
        to = ("--to", f"127.0.0.1:{port}", "--aet", "PACS")
        status, out, err = command(str(results), *to)
        assert status == 1 and "5 of 10 objects stored in" in out
        assert err.count("it does not take objects of this kind") == 4
        assert err.count("cad_sr.dcm: it answered with status A700") == 1
        assert len(_lines(results)) == 6
        answers[CAD_SR.sop_class] = 0
        status, out, _ = command(str(results), *to)
        assert status == 1 and out.count("stored before") == 5 and "6 of 10 objects stored in" in out
        server.require_called_aet = True
        status, _, err = command(str(results), *to[:2], "--aet", "OTHER", "--fresh")
        assert status == 2 and "rejects the association" in err
    finally:
        running.shutdown()


def test_a_password_is_in_no_message_and_no_file() -> None:
    assert Stow("http://name:secret@127.0.0.1:1/dicom-web").name == "http://127.0.0.1:1/dicom-web"
