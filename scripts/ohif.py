"""Shows DICOM objects in a real viewer: OHIF's prebuilt package from npm, on an Orthanc, in a headless Chromium.

``python -m scripts.ohif`` draws docs/ohif.jpg and docs/presentation_state.jpg from the sample study. It needs
playwright (pip), and npm, chromium, orthanc with orthanc-dicomweb, and dcmtk (Debian).
"""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray

from detector.batch import Job, run_batch
from detector.export.dicom.places import from_dicom
from detector.export.dicom.send import Stow, send_objects
from scripts.orthanc import running

PACKAGE = "@ohif/app@3.13.2"
ROOT = Path(__file__).resolve().parents[1]
_PREFIX = "/dicom-web"
_CONFIG = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "maxNumberOfWebWorkers": 1,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "orthanc",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "orthanc",
            "configuration": {
                "friendlyName": "orthanc",
                "name": "orthanc",
                **dict.fromkeys(("wadoUriRoot", "qidoRoot", "wadoRoot"), _PREFIX),
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "omitQuotationForMultipartRequest": True,
            },
        }
    ],
}
_SCALE = 0.45
_CHROMIUM = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")


def fetch_viewer(folder: Path) -> Path:
    """Fetch the viewer with npm; return the folder of its files."""
    packed = subprocess.run(
        ["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.split()[-1]
    shutil.unpack_archive(folder / packed, folder, "gztar", filter="data")
    return folder / "package" / "dist"


@contextlib.contextmanager
def served(viewer: Path, pacs: str) -> Iterator[str]:
    """Serve the viewer on a free port of this machine, with the PACS's DICOMweb beside it; yield the address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(viewer))

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            if path.startswith(_PREFIX):
                self._answer(*_fetch(pacs + self.path, self.headers.get("Accept", "*/*")))
            elif path == "/app-config.js":
                self._answer(200, "application/javascript", f"window.config={json.dumps(_CONFIG)}".encode())
            else:
                if not (viewer / path.lstrip("/")).is_file():
                    self.path = "/index.html"
                super().do_GET()

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def end_headers(self) -> None:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
            super().end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def _fetch(url: str, accept: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=60) as answer:
            return answer.status, answer.headers.get("Content-Type", ""), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("Content-Type", ""), error.read()


@contextlib.contextmanager
def shown(address: str, study_uid: str) -> Iterator[Any]:
    """Open a study in the viewer, and in it the measurement report; yield the page."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(_CHROMIUM))
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.add_init_script("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
        page.goto(f"{address}/viewer?StudyInstanceUIDs={study_uid}")
        report = page.locator("[data-cy^=study-browser-thumbnail-no-image]").first
        report.wait_for(timeout=90_000)
        page.wait_for_timeout(5000)  # the first image is loaded by then, which would else take the report's place
        report.dblclick()
        page.locator("svg.svg-layer polyline").first.wait_for(timeout=90_000, state="attached")
        page.wait_for_timeout(3000)
        yield page
        browser.close()


def marks_on(page: Any) -> list[np.ndarray]:
    """Return the outlines that the viewer draws, each (n, 2) of x and y on the page."""
    script = """Array.from(document.querySelectorAll('svg.svg-layer polyline')).map(line => {
        const box = line.ownerSVGElement.getBoundingClientRect();
        return line.getAttribute('points').trim().split(/[ ,]+/).map((v, i) => +v + (i % 2 ? box.top : box.left));
    })"""
    return [np.array(points).reshape(-1, 2) for points in page.evaluate(script)]


def main() -> int:
    """Draw the pictures of docs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sample, out = ROOT / "sample_data", folder / "results"
        run_batch(Job((sample,), out, formats=frozenset({"csv", "tid1500", "gsps"}), pictures="none"))
        for file in sample.glob("*.dcm"):
            dataset = pydicom.dcmread(file)
            if dataset.file_meta.TransferSyntaxUID.is_deflated:  # Orthanc sends no frames of these
                dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
            dataset.save_as(out / "dicom" / file.name)
        _draw_presentation_states(out, ROOT / "docs" / "presentation_state.jpg")
        for state in out.rglob("*_gsps.dcm"):
            state.unlink()
        with running(folder / "orthanc") as orthanc:
            send_objects(out, Stow(orthanc.dicomweb))
            study_uid = pydicom.dcmread(sample / "LCC.dcm", stop_before_pixels=True).StudyInstanceUID
            with served(fetch_viewer(folder), orthanc.root) as address, shown(address, study_uid) as page:
                page.screenshot(path=ROOT / "docs" / "ohif.jpg", type="jpeg", quality=85)
    return 0


def _draw_presentation_states(out: Path, picture: Path) -> None:
    """Draw an image of each photometric interpretation side by side."""
    images: dict[str, Path] = {}
    for image in sorted((out / "dicom").glob("*.dcm")):
        images.setdefault(str(pydicom.dcmread(image, stop_before_pixels=True).PhotometricInterpretation), image)
    panels = [_draw_presentation_state(out, image, words) for words, image in sorted(images.items())]
    gap = np.full((len(panels[0]), 12, 3), 96, np.uint8)  # the samples are of one size
    cv2.imwrite(str(picture), np.hstack([panels[0], gap, panels[1]]), [cv2.IMWRITE_JPEG_QUALITY, 85])


def _draw_presentation_state(out: Path, image: Path, words: str) -> NDArray[np.uint8]:
    """Return an image as dcmtk renders it under its presentation state, with the state's graphics and some words."""
    dataset = pydicom.dcmread(image)
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        dataset.decompress(generate_instance_uid=False)
        dataset.save_as(image)
    (path,) = out.rglob(f"{dataset.SOPInstanceUID}_gsps.dcm")
    rendered = out / "rendered.pgm"
    subprocess.run(["dcmp2pgm", "-p", path, image, rendered], check=True)
    grey = cv2.imread(str(rendered), cv2.IMREAD_GRAYSCALE)
    canvas = cv2.resize(np.asarray(grey), None, fx=_SCALE, fy=_SCALE, interpolation=cv2.INTER_AREA)
    canvas = cv2.cvtColor(canvas, cv2.COLOR_GRAY2BGR)
    for annotation in pydicom.dcmread(path).get("GraphicAnnotationSequence") or []:
        for graphic in annotation.GraphicObjectSequence:
            xy = _SCALE * from_dicom(graphic.GraphicData)[:, ::-1]
            if graphic.GraphicType == "CIRCLE":
                center, radius = np.rint(xy[0]).astype(int).tolist(), round(float(np.linalg.norm(xy[1] - xy[0])))
                cv2.circle(canvas, center, radius, (80, 220, 255), 1, cv2.LINE_AA)
            else:
                cv2.polylines(canvas, [np.rint(xy).astype(np.int32)], True, (80, 255, 80), 1, cv2.LINE_AA)
    cv2.putText(canvas, words, (12, len(canvas) - 14), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)


if __name__ == "__main__":
    sys.exit(main())
