"""How Mammograms and Readings show themselves in a notebook."""

import base64
import dataclasses
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np

import detector
from detector.export.pictures import NOT_NORMAL, NOTICE
from detector.records import Mammogram, Outlines, Reading

ROOT = Path(__file__).parents[1]
VOID = {"img", "br"}
HOSTILE = '<script>alert("x")</script>&'


class Tags(HTMLParser):
    """Checks that tags close in order, and collects them with their text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.attributes: dict[str, dict[str, str | None]] = {}
        self.words = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes[tag] = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += f" {data}"


def test_a_mammogram_is_a_picture_and_a_small_table(mammogram: Mammogram) -> None:
    shown = Tags(mammogram._repr_html_())
    assert shown.seen.count("img") == shown.seen.count("table") == 1
    data = base64.b64decode(str(shown.attributes["img"]["src"]).removeprefix("data:image/jpeg;base64,"))
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture.shape == (420, 315)  # as tall for its width as the image is
    assert picture[210, 40] > 60 > picture[210, 300]  # breast on the left, air on the right
    for words in ("L CC", "1920 x 1440", "0.07 mm", "presentation"):
        assert words in shown.words


def test_padding_of_a_mammogram_is_dark() -> None:
    bright = np.full((64, 64), 9000, np.float32)
    bright[:, 32:] = 1000 + np.arange(32, dtype=np.float32)
    padding = np.zeros((64, 64), bool)
    padding[:, :32] = True
    identity = dataclasses.replace(detector.make_phantom(1)[0].identity, rows=64, cols=64)
    shown = Tags(Mammogram(bright, identity, padding=padding)._repr_html_())
    data = base64.b64decode(str(shown.attributes["img"]["src"]).partition(",")[2])
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture[:, :28].max() < 30 < picture[:, 36:].max()


def test_a_reading_is_a_drawing_and_tables_and_says_what_it_is_not(reading: Reading) -> None:
    shown = Tags(reading._repr_html_())
    assert shown.seen.count("svg") == 1
    assert shown.seen.count("text") == len(reading.clusters)
    assert shown.seen.count("circle") + shown.seen.count("rect") >= len(reading.spots[reading.spots.cluster_id > 0])
    assert NOTICE in shown.words
    assert (NOT_NORMAL in shown.words) == (reading.n_review == 0)
    assert f"of which to review: {reading.n_review}" in shown.words
    assert shown.seen.count("tr") == 6 + 1 + len(reading.clusters)


def test_nothing_found_does_not_mean_normal(reading: Reading) -> None:
    nothing = dataclasses.replace(
        reading,
        spots=reading.spots[:0],
        clusters=reading.clusters[:0],
        spot_outlines=Outlines.empty(),
        cluster_outlines=Outlines.empty(),
        breast_outline=np.empty((0, 2), np.float32),
        quality="no breast found|size unknown",
    )
    shown = Tags(nothing._repr_html_())
    assert NOT_NORMAL in shown.words
    assert "no breast found, size unknown" in shown.words
    assert not {"circle", "rect", "text", "polygon"} & set(shown.seen)


def test_text_from_headers_stays_text_and_paths_are_not_shown(mammogram: Mammogram, reading: Reading) -> None:
    identity = dataclasses.replace(
        mammogram.identity, path="/home/someone/x.dcm", manufacturer=HOSTILE, model=HOSTILE, view=HOSTILE
    )
    clusters = reading.clusters.replace(reasons=[HOSTILE] * len(reading.clusters))
    for shown in (
        Mammogram(mammogram.pixels, identity)._repr_html_(),
        dataclasses.replace(reading, identity=identity, clusters=clusters)._repr_html_(),
    ):
        assert "script" not in Tags(shown).seen
        assert "<script" not in shown
        assert "someone" not in shown


def test_what_is_printed_is_one_line_without_pixels_and_paths(mammogram: Mammogram, reading: Reading) -> None:
    assert repr(mammogram) == "Mammogram(L CC, 1920 x 1440 pixels of 0.07 mm)"
    assert re.fullmatch(r"Reading\(L CC, 60 candidates, 4 clusters, \d to review\)", repr(reading))


def test_records_are_loaded_without_their_display() -> None:
    code = "import sys, detector.records; print('detector.display' in sys.modules, 'cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_package_is_the_command() -> None:
    command = [sys.executable, "-m", "detector", "--version"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("microcalcification-detector")
