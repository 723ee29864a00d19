"""The review pages in a real Chromium: from disk, and from `detector review`."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import http.server
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector.export.files import file_stem
from detector.export.pages import Case, Run, View, draw_view, render_case
from detector.review import STORE, Review, ReviewServer, Store
from tests.browser import Watched, chromium, opened
from tests.review_cases import four_views, make_results, make_view, without_findings

pytestmark = pytest.mark.needs("chromium")
SIZES = [(1366, 768), (2048, 2560)]
HOSTILE = """</script><script>document.title='run'</script><img src=x onerror="document.title='run'">&lt;b&gt;'"`${1}"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A site that does not log."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    quiet = [(m, without_findings(r)) for m, r in [make_view("1.2.9.1", "L", "CC", "left")]]
    hostile = [
        make_view("1.2.8.1", "L", "CC", "left", path=HOSTILE, manufacturer=HOSTILE, model="=1+1", warnings=(HOSTILE,))
    ]
    cases = {"case 10": four_views("10"), "case 2": quiet, HOSTILE: hostile}
    return make_results(tmp_path_factory.mktemp("results"), cases)


def page_of(results: Path, case_id: str) -> str:
    return (results / "report" / f"{file_stem(case_id)}.html").as_uri()


@pytest.fixture
def served(results: Path, tmp_path: Path) -> Iterator[ReviewServer]:
    server = ReviewServer(Review(results, Store(tmp_path / STORE)))
    server.start()
    yield server
    server.stop()


def cases_shown(watched: Watched) -> list[str]:
    return list(watched.page.evaluate("state.shown.map((row) => row.id)"))


# ------------------------------------------------------------------------------------------------------ from disk


@pytest.mark.parametrize("size", SIZES)
def test_the_worklist_sorts_and_filters_and_opens_a_case(browser: Any, results: Path, size: tuple[int, int]) -> None:
    with opened(browser, (results / "report.html").as_uri(), size) as watched:
        page = watched.page
        first = cases_shown(watched)
        assert first[-1] == "case 2" and set(first[:2]) == {"case 10", HOSTILE}
        page.get_by_role("columnheader", name="Case").get_by_role("button").click()
        assert cases_shown(watched)[-2:] == ["case 2", "case 10"]
        page.get_by_role("columnheader", name="Case").get_by_role("button").click()
        assert cases_shown(watched)[:2] == ["case 10", "case 2"]
        for choice, value, left in (
            ("#flag", "0", ["case 2"]),
            ("#side", "R", ["case 10"]),
            ("#kind", "macro", ["case 10", HOSTILE]),
        ):
            page.select_option(choice, value)
            assert cases_shown(watched) == left
            page.click("#reset")
        page.keyboard.press("Control+a")
        page.fill("#search", "irregular CASE")
        assert cases_shown(watched) == ["case 10"]
        assert page.locator(".row").count() == 1
        assert page.locator(".row img").evaluate("(image) => image.decode().then(() => image.naturalHeight)") == 160
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.keyboard.press("Escape")
        page.keyboard.press("Enter")
        watched.until("document.title", "Case case 10")
        watched.settled()
        page.keyboard.press("w")
        watched.until("document.title.startsWith('Worklist')")
        watched.until("state.shown[state.chosen].id", "case 10")
        assert not watched.said
        assert all(url.startswith((results.as_uri(), "data:")) for url in watched.asked)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", [0, 1])  # as it is, and mirrored
def test_a_mark_sits_on_its_spot_at_every_zoom(browser: Any, results: Path, size: tuple[int, int], view: int) -> None:
    with opened(browser, page_of(results, "case 10"), size) as watched:
        watched.settled()
        watched.page.evaluate(f"page.views[{view}].element.focus()")
        watched.press("f")
        flagged = f"page.choose(page.items.find((item) => item.view.index === {view} && item.cluster.review))"
        for spot, keys in ((5, ["0"]), (0, ["z"]), (2, ["+", "+"])):
            if keys == ["z"]:
                watched.page.evaluate(flagged)
            watched.press(*keys)
            watched.settled()
            mark = watched.page.evaluate(
                f"""(() => {{ const mark = page.views[{view}].marks.querySelector('[data-spot="{spot + 1}"]');
                const box = mark.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2, box.width / 2]; }})()"""
            )
            watched.press("m")
            watched.settled()
            screen = watched.screen()
            watched.press("m")
            assert np.hypot(*(_bright(screen, mark) - mark[:2])) <= 0.5, (size, view, spot)
        assert not watched.said


