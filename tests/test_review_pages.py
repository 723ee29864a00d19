"""Review pages as files: how views hang, what a page holds, and when a run writes it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html.parser
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.batch import Job, run_batch
from detector.batch.cases import Cases
from detector.batch.pool import Limits, Lost
from detector.batch.work import Plan
from detector.errors import DetectorError
from detector.export.pages import (
    Case,
    CaseRow,
    Run,
    View,
    draw_thumbnails,
    draw_view,
    fit,
    hang,
    level_of,
    render_case,
    render_worklist,
)
from detector.export.pages.case import MOST_PICTURES, PAGE_BYTES
from detector.export.pages.hanging import Turn, turn_of
from detector.export.pages.pictures import encode_within
from detector.export.pages.render import json_for_html
from detector.export.pictures import NOTICE, suspicion_words
from detector.export.pictures.marks import REVIEW
from detector.records import Clusters, Identity
from detector.settings import Settings
from tests.dicom_studies import make_study
from tests.review_cases import COLS, ROWS, four_views, here, make_results, make_view, without_findings

RUN = Run("0123456789abcdef", "1.0 code 1 settings 2", "balanced")


class Parsed(html.parser.HTMLParser):
    """The elements of a page with their attributes, and the text of each script and style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, dict[str, str | None], str]] = []
        self._within: tuple[str, dict[str, str | None]] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style", "title", "h1"):
            self._within = tag, dict(attrs)
            self.texts.append((*self._within, ""))

    def handle_data(self, data: str) -> None:
        if self._within:
            self.texts[-1] = (*self._within, self.texts[-1][2] + data)

    def handle_endtag(self, tag: str) -> None:
        if self._within and tag == self._within[0]:
            self._within = None

    def json(self, name: str) -> Any:
        return json.loads(next(text for _, attributes, text in self.texts if attributes.get("id") == name))


def views_of(case: Iterable[tuple[Any, Any]]) -> list[View]:
    return [View(reading, draw_view(mammogram, reading)) for mammogram, reading in case]


@pytest.fixture(scope="module")
def page() -> str:
    return render_case(Case("1.2.3", views_of(four_views("7"))), RUN, "stamp")


# ---------------------------------------------------------------------------------------------------- how views hang


def identity(side: str, view: str, *modifiers: str, path: str = "") -> Identity:
    return Identity(f"{side}{view}{path}", path, side=side, view=view, view_modifiers=modifiers)


def test_views_hang_right_and_left_cc_over_mlo_others_below() -> None:
    views = [
        (identity("L", "MLO"), True),
        (identity("R", "MLO"), True),
        (identity("L", "CC", "magnification"), True),
        (identity("L", "CC"), True),
        (identity("R", "CC", path="b"), True),
        (identity("R", "CC", path="a"), False),
        (identity("R", "ML"), True),
        (identity("", ""), True),
    ]
    assert hang(views) == [(4, 3), (1, 0), (6, None), (7, None), (None, 2), (5, None)]


@given(
    st.lists(st.tuples(st.sampled_from(["R", "L", "B", ""]), st.sampled_from(["CC", "MLO", "ML", ""]), st.booleans()))
)
def test_every_view_hangs_once_and_never_on_the_other_side(kinds: list[tuple[str, str, bool]]) -> None:
    rows = hang([(identity(side, view), counts) for side, view, counts in kinds])
    assert sorted(i for row in rows for i in row if i is not None) == list(range(len(kinds)))
    for right, left in rows:
        assert right is None or kinds[right][0] != "L"
        assert left is None or kinds[left][0] != "R"


@pytest.mark.parametrize(
    ("side", "view", "wall", "orientation", "turn"),
    [
        ("R", "CC", "right", ("P", "L"), Turn()),
        ("R", "CC", "left", ("A", "L"), Turn(cols=True)),
        ("L", "CC", "left", ("A", "R"), Turn()),
        ("L", "CC", "left", ("A", "L"), Turn(rows=True)),
        ("L", "MLO", "right", ("P", "HL"), Turn(True, True)),
        ("L", "MLO", "", ("P", "F"), Turn(cols=True)),
        ("R", "MLO", "", (), Turn()),
        ("", "", "left", (), Turn()),
    ],
)
def test_pictures_are_mirrored_as_they_hang(
    side: str, view: str, wall: str, orientation: tuple[str, ...], turn: Turn
) -> None:
    mammogram, reading = make_view("1.2.3", side, view, wall, patient_orientation=orientation)
    assert turn_of(reading) == turn
    picture = imagecodecs.jpeg8_decode(draw_view(mammogram, reading))
    plain = np.clip(mammogram.pixels / 1000 * 255, 0, 255)
    assert np.abs(picture - plain[:: -1 if turn.rows else 1, :: -1 if turn.cols else 1]).mean() < 1.5


