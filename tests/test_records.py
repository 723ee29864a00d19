"""What passes between the rooms: tables, outlines, and the Reading's JSON."""

import dataclasses
import enum
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from detector import records
from detector.records import (
    WORDS,
    Box,
    BreastRegion,
    Clusters,
    Column,
    Flag,
    Identity,
    Mammogram,
    Morphology,
    Outlines,
    Reading,
    Seeds,
    Spots,
    Table,
    words_of_flags,
)
from detector.settings import Settings

TABLES = (Seeds, Spots, Clusters)
UNITS = {"px": "_px", "mm": "_mm", "mm2": "_mm2", "deg": "_deg", "1/cm2": "_per_cm2", "sigma": "_sigma"}

# Text of any Unicode, a lone surrogate included: Python gives one for a byte of a path that is no UTF-8. No NUL at the
# end, which a numpy text column cannot hold.
texts = st.text(st.characters(), max_size=8).map(lambda text: text.rstrip("\0"))


def columns_of(column: Column, n_rows: int) -> st.SearchStrategy[NDArray[Any]]:
    if column.codes is not None:
        largest = sum(column.codes) if issubclass(column.codes, Flag) else max(column.codes)
        return hnp.arrays(column.dtype, n_rows, elements=st.integers(0, int(largest)))
    if column.dtype == "U":
        return st.lists(texts, min_size=n_rows, max_size=n_rows).map(lambda rows: np.array(rows, dtype="U"))
    if column.dtype == "f8":
        return hnp.arrays("f8", n_rows, elements=st.floats(allow_infinity=False, allow_nan=True))
    return hnp.arrays(column.dtype, n_rows)


@st.composite
def tables(draw: st.DrawFn, kind: type[Table] | None = None, n_rows: int | None = None) -> Table:
    kind = kind or draw(st.sampled_from(TABLES))
    n_rows = draw(st.integers(0, 6)) if n_rows is None else n_rows
    return kind(**{column.name: draw(columns_of(column, n_rows)) for column in kind.columns()})


@st.composite
def outlines(draw: st.DrawFn, count: int | None = None) -> Outlines:
    count = draw(st.integers(0, 5)) if count is None else count
    hundredths = st.integers(-100, 900_000)  # what JSON keeps
    rings = [draw(hnp.arrays("f8", (draw(st.integers(0, 6)), 2), elements=hundredths)) / 100 for _ in range(count)]
    return Outlines.of(rings)


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    n_spots, n_clusters = draw(st.integers(0, 4)), draw(st.integers(0, 2))
    spots, clusters = draw(tables(Spots, n_spots)), draw(tables(Clusters, n_clusters))
    ring = draw(outlines(1))
    point = st.floats(-10, 9000)
    return Reading(
        identity=Identity(draw(texts), path=draw(texts), view_modifiers=("spot",), spacing_mm=(0.07, 0.07)),
        spots=spots,  # type: ignore[arg-type]
        clusters=clusters,  # type: ignore[arg-type]
        spot_outlines=draw(outlines(n_spots)),
        cluster_outlines=draw(outlines(n_clusters)),
        breast_outline=ring[0],
        pectoral_outline=np.empty((0, 2), np.float32),
        nipple=draw(st.none() | st.tuples(point, point, st.floats(0, 1))),
        chest_wall=draw(st.sampled_from(["left", "right", ""])),
        breast_area_cm2=draw(st.floats(0, 1000)),
        grey_range=(draw(point), draw(point)),
        quality="good",
        settings=Settings().to_mapping(),
        versions={"numpy": np.__version__},
        seconds={"breast": 0.1},
    )


# --------------------------------------------------------------------------------------------------------------
# tables


@given(tables())
def test_lists_and_back(table: Table) -> None:
    again = type(table).from_lists(table.to_lists())
    assert again == table
    assert [getattr(again, c.name).dtype.kind for c in table.columns()] == [
        np.dtype(c.dtype).kind for c in table.columns()
    ]


@given(tables())
def test_pickle_and_back(table: Table) -> None:
    again = pickle.loads(pickle.dumps(table))
    assert again == table