def _bright(screen: np.ndarray, mark: list[float]) -> np.ndarray:
    """Return x and y of the centre of gravity of what is bright around a mark."""
    x, y, r = (round(v) for v in mark)
    reach = r + 4
    patch = screen[y - reach : y + reach + 1, x - reach : x + reach + 1]
    assert patch.shape == (2 * reach + 1, 2 * reach + 1), "the mark is not on the screen"
    height = np.clip(patch.astype(float) - 110, 0, None)  # over the breast around it
    center = (np.indices(patch.shape)[::-1] * height).sum((1, 2)) / height.sum()
    # a pixel of the screen covers from its number to the next
    return np.asarray(center + (x - reach + 0.5, y - reach + 0.5))


def test_the_panel_counts_as_the_tables_do_and_says_what_is_not_drawn(browser: Any, tmp_path: Path) -> None:
    mammogram, reading = make_view("1.2.3", "L", "CC", "left")
    spots = reading.spots.replace(confidence=np.where(reading.spots.cluster_id > 0, 0.9, 0.3))
    found = dataclasses.replace(reading, spots=spots)
    place = tmp_path / "page.html"
    place.write_text(render_case(Case("1.2.3", [View(found, draw_view(mammogram, found))]), Run("key", "v")), "utf-8")
    with opened(browser, place.as_uri()) as watched:
        watched.settled()
        words = watched.page.inner_text("#panel")
        assert "6 micro, 1 macro; of these not drawn: 1 micro, 1 macro, single and doubtful" in words
        assert watched.page.locator("path.micro:not(.edge)").count() == 5
        assert not watched.said


def test_marks_by_kind_zoom_linked_and_the_filter_says_what_it_is(browser: Any, results: Path) -> None:
    with opened(browser, page_of(results, "case 10")) as watched:
        watched.settled()
        page = watched.page
        sight = (
            "(kind) => [...document.querySelectorAll(`svg.marks .${kind}`)].filter((m) => m.checkVisibility()).length"
        )
        before = {kind: page.evaluate(sight, kind) for kind in ("review", "other", "micro", "macro")}
        assert all(before.values())
        page.click("#kinds summary")
        page.uncheck("[data-marks=macro]")
        page.keyboard.press("Escape")
        assert page.evaluate(sight, "macro") == 0 and page.evaluate(sight, "review") == before["review"]
        page.keyboard.press("m")
        assert not any(page.evaluate(sight, kind) for kind in before)
        page.keyboard.press("m")
        scales = "page.shown.map((view) => view.frame().scale)"
        fitted = page.evaluate(scales)
        assert np.ptp(fitted) < 1e-6
        page.mouse.move(300, 300)
        page.mouse.wheel(0, -300)
        watched.settled()
        zoomed = page.evaluate(scales)
        assert np.ptp(zoomed) < 1e-6 * zoomed[0] and zoomed[0] > 1.2 * fitted[0]
        page.keyboard.press("l")
        page.mouse.wheel(0, -300)
        watched.settled()
        assert np.ptp(page.evaluate(scales)) > 0.1 * zoomed[0]
        page.keyboard.press("i")
        assert "invert(1)" in page.evaluate("page.shown[0].osd.drawer.canvas.style.filter")
        assert "8 bits" in page.inner_text(".group.grey")
        assert "Not a diagnosis" in page.inner_text("footer")
        assert not watched.said


