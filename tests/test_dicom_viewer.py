"""The measurement report in a real viewer: its marks sit on the spots."""

import dataclasses
import shutil
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest

import detector
from detector.export.dicom import StudyImage, write_objects
from detector.export.dicom.send import Stow, send_objects
from detector.export.phantoms import DicomForm, write_dicom
from detector.records import Outlines
from scripts.ohif import fetch_viewer, marks_on, served, shown
from scripts.orthanc import running
from tests.dicom_studies import disc, make_reading
from tests.test_dicom_export import spots_drawn


@pytest.mark.long
@pytest.mark.needs("Orthanc", "npm", "chromium")
@pytest.mark.parametrize("monochrome", [1, 2])
def test_the_marks_sit_on_the_spots_in_ohif(monochrome: int, tmp_path: Path) -> None:
    drawn, places = spots_drawn()
    path = write_dicom(tmp_path / "x.dcm", drawn, DicomForm(monochrome=monochrome, bits=14))
    reading = make_reading(detector.read_mammogram(path).identity, len(places), 1)
    center = places.mean(axis=0)
    clusters = reading.clusters.replace(row_px=center[:1], col_px=center[1:])
    outline = Outlines.of([disc(center, 60.0, 60)])
    reading = dataclasses.replace(reading, clusters=clusters, cluster_outlines=outline)
    write_objects([StudyImage(path, reading)], tmp_path / "objects", ["tid1500"])
    shutil.copy(path, tmp_path / "objects" / "image.dcm")
    with running(tmp_path / "orthanc") as orthanc:
        assert all(r.stored for r in send_objects(tmp_path / "objects", Stow(orthanc.dicomweb)))
        study_uid = pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID
        with served(fetch_viewer(tmp_path), orthanc.root) as address, shown(address, study_uid) as page:
            (mark,) = marks_on(page)
            page.add_style_tag(content="svg.svg-layer, [class*=overlay] { visibility: hidden !important }")
            page.wait_for_timeout(500)
            screen = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert screen is not None
    middle = (mark.min(axis=0) + mark.max(axis=0)) / 2
    radius = float(np.ptp(mark, axis=0).mean() / 2)
    scale = radius / 60.0  # screen pixels a pixel
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * round(7 * scale) + 1,) * 2)
    spots = cv2.morphologyEx(screen, cv2.MORPH_TOPHAT, kernel)
    rows, cols = np.mgrid[: screen.shape[0], : screen.shape[1]]
    inside = np.hypot(cols - middle[0], rows - middle[1]) < radius
    bright = (inside & (spots > 0.5 * spots[inside].max())).astype(np.uint8)
    _, _, stats, centers = cv2.connectedComponentsWithStats(bright)
    found = centers[1:][stats[1:, cv2.CC_STAT_AREA] > 10 * scale**2]  # of a disc over 50
    expected = middle + scale * (places - center)[:, ::-1]
    distance = np.linalg.norm(found[:, None] - expected[None], axis=2)
    assert len(found) == len(places)
    assert distance.min(axis=0).max() < 1.5
