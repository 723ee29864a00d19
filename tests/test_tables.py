"""Tables say what the Readings hold, in cells that no spreadsheet and no terminal is fooled by."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from detector.export.files import file_stem, printable, reading_name, whole_file
from detector.export.tables import (
    CLUSTER_COLUMNS,
    ERROR_COLUMNS,
    IMAGE_COLUMNS,
    SKIPPED_COLUMNS,
    SPOT_COLUMNS,
    cell,
    cluster_rows,
    image_row,
    open_csv,
    open_parquet,
    spot_rows,
)
from detector.records import (
    Clusters,
    Flag,
    Identity,
    Kind,
    Morphology,
    Outlines,
    Reading,
    Shape,
    Spots,
    Suggestion,
)
from detector.settings import Settings

FROM_THE_INTERFACE = {
    "images": """image_id path sha256 study_uid case_id study_date frame side view view_modifiers presentation_intent
        exposure_id rows cols spacing_mm spacing_source magnification_factor manufacturer model breast_area_cm2 n_micro
        n_macro n_clusters n_review max_suspicion quality excluded_reason warnings""",
    "spots": """image_id spot_id row_px col_px diameter_mm length_mm width_mm area_mm2 contrast snr eccentricity
        solidity shape kind morphology confidence flags cluster_id""",
    "clusters": """image_id cluster_id row_px col_px n_spots n_irregular extent_mm area_mm2 density_per_cm2 nearest_mm
        size_cv shape_irregularity distribution morphology confidence suspicion review reasons suggestion""",
    "errors": "path error message",
    "skipped": "path reason",
}
COLUMNS = {
    "images": IMAGE_COLUMNS,
    "spots": SPOT_COLUMNS,
    "clusters": CLUSTER_COLUMNS,
    "errors": ERROR_COLUMNS,
    "skipped": SKIPPED_COLUMNS,
}


def make_reading() -> Reading:
    """Return a Reading of five spots, of which one is under the operating point, and two clusters."""
    spots = Spots.blank(
        5,
        spot_id=[3, 1, 2, 4, 5],
        row_px=[10.0, 1234.56789, 0.0, 7.0, 8.0],
        diameter_mm=[0.3, math.nan, 0.5, 2.0, 0.2],
        kind=[Kind.MICRO, Kind.MICRO, Kind.UNKNOWN, Kind.MACRO, Kind.MICRO],
        shape=[Shape.DASH, Shape.DOT, Shape.UNRESOLVED, Shape.RIM, Shape.DOT],
        morphology=[0, 0, 0, Morphology.LARGE_ROD_LIKE, 0],
        confidence=[0.9, 0.51, 0.7, 0.5, 0.1],
        flags=[Flag.NEAR_SKIN | Flag.POSSIBLE_DUST, 0, 0, 0, 0],
        cluster_id=[2, 0, 1, 0, 0],
    )
    clusters = Clusters.blank(
        2,
        cluster_id=[1, 2],
        suspicion=[0.2, 0.75],
        review=[False, True],
        reasons=["few", "14 spots in 0.6 cm2|9 of them irregular"],
        suggestion=[Suggestion.NONE, Suggestion.CLOSER_VIEWS],
    )
    identity = Identity(
        image_id="1.2.3",
        path="-a;=b.dcm",
        study_uid="1.2",
        side="L",
        view_modifiers=("magnification", "spot compression"),
        rows=100,
        cols=80,
        spacing_mm=(0.07, 0.07),
        warnings=("polarity",),
    )
    none = np.empty((0, 2), np.float32)
    lines = [none] * 5, [none] * 2
    return Reading(
        identity,
        spots,
        clusters,
        Outlines.of(lines[0]),
        Outlines.of(lines[1]),
        none,
        none,
        None,
        "left",
        123.456789,
        (0.0, 1.0),
        "good",
        Settings().to_mapping(),
        {},
    )


def by_name(columns: tuple[object, ...], row: object) -> dict[str, str]:
    return dict(zip([c.name for c in columns], row, strict=True))  # type: ignore[attr-defined,call-overload]


@pytest.mark.parametrize("table", FROM_THE_INTERFACE)
def test_columns_are_those_promised(table: str) -> None:
    assert [c.name for c in COLUMNS[table]] == FROM_THE_INTERFACE[table].split()
    assert all(c.meaning for c in COLUMNS[table])


def test_image_row_counts_at_the_operating_point() -> None:
    row = by_name(IMAGE_COLUMNS, image_row(make_reading(), 0.5, "case 7", "same exposure"))
    expected = {
        "path": "'-a;'=b.dcm",
        "case_id": "case 7",
        "view_modifiers": "magnification|spot compression",
        "spacing_mm": "0.07",
        "magnification_factor": "",
        "breast_area_cm2": "123.457",
        "n_micro": "2",
        "n_macro": "1",
        "n_clusters": "2",
        "n_review": "1",
        "max_suspicion": "0.75",
        "excluded_reason": "same exposure",
    }
    assert {name: row[name] for name in expected} == expected
    assert by_name(IMAGE_COLUMNS, image_row(make_reading(), 0.0))["n_micro"] == "3"
    assert by_name(IMAGE_COLUMNS, image_row(make_reading(), 0.0))["case_id"] == "1.2"


def test_unknown_sizes_leave_the_spacing_empty() -> None:
    reading = make_reading()
    reading = dataclasses.replace(reading, identity=dataclasses.replace(reading.identity, sizes_known=False))
    assert by_name(IMAGE_COLUMNS, image_row(reading, 0.5))["spacing_mm"] == ""


def test_spot_rows_are_ordered_worded_and_cut_at_the_confidence() -> None:
    rows = [by_name(SPOT_COLUMNS, row) for row in spot_rows(make_reading(), 0.5)]
    assert [row["spot_id"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["row_px"] for row in rows] == ["1234.57", "0", "10", "7"]
    assert [row["diameter_mm"] for row in rows] == ["", "0.5", "0.3", "2"]
    assert [row["kind"] for row in rows] == ["micro", "unknown", "micro", "macro"]
    assert [row["shape"] for row in rows] == ["dot", "unresolved", "dash", "rim"]
    assert [row["morphology"] for row in rows] == ["", "", "", "large rod-like"]
    assert [row["flags"] for row in rows] == ["", "", "near skin|possible dust", ""]
    assert [row["cluster_id"] for row in rows] == ["", "1", "2", ""]
    assert len(list(spot_rows(make_reading(), 0.0))) == 5


def test_cluster_rows_are_worded() -> None:
    rows = [by_name(CLUSTER_COLUMNS, row) for row in cluster_rows(make_reading())]
    assert [row["review"] for row in rows] == ["false", "true"]
    assert rows[1]["reasons"] == "14 spots in 0.6 cm2|9 of them irregular"
    assert [row["suggestion"] for row in rows] == ["", "closer views"]


def test_csv_is_read_back_by_others(tmp_path: Path) -> None:
    hard = ["a,b", 'say "no"', "Müller Ä.dcm", "x|y"]
    with open_csv(tmp_path / "t.csv", ERROR_COLUMNS) as write:
        write([[cell(text)] * 3 for text in hard])
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as handle:
        assert list(csv.reader(handle)) == [["path", "error", "message"], *([text] * 3 for text in hard)]
    assert (tmp_path / "t.csv").read_bytes().startswith(b"path,error,message\r\n")


def test_parquet_has_the_values_of_the_csv(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    reading = make_reading()
    for table, rows in (
        ("images", [image_row(reading, 0.5)]),
        ("spots", list(spot_rows(reading, 0.0))),
        ("clusters", list(cluster_rows(reading))),
    ):
        with open_parquet(tmp_path / "t.parquet", COLUMNS[table]) as write:
            write(rows)
        read = parquet.read_table(tmp_path / "t.parquet")
        assert read.column_names == [c.name for c in COLUMNS[table]]
        assert [[cell(v) for v in row.values()] for row in read.to_pylist()] == [list(row) for row in rows]
    assert str(read.schema.field("review").type) == "bool"
    assert str(read.schema.field("n_spots").type) == "int64"


def test_empty_tables_keep_their_columns(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    with open_csv(tmp_path / "t.csv", SKIPPED_COLUMNS), open_parquet(tmp_path / "t.parquet", SKIPPED_COLUMNS):
        pass
    assert (tmp_path / "t.csv").read_text("utf-8") == "path,reason\n"
    assert parquet.read_table(tmp_path / "t.parquet").column_names == ["path", "reason"]


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(-0.0)
def test_floats_keep_six_digits(value: float) -> None:
    text = cell(value)
    assert math.isclose(float(text), value, rel_tol=6e-6, abs_tol=0.0)
    assert text != "-0"


@given(st.text(st.characters(codec=None)))
def test_no_text_is_run_by_a_spreadsheet_or_obeyed_by_a_terminal(text: str) -> None:
    made = cell(text)
    assert made.isprintable()
    made.encode("utf-8")
    for part in made.split(";"):  # some spreadsheets split at semicolons
        assert not part.lstrip().startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠"))


@given(st.text(st.characters(codec="utf-8", categories=["L", "N"])))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert cell(text) == text


def test_bytes_of_a_file_name_that_are_no_text_are_shown() -> None:
    assert printable(b"a\xff\x1b.dcm".decode("utf-8", "surrogateescape")) == "a\\xff\\x1b.dcm"
    assert printable("a\u202egpj.dcm") == "a\\u202egpj.dcm"


@given(st.text())
def test_file_names_are_safe_whatever_the_image_id(image_id: str) -> None:
    stem = file_stem(image_id)
    assert set(stem) <= set("0123456789abcdefx.")
    assert not stem.startswith(".")
    assert 0 < len(stem) <= 64
    assert len(Path(reading_name(image_id)).parts) == 3


@given(st.from_regex(r"[0-9]+(\.[0-9]+){0,9}", fullmatch=True).filter(lambda uid: len(uid) <= 64))
def test_uids_are_kept_as_file_names(uid: str) -> None:
    assert file_stem(uid) == uid


def test_different_ids_get_different_files() -> None:
    assert (
        len({file_stem(i) for i in ("../../evil", "..\\..\\evil", "", ".", "..", "a/b", "A", "a", "a.", "1..2")}) == 10
    )


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with whole_file(path) as handle:
        handle.write(b"old")
    with pytest.raises(RuntimeError), whole_file(path) as handle:
        handle.write(b"new")
        raise RuntimeError
    with pytest.raises(ZeroDivisionError), open_csv(path, SKIPPED_COLUMNS) as write:
        write([str(1 / 0)] for _ in range(2))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]


def test_readings_keep_their_tables_through_json() -> None:
    reading = make_reading()
    again = Reading.from_json(reading.to_json())
    assert json.loads(again.to_json()) == json.loads(reading.to_json())
    assert list(spot_rows(again, 0.0)) == list(spot_rows(reading, 0.0))