# -------------------------------------------------------------------------------------------------------- pictures


def noise(rows: int, cols: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, cols)).astype(np.uint8)


def test_pictures_keep_within_their_bytes_by_quality_first_and_size_last() -> None:
    grey = noise(400, 300)
    best = encode_within(grey, 10**6)
    worse = encode_within(grey, len(best) - 1)
    assert imagecodecs.jpeg8_decode(worse).shape == grey.shape and len(worse) < len(best)
    smallest = encode_within(grey, 8000)
    assert len(smallest) <= 8000
    rows, cols = imagecodecs.jpeg8_decode(smallest).shape
    assert rows < 400 and abs(rows / cols - 4 / 3) < 0.03


@given(st.lists(st.integers(20, 60), min_size=1, max_size=6), st.integers(2000, 20000))
def test_pictures_that_fit_are_left_as_they_are_and_all_fit_together(sides: list[int], n_bytes: int) -> None:
    pictures = [encode_within(noise(side, side, i), 10**6) for i, side in enumerate(sides)]
    fitted = fit(pictures, n_bytes)
    assert sum(map(len, fitted)) <= max(n_bytes, 700 * len(pictures))  # the least that a JPEG takes
    if sum(map(len, pictures)) <= n_bytes:
        assert fitted == pictures


def test_thumbnails_stand_side_by_side_with_flagged_clusters_ringed() -> None:
    case = [(reading, draw_view(mammogram, reading)) for mammogram, reading in four_views("7")]
    strip = imagecodecs.jpeg8_decode(draw_thumbnails(case))
    width = round(COLS * 160 / ROWS)
    assert strip.shape == (160, 4 * width + 12, 3)
    flagged = (strip[..., 0] > 180) & (strip[..., 2] < 90)  # orange
    has = [bool(flagged[:, i * (width + 4) : i * (width + 4) + width].sum() > 20) for i in range(4)]
    assert has == [True, True, False, True]
    assert REVIEW[0] > 180 and REVIEW[2] < 90
    # the ring of the mirrored view is where the cluster is in the mirrored picture
    cols = np.flatnonzero(flagged[:, width + 4 : 2 * width + 4].any(axis=0))
    assert abs((cols.min() + cols.max()) / 2 - (COLS - 1 - 158) * 160 / ROWS) < 2


# ------------------------------------------------------------------------------------------------------------ pages