def test_the_breast_fills_the_view_and_then_the_whole_picture_does(browser: Any, tmp_path: Path) -> None:
    views = []
    for mammogram, reading in four_views("10")[:2]:
        outline = np.array([[200, 0], [300, 150], [400, 0]] if reading.chest_wall == "left" else [], np.float32)
        views.append((mammogram, dataclasses.replace(reading, breast_outline=outline)))
    results = make_results(tmp_path, {"case": views})
    with opened(browser, page_of(results, "case")) as watched:
        watched.settled()
        corners = """page.shown.map((v) => [v.toScreen(200, 0), v.toScreen(400, 150), v.toScreen(0, 0),
            [v.screen.clientWidth, v.screen.clientHeight]])"""
        for top, bottom, _, (wide, high) in watched.page.evaluate(corners):
            assert 0 < top[1] < 0.05 * high and 0.95 * high < bottom[1] < high
            assert min(top[0], abs(wide - top[0])) <= 2  # the chest wall is at the seam
        watched.press("0")
        watched.settled()
        for top, bottom, corner, (wide, high) in watched.page.evaluate(corners):
            assert abs(corner[1]) < 1 and bottom[1] - top[1] < 0.4 * high
            assert min(corner[0], abs(wide - corner[0])) < 1
        assert not watched.said


def test_views_hang_back_to_back(browser: Any, results: Path) -> None:
    with opened(browser, page_of(results, "case 10")) as watched:
        watched.settled()
        place = """Object.fromEntries([...document.querySelectorAll('.view')].map((v) => {
            const b = v.getBoundingClientRect(); return [v.querySelector('b').textContent, [b.x, b.y]]; }))"""
        at = watched.page.evaluate(place)
        assert at["R CC"][0] < at["L CC"][0] and at["R CC"][1] == at["L CC"][1]
        assert at["R CC"][1] < at["R MLO"][1] and at["R CC"][0] == at["R MLO"][0]
        seams = watched.page.evaluate(
            """page.shown.map((v) => [v.data.side, v.frame().x, v.frame().x + v.frame().scale * v.data.cols,
                v.screen.clientWidth])"""
        )
        for side, left, right, wide in seams:  # the chest walls meet in the middle
            assert abs(right - wide) < 1 if side == "R" else abs(left) < 1
        assert "mirrored" in watched.page.inner_text(".view >> text=R CC >> xpath=..")


def test_a_decision_by_keyboard_survives_reload_export_and_import(browser: Any, results: Path, tmp_path: Path) -> None:
    with opened(browser, page_of(results, "case 10")) as watched:
        page = watched.page
        watched.press("n", "a")
        assert "name" in page.inner_text("#saved")  # asked for first
        assert page.evaluate("document.activeElement.id") == "reviewer"
        page.keyboard.type('Dr =A, "B"')
        page.keyboard.press("Tab")
        page.keyboard.press("Escape")
        watched.press("n", "a", "n", "r")
        watched.press("c")
        page.keyboard.type('=skin, "fold"\nnot calcium')
        page.keyboard.press("Control+Enter")
        decided = "page.items.map((item) => decisions.standing(item.subject)?.decision ?? '')"
        before = page.evaluate(decided)
        assert sorted(before, reverse=True)[:2] == ["reject", "accept"] and before.count("") == len(before) - 2
        page.reload()
        watched.until("document.body.matches('.from-disk')")
        assert page.evaluate(decided) == before
        with page.expect_download() as download:
            page.click("#save")
        assert download.value.suggested_filename == "decisions.csv"
        download.value.save_as(tmp_path / "decisions.csv")
        assert not watched.said
    text = (tmp_path / "decisions.csv").read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["decision"] for row in rows] == ["accept", "reject", "reject"]
    assert rows[-1]["comment"] == '\'=skin, "fold"\nnot calcium'
    assert {row["reviewer"] for row in rows} == {'Dr =A, "B"'}
    with opened(browser, page_of(results, "case 10")) as watched:  # another browser
        assert not any(watched.page.evaluate(decided))
        watched.page.set_input_files("#file", tmp_path / "decisions.csv")
        watched.until("decisions.rows.length", 3)
        assert not any(watched.page.evaluate(decided))  # they are another's until the reader has decided
        watched.name_reader('Dr =A, "B"')
        watched.until(decided, before)
        comment = "decisions.rows.filter((row) => row.comment).map((row) => row.comment)"
        assert watched.page.evaluate(comment) == ['=skin, "fold"\nnot calcium']


