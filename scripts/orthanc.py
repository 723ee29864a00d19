"""A real Orthanc with its DICOMweb plugin on free loopback ports."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PLUGINS = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """A PACS that keeps what it has in a folder, and can be started, killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.http, self.dicom = free_port(), free_port()
        self.root = f"http://127.0.0.1:{self.http}"
        self.dicomweb = f"{self.root}/dicom-web"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "orthanc.json").write_text(
            json.dumps(
                {
                    "Name": "tests",
                    "StorageDirectory": str(folder / "storage"),
                    "IndexDirectory": str(folder / "storage"),
                    "Plugins": [PLUGINS],
                    "HttpPort": self.http,
                    "HttpBindAddresses": ["127.0.0.1"],
                    "DicomPort": self.dicom,
                    "DicomAet": "ORTHANC",
                    "DicomAlwaysAllowStore": True,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "OverwriteInstances": False,
                    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
                }
            )
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [shutil.which("Orthanc") or "Orthanc", str(self._folder / "orthanc.json")]
        with (self._folder / "orthanc.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + 30
        while time.monotonic() < end and self._process.poll() is None:
            with contextlib.suppress(OSError, urllib.error.URLError):
                self.get("/system")
                return
            time.sleep(0.05)
        raise RuntimeError((self._folder / "orthanc.log").read_text(errors="replace"))

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def get(self, path: str) -> Any:
        """Return what its own interface answers, as JSON."""
        with urllib.request.urlopen(self.root + path, timeout=10) as answer:
            return json.loads(answer.read())

    def file(self, instance: str) -> bytes:
        """Return the file of an instance as it is stored."""
        with urllib.request.urlopen(f"{self.root}/instances/{instance}/file", timeout=10) as answer:
            return bytes(answer.read())


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Orthanc]:
    """Start an Orthanc and end it at the end."""
    orthanc = Orthanc(folder)
    try:
        orthanc.start()
        yield orthanc
    finally:
        orthanc.kill()