def test_a_page_allows_only_its_own_scripts_and_styles_and_loads_nothing(page: str) -> None:
    for text in (page, render_worklist([CaseRow("1.2.3")], RUN)):
        parsed = Parsed(text)
        policy = next(a["content"] for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy") or ""
        assert "unsafe" not in policy and policy.startswith("default-src 'none'")
        for tag, attributes, content in parsed.texts:
            if (tag == "script" and "type" not in attributes) or tag == "style":
                digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
                assert f"'sha256-{digest}'" in policy
        for tag, attributes in parsed.tags:
            assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
            assert "style" not in attributes
            for name in ("src", "href", "action"):
                assert not re.match(r"[a-z]+://|//", attributes.get(name) or ""), (tag, attributes)
        assert NOTICE in text


def test_a_page_says_low_medium_high_and_no_number_of_suspicion_or_confidence(page: str) -> None:
    data = Parsed(page).json("data")
    assert {c["level"] for v in data["views"] for c in v["clusters"]} == {"high", "low"}
    keys = {key for v in data["views"] for table in ("clusters", "spots") for row in v[table] for key in row}
    assert not keys & {"suspicion", "confidence"}
    row = CaseRow("1", n_review=1, n_clusters=1, level=3, suspicion=0.87654)
    assert "0.87" not in json.dumps(Parsed(render_worklist([row], RUN)).json("data"))
    settings = Settings().assess
    values = [0.0, 0.2, settings.review_suspicion, 0.5, settings.high_suspicion, 1.0]
    words = suspicion_words(Clusters.blank(len(values), suspicion=values), settings)
    assert [("", "low", "medium", "high")[level_of(v, settings)] for v in values] == words


def test_a_page_counts_what_the_tables_count_and_says_what_of_it_is_not_drawn() -> None:
    mammogram, reading = make_view("1.2.3", "L", "CC", "left")
    confidence = reading.spots.confidence.copy()
    confidence[-2:] = 0.3
    doubtful = dataclasses.replace(reading, spots=reading.spots.replace(confidence=confidence))
    for found, not_drawn in ((reading, ""), (doubtful, "1 micro, 1 macro")):
        data = Parsed(render_case(Case("1.2.3", [View(found, draw_view(mammogram, found))]), RUN)).json("data")[
            "views"
        ][0]
        assert data["not_drawn"] == not_drawn
        assert (data["n_micro"], data["n_macro"], data["n_unknown"]) == (6, 1, 0)
        assert len(data["spots"]) == 7 - 2 * bool(not_drawn)


def test_a_page_of_too_many_or_too_large_pictures_stays_within_its_bytes_and_says_so() -> None:
    mammogram, reading = make_view("1.2.3", "L", "CC", "left")
    large = bytes(imagecodecs.jpeg8_encode(noise(1500, 1000), level=95))
    quiet = without_findings(reading)
    views = [View(quiet, large)] * (MOST_PICTURES + 2) + [View(reading, draw_view(mammogram, reading))]
    text = render_case(Case("1.2.3", views), RUN)
    assert 0.8 * PAGE_BYTES < len(text.encode()) <= PAGE_BYTES
    pictures = [a["id"] for _, a, _ in Parsed(text).texts if str(a.get("id")).startswith("picture-")]
    assert len(pictures) == MOST_PICTURES and f"picture-{MOST_PICTURES + 2}" in pictures
    assert "3 pictures of this case are not on this page" in text
    assert "1 picture of this case is not on this page" in render_case(Case("1.2.3", views[2:]), RUN)


@given(
    st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=40)
    | st.sampled_from(["</script>", "<!--", "&lt;", "]]>"])
)
def test_any_text_comes_back_from_a_page_as_it_was_and_ends_no_element(text: str) -> None:
    written = str(json_for_html({"x": text}))
    assert json.loads(written) == {"x": text}
    assert not set("<>&") & set(written)
    row = CaseRow(text, reasons=(text,), paths=(text,), limits=(text,))
    parsed = Parsed(render_worklist([row], RUN))
    assert sum(tag == "script" for tag, _ in parsed.tags) == 4


def test_hostile_names_end_no_element(page: str) -> None:
    hostile = "</title></script><script>alert(1)</script><img src=x onerror=alert(1)>"
    mammogram, reading = make_view("1.2.3", "L", "CC", "left", path=hostile, manufacturer=hostile, study_date=hostile)
    view = View(reading, draw_view(mammogram, reading), hostile, hostile)
    parsed = Parsed(render_case(Case(hostile, [view]), dataclasses.replace(RUN, version=hostile)))
    usual = Parsed(page)
    assert sum(t == "script" for t, _ in parsed.tags) == sum(t == "script" for t, _ in usual.tags) - 3  # pictures
    assert not any(tag == "img" for tag, _ in parsed.tags)
    assert any(tag == "h1" and hostile in text for tag, _, text in parsed.texts)


# -------------------------------------------------------------------------------------------------------- the stage


def job(images: Path, out: Path, pictures: str = "all", **changes: Any) -> Job:
    return dataclasses.replace(Job((images,), out, formats=frozenset({"report"}), pictures=pictures), **changes)


def pages(out: Path) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in sorted((out / "report").glob("*.html"))}