def test_a_missed_cluster_is_drawn_by_keys_and_by_mouse_and_withdrawn(browser: Any, results: Path) -> None:
    with opened(browser, page_of(results, "case 10")) as watched:
        page = watched.page
        watched.name_reader("MR")
        watched.settled()
        page.evaluate("page.views[1].element.focus()")  # the mirrored one
        watched.press("d", "ArrowLeft", "ArrowLeft", "+", "Enter")
        box = page.locator("[data-view='0']").bounding_box()
        watched.press("d")
        page.mouse.move(box["x"] + 60, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 75, box["y"] + 120, steps=4)
        page.mouse.up()
        drawn = page.evaluate(
            """decisions.rows.map((row) =>
                [row.target, row.image_id, row.decision, +row.row_px, +row.col_px, +row.radius_px])"""
        )
        assert [d[:3] for d in drawn] == [["missed", "1.2.10.1", "added"], ["missed", "1.2.10.2", "added"]]
        frame = page.evaluate("page.views[0].frame()")
        expected = [
            (100 - frame["y"]) / frame["scale"] - 0.5,
            (60 - frame["x"]) / frame["scale"] - 0.5,
            25 / frame["scale"],
        ]
        assert np.abs(np.array(drawn[1][3:]) - expected).max() < 1.5 / frame["scale"]
        assert page.locator("svg.marks circle[data-drawn]").count() == 2
        watched.press("Delete")
        assert page.locator("svg.marks circle[data-drawn]").count() == 1
        assert page.evaluate("decisions.rows.at(-1).decision") == "withdrawn"
        assert not watched.said


def test_the_ruler_measures_in_mm(browser: Any, results: Path) -> None:
    with opened(browser, page_of(results, "case 10")) as watched:
        page = watched.page
        watched.settled()
        scale = page.evaluate("page.views[0].frame().scale")
        box = page.locator("[data-view='0']").bounding_box()
        watched.press("g")
        page.mouse.move(box["x"] + 20, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + 50, box["y"] + 60, steps=4)
        page.mouse.up()
        shown = page.text_content("[data-view='0'] text.ruler")
        assert abs(float(shown.removesuffix(" mm")) - 50 / scale * 0.2) <= 0.2 * 1.5 / scale + 0.05
        watched.press("ArrowRight", "Escape")
        assert page.locator("text.ruler").count() == 0


def test_the_keys_are_shown_and_left_from_the_keyboard(browser: Any, results: Path) -> None:
    with opened(browser, page_of(results, "case 10")) as watched:
        page = watched.page
        watched.settled()
        # a browser that loads the page while its reader types says so of what wants the focus by itself
        assert page.locator("[autofocus]").count() == 0
        watched.press("?")
        assert page.evaluate("document.activeElement.textContent") == "Close"
        watched.press("Enter")
        assert not page.evaluate("byId('keys').open")
        assert not watched.said


def test_blind_mode_hides_findings_until_an_opinion_is_recorded_and_keeps_both(browser: Any, results: Path) -> None:
    with opened(browser, (results / "report.html").as_uri()) as watched:
        page = watched.page
        page.check("#blind")
        assert page.locator(".row img").count() == 0
        assert not page.locator("#body").get_by_text("irregular").count()
        watched.name_reader("MR")
        page.get_by_role("link", name="case 10").click()
        watched.until("document.title", "Case case 10")
        watched.settled()
        seen = "[...document.querySelectorAll('svg.marks *')].filter((m) => m.checkVisibility()).length"
        assert page.evaluate(seen) == 0 and "irregular" not in page.inner_text("#panel")
        watched.press("n", "j")
        assert page.evaluate("page.chosen") is None
        watched.press("u")
        assert page.evaluate(seen) > 0
        watched.press("a", "n", "a")
        kept = page.evaluate("decisions.rows.map((row) => [row.target, row.decision, row.blind])")
        assert kept == [["case", "unsure", "true"], ["case", "yes", "false"], ["cluster", "accept", "false"]]
        watched.press("Escape")
        assert "Blind, before findings were shown: unsure" in page.inner_text("#panel")
        assert not watched.said


def test_hostile_text_is_shown_as_text(browser: Any, results: Path) -> None:
    for url in ((results / "report.html").as_uri(), page_of(results, HOSTILE)):
        with opened(browser, url) as watched:
            if "report/" in url:
                watched.settled()
            assert watched.page.evaluate("document.title") != "run"
            assert watched.page.evaluate("document.querySelectorAll('img[src=x], script:not([type])').length") in (2, 3)
            assert HOSTILE in watched.page.evaluate("document.body.innerText")
            assert not watched.said