@given(tables(), st.data())
def test_slicing_keeps_rows_together(table: Table, data: st.DataObject) -> None:
    n = len(table)
    row = st.integers(0, max(n - 1, 0))
    rows = data.draw(hnp.arrays(np.intp, data.draw(st.integers(0, 5 if n else 0)), elements=row))
    mask = data.draw(hnp.arrays(bool, n))
    part = data.draw(st.slices(n))
    for chosen, numbers in ((rows, rows), (mask, np.flatnonzero(mask)), (part, np.arange(n)[part])):
        lists = table.to_lists()
        expected = {name: [column[i] for i in numbers] for name, column in lists.items()}
        assert table[chosen].to_lists() == expected


def test_a_single_row_stays_a_table() -> None:
    spots = Spots.blank(3, spot_id=[1, 2, 3])
    assert spots[1].spot_id.tolist() == [2]
    assert len(spots[[]]) == 0
    with pytest.raises(IndexError):
        spots[3]


@pytest.mark.parametrize("kind", TABLES)
def test_empty_has_the_same_schema(kind: type[Table]) -> None:
    empty = kind.empty()
    assert len(empty) == 0
    assert empty == kind.blank(0) == kind.from_lists(empty.to_lists()) == kind.blank(4)[:0]
    assert list(empty.to_frame()) == [column.name for column in kind.columns()]


def test_a_mask_of_another_length_is_refused() -> None:
    for mask in (np.ones(2, np.bool_), np.ones(4, np.bool_)):
        with pytest.raises(IndexError):
            Spots.blank(3)[mask]


@given(tables())
def test_columns_cannot_be_written(table: Table) -> None:
    for column, part in itertools.product(table.columns(), (table, table[:2], table[np.arange(len(table))])):
        with pytest.raises(ValueError, match="read-only"):
            getattr(part, column.name)[...] = 0
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(table, column.name, np.empty(0))


def test_blank_is_nan_zero_and_empty_text() -> None:
    clusters = Clusters.blank(2, n_spots=[5, 6])
    assert clusters.n_spots.tolist() == [5, 6]
    assert np.isnan(clusters.suspicion).all()
    assert clusters.reasons.tolist() == ["", ""]
    assert not clusters.review.any()


def test_replace_leaves_the_old_table_as_it_was() -> None:
    spots = Spots.blank(2)
    changed = spots.replace(confidence=[0.1, 0.2])
    assert changed.confidence.tolist() == [0.1, 0.2]
    assert np.isnan(spots.confidence).all()
    assert changed != spots
    assert not changed.confidence.flags.writeable
    with pytest.raises(ValueError, match="has 3 rows, not 2"):
        spots.replace(confidence=[0.1, 0.2, 0.3])
    with pytest.raises(TypeError, match="no column no_such_column"):
        spots.replace(no_such_column=[1, 2])


def test_columns_of_unequal_length_or_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        Spots.blank(2, row_px=[1.0])
    with pytest.raises(ValueError, match="one-dimensional"):
        Spots.blank(2, row_px=np.zeros((2, 1)))
    with pytest.raises(TypeError):
        Spots.blank(2, no_such_column=[1, 2])


def test_tables_of_other_kinds_are_unequal() -> None:
    assert Spots.empty() != Clusters.empty()
    assert Spots.blank(1) != Spots.blank(2)


@pytest.mark.parametrize("column", [c for t in TABLES for c in t.columns()], ids=lambda c: c.name)
def test_every_column_says_what_it_is(column: Column) -> None:
    assert column.meaning
    assert column.room in ("detect", "measure", "classify", "cluster", "assess")
    if column.unit and column.name != "snr":
        assert column.name.endswith(UNITS[column.unit])


@given(tables())
def test_every_code_has_its_word(table: Table) -> None:
    for column in table.columns():
        words = table.words(column.name)
        assert len(words) == len(table)
        if column.codes and issubclass(column.codes, enum.IntEnum):
            book = {word: code for code, word in WORDS[column.codes].items()}
            assert [book[word] for word in words] == getattr(table, column.name).tolist()


def test_frame_shows_words() -> None:
    frame = Spots.blank(1, morphology=[Morphology.LARGE_ROD_LIKE], flags=[Flag.NEAR_SKIN | Flag.SATURATED]).to_frame()
    assert frame.morphology.tolist() == ["large rod-like"]
    assert frame["flags"].tolist() == ["near skin|saturated"]
    assert frame["kind"].tolist() == ["unknown"]


def test_words_of_a_book_differ() -> None:
    for book in WORDS.values():
        assert len(set(book.values())) == len(book)