def worklist(out: Path) -> list[Any]:
    return list(Parsed((out / "report.html").read_text("utf-8")).json("data"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    make_study(folder)
    return folder


def test_a_run_leaves_a_worklist_and_a_page_that_link_each_other_and_redoes_only_what_changed(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_batch(job(images, out), runner=here)
    ((case_id, stem, *_, has_page, has_thumbnail),) = worklist(out)
    assert has_page and has_thumbnail
    assert (out / "report" / "thumbnails" / f"{stem}.jpg").is_file()
    text = (out / "report" / f"{stem}.html").read_text("utf-8")
    assert f"../report.html#{stem}" in text and case_id in text
    assert text.count('id="picture-') == 4
    assert (out / "images.csv").is_file()  # pages are made of the tables
    first = pages(out)
    run_batch(job(images, out), runner=here)
    assert pages(out) == first
    sensitive = Settings.from_mapping({"cluster": {"operating_point": "sensitive"}})
    run_batch(job(images, out, settings=sensitive), runner=here)
    assert pages(out) != first
    second = pages(out)
    run_batch(job(images, out, settings=sensitive, cases={"LCC.dcm": "another"}), runner=here)
    assert len(pages(out)) == 2 and len(worklist(out)) == 2
    assert len(list((out / "report" / "thumbnails").iterdir())) == 2
    assert all(pages(out)[name] != second[name] for name in second)
    run_batch(job(images, out, settings=sensitive), runner=here)
    assert pages(out).keys() == second.keys()  # no page is left that the worklist does not lead to


def test_pages_follow_pictures_and_a_case_with_findings_shows_all_its_views(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_batch(job(images, out, pictures="none"), runner=here)
    assert pages(out) == {} and [row[-2:] for row in worklist(out)] == [[0, 0]]
    found = [row[6] + row[8] for row in worklist(out)]  # clusters and macrocalcifications
    run_batch(job(images, out, pictures="findings"), runner=here)
    assert len(pages(out)) == sum(n > 0 for n in found)
    for name in pages(out):
        assert (out / "report" / name).read_text("utf-8").count('id="picture-') == 4
    run_batch(job(images, out), runner=here)
    assert len(pages(out)) == 1
    other = Settings.from_mapping({"cluster": {"operating_point": "sensitive"}})
    run_batch(job(images, out, pictures="none", settings=other), runner=here)
    assert pages(out) == {}  # they would show other findings than the tables


def test_pages_are_made_anew_without_images_and_where_one_cannot_be_made_the_rest_are(tmp_path: Path) -> None:
    out = make_results(tmp_path / "out", {"a": four_views("1"), "b": four_views("2")})
    before = pages(out)
    assert len(before) == 2
    shutil.rmtree(out / "report" / "thumbnails")
    (out / "report.html").unlink()
    next(iter((out / "report").glob("*.html"))).unlink()
    assert Cases(Plan(out, Settings()), None).write(here, Limits(1), lambda: False) == 2
    assert pages(out).keys() == before.keys()

    def losing(tasks: Iterable[Any], work: Any, *_: object) -> Iterator[tuple[Any, Any]]:
        for i, task in enumerate(tasks):
            yield task, work(task) if i else Lost("TimeLimit", "too long")

    for old in (out / "report").glob("*.html"):
        old.unlink()
    Cases(Plan(out, Settings()), None).write(losing, Limits(1), lambda: False)
    assert [row[-2] for row in worklist(out)].count(1) == len(pages(out)) == 1


def test_a_folder_without_tables_is_named(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"holds no tables images\.csv and clusters\.csv"):
        Cases(Plan(tmp_path, Settings()), None).write(here, Limits(1), lambda: False)


def test_flagged_cases_come_first_and_then_by_rank() -> None:
    rows = [
        CaseRow("quiet"),
        CaseRow("many", n_clusters=3, level=1, suspicion=0.9),
        CaseRow("flagged low", n_review=1, n_clusters=1, level=2, suspicion=0.4),
        CaseRow("flagged high", n_review=1, n_clusters=1, level=3, suspicion=0.8),
    ]
    data = Parsed(render_worklist(rows, RUN)).json("data")
    assert [row[0] for row in data] == ["flagged high", "flagged low", "many", "quiet"]


def test_images_that_do_not_count_are_shown_and_not_counted(tmp_path: Path) -> None:
    out = make_results(tmp_path / "out", {"a": four_views("1")})
    table = (out / "images.csv").read_text("utf-8")
    ours = [i for i, line in enumerate(table.splitlines()) if line.startswith("1.2.1.2,")]
    head, *lines = table.splitlines()
    cells = lines[ours[0] - 1].split(",")
    cells[head.split(",").index("excluded_reason")] = "same exposure"
    lines[ours[0] - 1] = ",".join(cells)
    (out / "images.csv").write_text("\r\n".join([head, *lines]) + "\r\n", "utf-8")
    Cases(Plan(out, Settings()), None).write(here, Limits(1), lambda: False)
    (row,) = worklist(out)
    assert row[5] == 2 and row[3][-1] == "L CC"  # flagged clusters of three views, the fourth hangs last