@pytest.mark.parametrize("size", SIZES)
def test_axe_finds_no_serious_fault(browser: Any, results: Path, served: ReviewServer, size: tuple[int, int]) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for url, keys in (
        ((results / "report.html").as_uri(), []),
        (page_of(results, "case 10"), ["n"]),
        (page_of(results, "case 10"), ["b"]),
        (page_of(results, "case 10"), ["?"]),
        (served.url.replace("report.html", "agreement"), []),
    ):
        with opened(browser, url, size) as watched:
            watched.name_reader("MR") if "agreement" not in url else None
            watched.press(*keys)
            found = Axe().run(watched.page).response["violations"]
            assert not [
                (f["id"], f["nodes"][0]["html"][:200], f["nodes"][0]["failureSummary"])
                for f in found
                if f["impact"] in ("serious", "critical")
            ]


# ---------------------------------------------------------------------------------------------------- from a server


def decided(watched: Watched) -> list[str]:
    return list(watched.page.evaluate("page.items.map((item) => decisions.standing(item.subject)?.decision ?? '')"))


def case_url(server: ReviewServer, case_id: str = "case 10") -> str:
    return server.url.replace("report.html", f"report/{file_stem(case_id)}.html")


def test_two_readers_at_once_see_each_other_after_their_own_decision(browser: Any, served: ReviewServer) -> None:
    url = case_url(served)
    with opened(browser, url) as one, opened(browser, url) as two:
        one.name_reader("Ann")
        two.name_reader("Ben")
        one.press("n", "a")
        one.until("document.getElementById('saved').textContent", "saved")
        two.press("n")
        assert "Ann" not in two.page.inner_text("#panel")
        assert two.page.evaluate("decisions.rows.length") == 0
        two.press("r")
        two.until("document.getElementById('panel').innerText.includes('Ann: accept')")
        one.page.reload()
        one.until("decisions.rows.length > 0")
        assert "accept" in decided(one) and "accept" not in decided(two)
        one.press("n")
        one.until("document.getElementById('panel').innerText.includes('Ben: reject')")
        with one.page.expect_download() as download:
            one.page.click("#export")
        assert download.value.suggested_filename == "decisions.csv"
        for watched in (one, two):
            assert not watched.said
            assert {url.split("/")[2] for url in watched.asked if url.startswith("http")} == {
                f"127.0.0.1:{served.server_port}"
            }
            assert all(url.startswith(("http", "data:")) for url in watched.asked)
    kept = served.review.store.all()
    assert [(d.reviewer, d.decision, d.blind) for d, _ in kept] == [
        ("Ann", "accept", "false"),
        ("Ben", "reject", "false"),
    ]
    with opened(browser, served.url.replace("report.html", "agreement?reviewer=Ann")) as watched:
        assert "Ann (rows) and Ben (columns): 1 decided by both, in 1 cases" in watched.page.inner_text("main")
    with opened(browser, served.url) as watched:
        watched.name_reader("Ann")
        watched.until("[...document.querySelectorAll('.row .mine')].map((m) => m.textContent).join('')", "1 accept")