@given(st.sets(st.sampled_from(list(Flag))))
def test_flags_are_named_once_lowest_bit_first(flags: set[Flag]) -> None:
    words = words_of_flags(sum(flags))
    assert words == "|".join(f.name.lower().replace("_", " ") for f in sorted(flags) if f.name)


# --------------------------------------------------------------------------------------------------------------
# outlines


@given(outlines())
def test_outlines_to_lists_and_back(rings: Outlines) -> None:
    again = Outlines.from_lists(rings.to_lists())
    assert np.array_equal(again.vertices_px, rings.vertices_px)
    assert np.array_equal(again.offsets, rings.offsets)
    assert len(again) == len(list(rings))


@given(outlines(4), hnp.arrays(bool, 4))
def test_outlines_are_chosen_as_rows_are(rings: Outlines, mask: NDArray[np.bool_]) -> None:
    chosen = rings[mask]
    assert [ring.tolist() for ring in chosen] == [rings[int(i)].tolist() for i in np.flatnonzero(mask)]


def test_outlines_are_read_only_and_bounded() -> None:
    rings = Outlines.of([np.zeros((3, 2)), np.ones((4, 2))])
    assert rings[1].shape == (4, 2)
    with pytest.raises(ValueError, match="read-only"):
        rings[0][:] = 1
    for index in (-1, 2):
        with pytest.raises(IndexError):
            rings[index]
    assert len(Outlines.empty()) == len(Outlines.of([])) == 0


@pytest.mark.parametrize("offsets", [[], [1, 3], [0, 2]])
def test_outlines_whose_offsets_do_not_fit_are_refused(offsets: list[int]) -> None:
    with pytest.raises(ValueError, match="offsets"):
        Outlines(np.zeros((3, 2), np.float32), np.array(offsets, np.int64))


# --------------------------------------------------------------------------------------------------------------
# reading


@given(readings())
def test_reading_to_json_and_back(reading: Reading) -> None:
    text = reading.to_json()
    again = Reading.from_json(text)
    assert again.to_json() == text
    assert again.identity == reading.identity
    assert again.spots == reading.spots
    assert again.clusters == reading.clusters
    assert again.nipple == reading.nipple
    assert again.settings == reading.settings
    assert again.n_review == np.count_nonzero(reading.clusters.review)
    assert [ring.tolist() for ring in again.spot_outlines] == [ring.tolist() for ring in reading.spot_outlines]
    text.encode("ascii")


@pytest.mark.parametrize("text", ["[]", "{}", '{"schema_version": 0}', "no JSON"])
def test_what_is_no_reading_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a Reading|Expecting value"):
        Reading.from_json(text)


# --------------------------------------------------------------------------------------------------------------
# images


def test_mammogram_is_a_read_only_float32_image() -> None:
    pixels = np.zeros((4, 6), np.float32)
    mammogram = Mammogram(pixels, Identity("x", spacing_mm=(0.04, 0.09)), padding=np.zeros((4, 6), bool))
    assert mammogram.pixel_mm == pytest.approx(0.06)
    with pytest.raises(ValueError, match="read-only"):
        mammogram.pixels[0, 0] = 1
    with pytest.raises(ValueError, match="float32"):
        Mammogram(pixels.astype(float), Identity("x"))
    with pytest.raises(ValueError, match="float32"):
        Mammogram(pixels[0], Identity("x"))
    with pytest.raises(ValueError, match="padding"):
        Mammogram(pixels, Identity("x"), padding=np.zeros((4, 5), bool))


def test_breast_region_is_read_only_and_may_be_empty() -> None:
    zones, line = np.zeros((2, 2), np.uint8), np.empty((0, 2), np.float32)
    none = BreastRegion(zones, np.zeros((2, 2), np.float32), 8, Box(0, 0, 0, 0), line, line, None, "", 0.0, (0.0, 0.0))
    assert none.is_empty
    with pytest.raises(ValueError, match="read-only"):
        none.zones[0, 0] = 1


def test_box_cuts_its_shape() -> None:
    box = Box(1, 4, 2, 7)
    assert np.zeros((10, 10))[box.slices].shape == box.shape == (3, 5)


def test_records_are_frozen() -> None:
    classes: list[Any] = [c for c in vars(records).values() if dataclasses.is_dataclass(c) and isinstance(c, type)]
    assert len(classes) > 8
    assert all(c.__dataclass_params__.frozen for c in classes)
