"""The docs site builds without a warning, holds what the code says, and asks nothing of the network."""

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

from detector.export.tables import CLUSTER_COLUMNS, IMAGE_COLUMNS, SPOT_COLUMNS, TIMING_COLUMNS
from detector.read.dicom import KEYWORDS
from detector.read.frames import _CODECS
from detector.settings import Settings
from scripts import docs, notebooks

ROOT = Path(__file__).parents[1]


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    return subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True)


class Page(HTMLParser):
    """The text of a page, its links, and what a browser fetches for it by itself."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words = ""
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.fetched.append(given.get("href", ""))
        if tag in ("script", "img", "iframe") and "src" in given:
            self.fetched.append(given["src"])

    handle_startendtag = handle_starttag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Build the site once; strict, so that a warning is an error."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = build(folder)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    yield folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {path.relative_to(site).as_posix(): Page(path) for path in site.rglob("*.html")}


def test_every_subject_has_its_page(pages: dict[str, Page]) -> None:
    wanted = (
        "index quick-start how-it-works columns settings commands dicom accuracy benchmarks model-card data-sets cite"
    )
    wanted += " what-it-is-not changelog contributing review"
    lessons = [f"notebooks/{path.stem}.html" for path in notebooks.notebooks()]
    assert {*(f"{name}.html" for name in wanted.split()), *lessons} <= set(pages)


def test_every_column_stands_on_its_page(pages: dict[str, Page]) -> None:
    words = pages["columns.html"].words
    for column in (*IMAGE_COLUMNS, *SPOT_COLUMNS, *CLUSTER_COLUMNS, *TIMING_COLUMNS):
        assert re.search(rf"\b{column.name}\b", words), column.name
        assert column.meaning in words, column.name


def test_every_setting_stands_with_its_source(pages: dict[str, Page]) -> None:
    words = pages["settings.html"].words
    for room in dataclasses.fields(Settings):
        for knob in dataclasses.fields(getattr(Settings(), room.name)):
            assert re.search(rf"\b{knob.name}\b", words), knob.name
            for said in (knob.metadata["meaning"], knob.metadata["source"]):
                assert said.replace("`", "") in words, knob.name
    assert any(link.startswith("https://doi.org/10.1098/rspb.1980.0020") for link in pages["settings.html"].links)


def test_the_conformance_statement_names_what_the_reader_takes(pages: dict[str, Page]) -> None:
    words = pages["dicom.html"].words
    assert not [uid for uid in _CODECS if uid not in words]
    assert not [keyword for keyword in KEYWORDS if keyword not in words]
    assert "1.2.840.10008.5.1.4.1.1.88.50" in words  # Mammography CAD SR
    assert "1.2.840.10008.5.1.4.1.1.11.1" in words  # presentation state


def test_the_keys_of_a_case_page_stand_on_the_page_of_reviews(pages: dict[str, Page]) -> None:
    for said in ("next, previous cluster flagged for review", "accept, reject, unsure", "blind mode"):
        assert said in pages["review.html"].words


def test_no_part_was_left_to_be_generated(pages: dict[str, Page], site: Path) -> None:
    assert not [name for name in pages if "<!-- generated" in (site / name).read_text("utf-8")]
    assert not [name for name, page in pages.items() if "<!--" in page.words]


def test_every_room_has_its_picture(site: Path, pages: dict[str, Page]) -> None:
    shown = [source for source in pages["how-it-works.html"].fetched if source.startswith("rooms/")]
    assert len(shown) == 8
    assert all((site / source).stat().st_size > 5000 for source in shown)


def test_lessons_stand_with_what_they_show(pages: dict[str, Page]) -> None:
    for path in notebooks.notebooks():
        page = pages[f"notebooks/{path.stem}.html"]
        figures = [source for source in page.fetched if source.startswith(path.stem)]
        assert len(figures) >= 2, path.stem
    assert "Not a diagnosis" in pages["notebooks/01_one_mammogram.html"].words


def test_links_lead_somewhere_and_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        if name == "404.html":
            continue
        for source in page.fetched:
            if not source.startswith("data:"):
                assert "//" not in source, f"{name} fetches {source}"
                assert ((site / name).parent / source).exists(), f"{name} lacks {source}"
        for link in page.links:
            target, _, place = link.partition("#")
            if "://" in link or not target:
                continue
            path = ((site / name).parent / target).resolve()
            assert path.exists(), f"{name} leads to {link}"
            if place and path.suffix == ".html":
                assert place in pages[path.relative_to(site.resolve()).as_posix()].ids, f"{name} leads to {link}"


def test_no_page_is_left_out_of_the_menu(tmp_path: Path) -> None:
    (tmp_path / "index.md").touch()
    (tmp_path / "new.md").touch()
    config = MkDocsConfig()
    config["docs_dir"], config["nav"], config["extra"] = str(tmp_path), [{"Home": "index.md"}], {}
    assert docs.on_config(config).nav == [{"Home": "index.md"}, {"More": ["new.md"]}]


def test_a_part_is_put_in_and_an_unknown_one_refused() -> None:
    config = MkDocsConfig()
    config["extra"] = {"parts": {"version": "1.2"}}
    assert docs.on_page_markdown("v<!-- generated: version -->.", config) == "v1.2."
    with pytest.raises(PluginError, match="'other'; there are version"):
        docs.on_page_markdown("<!-- generated: other -->", config)


def test_links_of_a_paper_lead_to_pages_or_nowhere() -> None:
    text = "[a](ACCURACY.md), [b](LICENSE), [c](https://x.example/y), [d](CONTRIBUTING.md#windows), ![e](docs/crop.jpg)"
    wanted = "[a](accuracy.md), b, [c](https://x.example/y), [d](contributing.md#windows), ![e](docs/crop.jpg)"
    assert docs.relinked(text) == wanted