@contextlib.contextmanager
def command(results: Path, port: int, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `detector review` until it listens; at the end it is killed."""
    code = "from detector.cli import main; main()"
    words = [sys.executable, "-c", code, "review", str(results), "--port", str(port), *arguments]
    process = subprocess.Popen(words, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == f"http://127.0.0.1:{port}/report.html\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_decision_on_its_way_to_a_server_that_is_killed_is_not_lost(
    browser: Any, results: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with contextlib.ExitStack() as stack:
        with command(folder, port) as first:
            watched = stack.enter_context(
                opened(browser, f"http://127.0.0.1:{port}/report/{file_stem('case 10')}.html")
            )
            watched.name_reader("Ann")
            watched.press("n", "a")
            watched.until("document.getElementById('saved').textContent", "saved")
            first.send_signal(signal.SIGSTOP)  # the next one is on its way
            watched.press("n", "r")
        watched.until("document.getElementById('saved').textContent.startsWith('not saved yet')")
        watched.page.goto("about:blank")  # and the reader leaves the page
        with command(folder, port):
            watched.page.goto(f"http://127.0.0.1:{port}/report.html")
            watched.until("document.body.matches('.served')")
            watched.until("decisions.rows.map((row) => row.decision).join()", "accept,reject")
    assert [d.decision for d, _ in Store(folder / STORE).all()] == ["accept", "reject"]


def test_a_decision_that_is_refused_holds_up_no_other(browser: Any, served: ReviewServer) -> None:
    with opened(browser, case_url(served)) as watched:
        watched.name_reader("  Ann\u00a0 Other\u200b ")
        watched.page.evaluate("decisions.add({ target: 'case', decision: 'perhaps' })")
        watched.press("u")
        watched.until("decisions.pending.length", 1)
        watched.until("document.getElementById('saved').textContent.includes('perhaps')")
    assert [(d.reviewer, d.decision) for d, _ in served.review.store.all()] == [("Ann Other", "unsure")]


def test_a_server_may_hold_readers_to_blind_mode_and_ask_for_a_token(
    browser: Any, results: Path, tmp_path: Path
) -> None:
    server = ReviewServer(Review(results, Store(tmp_path / STORE), token="sixteen-letters-and-more", blind=True))
    server.start()
    with opened(browser, server.url) as watched:
        page = watched.page
        assert page.url == f"http://127.0.0.1:{server.server_port}/report.html"  # the token has left the address
        assert page.is_checked("#blind") and page.is_disabled("#blind")
        assert not page.locator("#body").get_by_text("irregular").count()
        watched.name_reader("Ann")
        page.get_by_role("link", name="case 10").click()
        watched.until("document.title === 'Case case 10' && document.body.matches('.served')")
        watched.press("b", "b")  # of no use
        assert page.evaluate("page.hiding")
        watched.press("a")
        assert not page.evaluate("page.hiding")
        watched.until("document.getElementById('saved').textContent", "saved")
    stranger = browser.new_page()
    assert stranger.goto(server.url.partition("?")[0]).status == 401
    stranger.close()
    assert [(d.target, d.decision, d.blind) for d, _ in server.review.store.all()] == [("case", "yes", "true")]
    server.stop()


def test_a_page_of_another_site_can_neither_post_nor_read(browser: Any, served: ReviewServer, tmp_path: Path) -> None:
    (tmp_path / "evil.html").write_text("<!doctype html><title>evil</title><iframe name=frame></iframe>")
    target = f"http://127.0.0.1:{served.server_port}"
    row = {"decision_id": "00112233", "reviewer": "Eve"}
    attacks = f"""async () => {{
        const body = JSON.stringify({{ decisions: [{json.dumps(row)}] }});
        const tries = [
            {{ method: 'POST', body, headers: {{ 'Content-Type': 'application/json', 'X-Detector': '1' }} }},
            {{ method: 'POST', body, mode: 'no-cors', headers: {{ 'Content-Type': 'text/plain' }} }},
            {{ headers: {{ 'X-Detector': '1' }} }}, {{ mode: 'no-cors' }},
        ];
        const seen = [];
        for (const options of tries) {{
            const sent = fetch('{target}/api/decisions', options);
            seen.push(await sent.then((answer) => answer.type, () => 'refused'));
        }}
        const form = document.createElement('form');
        Object.assign(form, {{ method: 'POST', action: '{target}/api/decisions', target: 'frame' }});
        form.enctype = 'text/plain';
        const field = document.createElement('input');
        Object.assign(field, {{ name: body.slice(0, -1) + ', "x": "', value: '"}}' }});
        form.append(field); document.body.append(form); form.submit();
        return seen;
    }}"""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://localhost:{site.server_port}/evil.html")
        assert page.evaluate(attacks) == ["refused"] * 4
        page.wait_for_timeout(500)
        framed = """(url) => new Promise((done) => {
            const frame = document.createElement('iframe');
            frame.onload = () => { try { done(frame.contentDocument.title); } catch { done('closed'); } };
            frame.src = url;
            document.body.append(frame);
        })"""
        assert page.evaluate(framed, served.url) == "closed"
        context.close()
        site.shutdown()
    assert served.review.store.all() == []
