"""A run finds every file, each once, names what it will not read, and never searches results."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from detector.batch.find import Found, find_inputs, is_result_folder, read_map, read_spacings, value_of
from detector.errors import DetectorError


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def shown(found: list[Found]) -> dict[str, str]:
    return {f.shown: f.skipped or f.error for f in found}


def test_files_come_in_the_order_of_their_paths_with_size_and_time(tmp_path: Path) -> None:
    make(tmp_path, "in/b/2", "in/a", "in/b/1", "in/b.dcm", "in/Ä")
    found = find_inputs([tmp_path / "in"], tmp_path / "out")
    assert [f.shown for f in found] == ["a", "b.dcm", "b/1", "b/2", "Ä"]
    assert [f.size for f in found] == [1] * 5
    assert found[0].mtime_ns == (tmp_path / "in/a").stat().st_mtime_ns


def test_a_file_given_by_name_is_called_by_it_even_if_hidden(tmp_path: Path) -> None:
    make(tmp_path, "in/.hidden.dcm")
    assert shown(find_inputs([tmp_path / "in/.hidden.dcm"], tmp_path / "out")) == {".hidden.dcm": ""}


def test_a_file_reached_twice_is_found_once(tmp_path: Path) -> None:
    make(tmp_path, "in/a/1")
    found = find_inputs([tmp_path / "in", tmp_path / "in/a", tmp_path / "in/a/1"], tmp_path / "out")
    assert [f.path for f in found] == [tmp_path / "in/a/1"]


def test_hidden_things_are_named_and_left(tmp_path: Path) -> None:
    make(tmp_path, "in/.a", "in/.git/b", "in/c")
    hidden = "a hidden file or folder"
    assert shown(find_inputs([tmp_path / "in"], tmp_path / "out")) == {".a": hidden, ".git": hidden, "c": ""}


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    make(tmp_path, "in/z/1", "elsewhere/2")
    (tmp_path / "in/z/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/a").symlink_to(tmp_path / "in/z")
    (tmp_path / "in/other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/self").symlink_to(tmp_path / "in/self")
    (tmp_path / "in/gone").symlink_to(tmp_path / "nothing")
    again = "a folder that is searched already"
    assert shown(find_inputs([tmp_path / "in"], tmp_path / "out")) == {
        "a": again,
        "gone": "it cannot be opened: it is a symbolic link to something that is not there",
        "other/2": "",
        "self": f"it cannot be opened: {os.strerror(errno.ELOOP).lower()}",
        "z/1": "",
        "z/up": again,
    }


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in/pipe")
    assert "pipe" in shown(find_inputs([tmp_path / "in"], tmp_path / "out"))["pipe"]


def test_results_are_never_searched(tmp_path: Path) -> None:
    make(tmp_path, "in/1", "in/old/overlays/2.png", "in/out/readings/3.json", "in/theirs/4")
    (tmp_path / "in/old/manifest.json").write_text('{"program": "microcalcification-detector"}')
    (tmp_path / "in/theirs/manifest.json").write_text('{"program": "another"}')
    assert is_result_folder(tmp_path / "in/old")
    found = shown(find_inputs([tmp_path / "in"], tmp_path / "in/out"))
    assert found == {
        "1": "",
        "old": "results of an earlier run, not searched",
        "theirs/4": "",
        "theirs/manifest.json": "",
    }


@pytest.mark.parametrize("text", ["", "[]", '{"program": 3}', "[" * 100_000, "\xff"])
def test_other_manifests_are_no_harm(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, "latin-1")
    assert not is_result_folder(tmp_path)


def test_results_as_inputs_and_missing_paths_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "out/overlays/1.png", "out/images/1")
    for path in ("out", "out/overlays", "out/overlays/1.png", "missing"):
        with pytest.raises(DetectorError, match=path):
            find_inputs([tmp_path / path], tmp_path / "out")
    assert find_inputs([tmp_path / "out/images"], tmp_path / "out")


def test_odd_names_are_shown_harmless(tmp_path: Path) -> None:
    make(tmp_path, *(f"in/{os.fsdecode(name)}" for name in (b"a\nb", b"\xff", "\u202egpj".encode(), b"\x1b[2J")))
    assert list(shown(find_inputs([tmp_path / "in"], tmp_path / "out"))) == [
        "\\u202egpj",
        "\\x1b[2J",
        "\\xff",
        "a\\x0ab",
    ]


def test_maps_are_read_and_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "in/a", "in/b", "in/c", "in/d")
    (tmp_path / "map.csv").write_text(f"\ufeffcase_id,path,more\n1,a,\n2,{tmp_path}/in/b,\n3,./in//c,\n", "utf-8")
    values = read_map(tmp_path / "map.csv", "case_id")
    found = find_inputs([tmp_path / "in"], tmp_path / "out")
    assert [value_of(values, f) for f in found] == ["1", "2", "3", None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,other\na,1\n", "no column spacing_mm"),
        ("path,spacing_mm\na,\n", "line 2"),
        ("path,spacing_mm\na,1\na,2\n", "line 3"),
        ("path,spacing_mm\na,wide\n", "not a number over 0"),
        ("path,spacing_mm\na,0\n", "not a number over 0"),
        ("path,spacing_mm\na,nan\n", "not a number over 0"),
        ("\xff\xfe", "UTF-8"),
    ],
)
def test_wrong_maps_are_refused_by_name_and_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "map.csv").write_text(text, "latin-1")
    with pytest.raises(DetectorError, match=words) as caught:
        read_spacings(tmp_path / "map.csv")
    assert "map.csv" in str(caught.value)
