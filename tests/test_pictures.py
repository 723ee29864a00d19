"""Pictures: grey levels as pydicom gives them, marks beside what they mark, scale bars that keep their word."""

import dataclasses
import io
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_voi, apply_windowing
from skimage.draw import polygon

from detector.export.pictures import NOTICE, apply_window, draw_crops, draw_overlay, encode_png, suspicion_words
from detector.export.pictures.legend import Pen, draw_legend, scale_bar
from detector.export.pictures.lettering import Font, plain
from detector.export.pictures.marks import CIRCLE, MACRO, MICRO, REVIEW, UNKNOWN, WHITE, frame_spots
from detector.export.pictures.scene import marked_spots, unmarked_spots
from detector.export.pictures.window import choose_window, shade
from detector.export.tables import IMAGE_COLUMNS, image_row
from detector.records import Clusters, Identity, Kind, Mammogram, Outlines, Reading, Spots, Window
from detector.settings import AssessSettings, Settings

Grey = NDArray[np.uint8]
SIDE = st.integers(1, 40)
WINDOW = Window(center=2000, width=4000, function="LINEAR_EXACT")


def mammogram_of(pixels: NDArray[np.number], window: Window | None = WINDOW, **identity: object) -> Mammogram:
    facts: dict[str, object] = {"image_id": "1.2.3", "side": "L", "view": "CC", "spacing_mm": (0.1, 0.1)}
    facts |= {"rows": pixels.shape[0], "cols": pixels.shape[1]} | identity
    return Mammogram(pixels.astype(np.float32), Identity(**facts), window)  # type: ignore[arg-type]


def breast(rows: int = 900, cols: int = 700, seed: int = 0) -> NDArray[np.float32]:
    """Return a half disc of noisy tissue, the chest wall at the left, air elsewhere; never white in WINDOW."""
    y, x = np.mgrid[:rows, :cols]
    inside = (x / (0.6 * cols)) ** 2 + ((y - rows / 2) / (0.45 * rows)) ** 2 < 1
    noise = np.random.default_rng(seed).normal(0, 150, (rows, cols))
    return np.where(inside, np.clip(1800 + noise, 100, 3500), 60).astype(np.float32)


def star(row: float, col: float, radius: float, seed: int = 0) -> NDArray[np.float32]:
    """Return an irregular outline around a place."""
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    reach = radius * np.random.default_rng(seed).uniform(0.6, 1.0, 14)
    return np.stack([row + reach * np.sin(angle), col + reach * np.cos(angle)], 1).astype(np.float32)


def reading_of(
    mammogram: Mammogram,
    spots: Sequence[tuple[float, float, float, Kind, float, int]] = (),
    clusters: Sequence[tuple[float, bool]] = (),
) -> Reading:
    """Return a Reading of spots (row, col, radius, kind, confidence, cluster) and clusters (suspicion, review)."""
    n = len(spots)
    row, col, _, kind, confidence, owner = (np.array([s[i] for s in spots], float) for i in range(6))
    table = Spots.blank(
        n, spot_id=np.arange(n) + 1, row_px=row, col_px=col, kind=kind, confidence=confidence, cluster_id=owner
    )
    ids = np.arange(1, len(clusters) + 1)
    members = [np.stack([row, col], 1)[owner == i] for i in ids]
    middles = np.array([m.mean(0) for m in members]).reshape(-1, 2)
    groups = Clusters.blank(
        len(ids),
        cluster_id=ids,
        row_px=middles[:, 0],
        col_px=middles[:, 1],
        n_spots=[len(m) for m in members],
        extent_mm=[float(np.ptp(m, axis=0).max()) / 10 for m in members],
        suspicion=[c[0] for c in clusters],
        review=[c[1] for c in clusters],
        reasons=np.array(["5 spots in 0.6 cm2, 3 of them irregular|tight"] * len(ids), dtype="U60"),
    )
    return Reading(
        identity=mammogram.identity,
        spots=table,
        clusters=groups,
        spot_outlines=Outlines.of([star(s[0], s[1], s[2], i) for i, s in enumerate(spots)]),
        cluster_outlines=Outlines.of([cv2.convexHull(m.astype(np.float32)).reshape(-1, 2) for m in members]),
        breast_outline=np.empty((0, 2), np.float32),
        pectoral_outline=np.empty((0, 2), np.float32),
        nipple=None,
        chest_wall="left",
        breast_area_cm2=1.0,
        grey_range=(1000.0, 3000.0),
        quality="good",
        settings=Settings().to_mapping(),
        versions={},
    )


def grouped(n: int, row: float, col: float, spread: float, cluster: int, radius: float = 3.0) -> list[tuple]:  # type: ignore[type-arg]
    places = np.random.default_rng(cluster).uniform(-spread, spread, (n, 2)) + (row, col)
    return [(r, c, radius, Kind.MICRO, 0.9, cluster) for r, c in places.tolist()]


def inside_of(outline: NDArray[np.floating], shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    rows, cols = polygon(outline[:, 0], outline[:, 1], shape[:2])  # type: ignore[no-untyped-call]
    return rows, cols


def is_ink(picture: Grey, colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((np.abs(picture.astype(int) - colour) <= 2).all(2))


def is_hue(picture: Grey, colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Tell where a picture has the hue of a colour, also where a thin line is mixed with grey."""
    chroma = picture - picture.mean(2, keepdims=True)
    wanted = np.array(colour) - np.mean(colour)
    strength = np.linalg.norm(chroma, axis=2)
    return np.asarray((strength > 30) & (chroma @ wanted > 0.97 * strength * np.linalg.norm(wanted)))


def changed(picture: Grey, grey: Grey) -> NDArray[np.bool_]:
    return np.asarray((picture != grey[..., None]).any(2))


# --------------------------------------------------------------------------------------------------------------
# grey levels


def stored(values: NDArray[np.unsignedinteger]) -> Dataset:
    dataset = Dataset()
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsStored, dataset.PixelRepresentation = 12, 0
    return dataset


@given(
    st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    st.floats(-500, 5000),
    st.floats(1.5, 6000),
    npst.arrays(np.uint16, (7, 5), elements=st.integers(0, 4095)),
)
def test_windows_are_those_of_pydicom(function: str, center: float, width: float, values: NDArray[np.uint16]) -> None:
    center, width = float(f"{center:.6g}"), float(f"{width:.6g}")  # as many digits as a decimal string holds
    dataset = stored(values)
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = center, width, function
    with np.errstate(over="ignore"):  # of pydicom's exponential, far below the centre
        expected = apply_windowing(values, dataset) / 4095 * 255
    grey = apply_window(mammogram_of(values, Window(center, width, function)))
    assert np.abs(grey - expected).max() <= 0.51


@given(
    st.integers(0, 500),
    st.lists(st.integers(0, 4095), min_size=2, max_size=300),
    npst.arrays(np.uint16, (7, 5), elements=st.integers(0, 4095)),
)
def test_tables_are_those_of_pydicom(first: int, entries: list[int], values: NDArray[np.uint16]) -> None:
    entries = [*entries, 0, 4095]  # the whole range, which a window stretches over 0 to 255
    dataset, table = stored(values), Dataset()
    table.LUTDescriptor, table.LUTData = [len(entries), first, 12], entries
    dataset.VOILUTSequence = [table]
    expected = apply_voi(values, dataset) / 4095 * 255
    levels = tuple(float(first + i) for i in range(len(entries)))
    grey = apply_window(mammogram_of(values, Window(table_levels=levels, table_values=tuple(map(float, entries)))))
    assert np.abs(grey - expected).max() <= 0.51


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("width", [0.0, 1.0])
def test_a_window_without_width_is_a_step(function: str, width: float) -> None:
    grey = apply_window(mammogram_of(np.array([[0.0, 99.0, 101.0, 4000.0]]), Window(100, width, function)))
    assert grey[0, 0] == 0
    assert grey[0, -1] == 255


def test_inversion_comes_after_the_window_and_padding_is_shown_as_air() -> None:
    pixels = np.linspace(0, 4000, 35).reshape(7, 5)
    padding = np.zeros((7, 5), bool)
    padding[0] = True
    plain_, inverted = (
        shade(pixels.astype(np.float32), dataclasses.replace(WINDOW, inverted=i), padding) for i in (False, True)
    )
    assert (plain_[0] == 0).all()
    assert (plain_[1:] > 0).all()
    assert np.array_equal(inverted, 255 - plain_)


@pytest.mark.parametrize(
    "window", [WINDOW, Window(2000, 500, "SIGMOID"), Window(table_levels=(0, 9), table_values=(0, 1))]
)
def test_blocks_of_rows_do_not_show(window: Window) -> None:
    pixels = np.random.default_rng(0).uniform(0, 4000, (1201, 997)).astype(np.float32)
    whole = shade(pixels, window)
    assert np.array_equal(whole[500:800], shade(pixels[500:800], window))
    assert np.array_equal(whole[:, 100:200], shade(np.ascontiguousarray(pixels[:, 100:200]), window))


def test_without_a_window_air_is_dark_and_tissue_is_neither_black_nor_white() -> None:
    pixels = breast()
    pixels[100:120, 650:670] = 60_000  # a label
    for grey_range in (None, (1500.0, 2100.0)):
        grey = apply_window(mammogram_of(pixels, None), grey_range)
        assert grey[0, 690] <= 20
        tissue = grey[400:500, 10:300]
        assert 40 < tissue.mean() < 215
        assert ((tissue > 0) & (tissue < 255)).mean() > 0.97


@given(npst.arrays(np.float32, st.tuples(SIDE, SIDE), elements=st.floats(-1e6, 1e6, width=32)))
def test_any_pixels_have_a_window(pixels: NDArray[np.float32]) -> None:
    assert apply_window(mammogram_of(pixels, None)).shape == pixels.shape
    assert choose_window(mammogram_of(pixels, None)).width > 0


# --------------------------------------------------------------------------------------------------------------
# PNG


@given(npst.arrays(np.uint8, st.tuples(SIDE, SIDE, st.just(3)) | st.tuples(SIDE, SIDE)))
def test_a_png_holds_every_pixel(picture: Grey) -> None:
    data = encode_png(picture)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), picture)
    decoded = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
    assert np.array_equal(decoded if picture.ndim == 2 else decoded[..., ::-1], picture)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0, 3), (3, 3, 4), (3,)])
def test_what_is_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a picture is uint8"):
        encode_png(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="float64"):
        encode_png(np.zeros((2, 2)))  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------------
# overlay


@pytest.mark.parametrize("inverted", [False, True])
def test_marks_never_cover_the_spot_itself(inverted: bool) -> None:
    """Spots everywhere, also where legend, labels and others' marks must lie, and cut by the border."""
    mammogram = mammogram_of(breast(), dataclasses.replace(WINDOW, inverted=inverted))
    rng = np.random.default_rng(1)
    kinds = [Kind.MICRO, Kind.MACRO, Kind.UNKNOWN]
    spots = [
        (r, c, size, kinds[i % 3], 0.9, 1 + i % 4)
        for i, (r, c, size) in enumerate(rng.uniform((-3, -3, 1), (903, 703, 15), (150, 3)).tolist())
    ]
    reading = reading_of(mammogram, spots, [(0.9, True), (0.1, False), (0.5, True), (0.5, False)])
    grey, picture = apply_window(mammogram), draw_overlay(mammogram, reading)
    assert changed(picture, grey).any()
    for outline in reading.spot_outlines:
        where = inside_of(outline, grey.shape)
        assert np.array_equal(picture[where], np.repeat(grey[where][:, None], 3, 1))


def test_elsewhere_the_picture_is_the_windowed_mammogram() -> None:
    mammogram = mammogram_of(breast())
    grey = apply_window(mammogram)
    spots = [*grouped(5, 450, 150, 20, 1), (200, 100, 12, Kind.MACRO, 0.9, 0), (700, 100, 3, Kind.MICRO, 0.1, 0)]
    picture = draw_overlay(mammogram, reading_of(mammogram, spots, [(0.9, True)]))
    marked = changed(picture, grey)
    assert not marked[600:, :200].any(), "a spot below the operating point is marked, or a mark lies far from its spot"
    assert marked[170:230, 70:130].any()
    assert marked[400:500, 100:200].any()
    tissue = grey > 50
    assert marked[tissue].mean() < 0.05
    bare = changed(draw_overlay(mammogram, reading_of(mammogram)), grey)
    rows, cols = np.nonzero(bare)
    assert not tissue[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1].any(), "the legend covers the breast"


def test_pixels_are_not_changed_and_the_same_reading_gives_the_same_picture() -> None:
    mammogram = mammogram_of(breast())
    before = mammogram.pixels.copy()
    reading = reading_of(mammogram, grouped(6, 450, 150, 40, 1), [(0.5, True)])
    first = draw_overlay(mammogram, reading)
    assert first.dtype == np.uint8
    assert first.shape == (900, 700, 3)
    assert np.array_equal(first, draw_overlay(mammogram, reading))
    stored_ = draw_overlay(mammogram, Reading.from_json(reading.to_json()))
    assert (first != stored_).mean() < 1e-3, "a stored Reading, of rounded vertices, gives another picture"
    assert np.array_equal(before, mammogram.pixels)


@pytest.mark.parametrize("side_px", [700, 3000])
def test_micro_and_macro_differ_in_form_and_in_colour(side_px: int) -> None:
    """A ring is one piece, brackets are four."""
    mammogram = mammogram_of(np.full((side_px, side_px), 1000.0))
    pieces = {}
    for kind, colour in ((Kind.MICRO, MICRO), (Kind.MACRO, MACRO), (Kind.UNKNOWN, UNKNOWN)):
        reading = reading_of(mammogram, [(side_px / 2, side_px / 2, side_px / 100, kind, 0.9, 0)])
        picture = draw_overlay(mammogram, reading)
        half = side_px // 20
        patch = picture[side_px // 2 - half : side_px // 2 + half, side_px // 2 - half : side_px // 2 + half]
        assert is_hue(patch, colour).sum() > 20
        mask = (patch != patch[0, 0]).any(2).astype(np.uint8)
        pieces[kind] = cv2.connectedComponents(mask)[0] - 1
    assert pieces == {Kind.MICRO: 1, Kind.MACRO: 4, Kind.UNKNOWN: 1}


def test_flagged_clusters_are_told_from_others_without_colour() -> None:
    mammogram = mammogram_of(np.full((900, 700), 1000.0))
    spots = grouped(6, 450, 350, 40, 1)
    flagged, other = (
        draw_overlay(mammogram, reading_of(mammogram, spots, [(0.5, review)])) for review in (True, False)
    )
    grey = apply_window(mammogram)
    assert is_ink(flagged, REVIEW).sum() > 500
    assert not is_ink(other, REVIEW).any()
    near = np.s_[380:520, 280:420]
    assert changed(flagged, grey)[near].sum() > 1.3 * changed(other, grey)[near].sum(), "the outline is not bolder"


def test_labels_lie_outside_of_all_outlines() -> None:
    mammogram = mammogram_of(breast(2000, 1500))
    spots = [s for i in range(6) for s in grouped(8, 400 + 220 * i, 200 + 90 * (i % 3), 50, i + 1)]
    reading = reading_of(mammogram, spots, [(0.9, True)] * 6)
    picture = draw_overlay(mammogram, reading)
    plates = cv2.erode(is_ink(picture, REVIEW).astype(np.uint8), np.ones((8, 12), np.uint8))
    assert plates.any(), "no plate was drawn"
    for outline in reading.cluster_outlines:
        assert not plates[inside_of(outline, picture.shape)].any()


@given(st.lists(st.floats(0, 1), max_size=9))
def test_suspicion_is_told_in_words_by_the_settings(scores: list[float]) -> None:
    settings = AssessSettings(review_suspicion=0.25, high_suspicion=0.75)
    words = suspicion_words(Clusters.blank(len(scores), suspicion=scores), settings)
    assert words == ["low" if s < 0.25 else "medium" if s < 0.75 else "high" for s in scores]


def legend_texts(monkeypatch: pytest.MonkeyPatch, reading: Reading, mammogram: Mammogram) -> str:
    """Return all that is written on an overlay, by listening at the pen."""
    written: list[str] = []
    write = Font.write

    def listen(self: Font, picture: Grey, place: tuple[float, float], text: str, colour: tuple[int, int, int]) -> None:
        written.append(text)
        write(self, picture, place, text, colour)

    monkeypatch.setattr(Font, "write", listen)
    draw_overlay(mammogram, reading)
    return " ".join(written)


def test_every_overlay_says_what_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    mammogram = mammogram_of(breast())
    spots = grouped(5, 450, 150, 20, 1)
    for found, says in (
        (reading_of(mammogram), "No calcification found at this setting. This does not mean normal."),
        (reading_of(mammogram, spots, [(0.1, False)]), "No cluster flagged. This does not mean normal."),
        (reading_of(mammogram, spots, [(0.9, True)]), "REVIEW: 1 cluster"),
    ):
        text = legend_texts(monkeypatch, found, mammogram)
        assert NOTICE in text
        assert says in text
        assert "L CC" in text
        assert "10 mm" in text
        assert "%" not in text
    assert "1 REVIEW high" in text
    assert "not a probability" in text


def test_an_overlay_counts_what_the_tables_count_drawn_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    mammogram = mammogram_of(breast())
    single = [(500.0, 100.0, 3.0, Kind.MICRO, c, 0) for c in (0.01, 0.2, 0.3, 0.9)]
    single.append((300.0, 100.0, 9.0, Kind.MACRO, 0.1, 0))
    found = reading_of(mammogram, [*single, *grouped(5, 450, 150, 20, 1)], [(0.1, False)])
    row = dict(zip((c.name for c in IMAGE_COLUMNS), image_row(found, Settings().cluster.min_confidence), strict=True))
    text = legend_texts(monkeypatch, found, mammogram)
    assert "6 microcalcifications" in text
    assert "Counted, not drawn: 2 micro, 1 macro, single and doubtful (confidence under 0.5)" in text
    assert (row["n_micro"], row["n_macro"]) == (str(6 + 2), "1")
    assert "not drawn" not in legend_texts(monkeypatch, reading_of(mammogram, single[3:4]), mammogram)
    doubtful = legend_texts(monkeypatch, reading_of(mammogram, single[:2]), mammogram)
    assert "Counted, not drawn: 1 micro" in doubtful
    assert "No calcification found" not in doubtful


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), max_size=20), st.floats(0, 1), st.floats(0, 1))
def test_every_spot_that_counts_is_marked_or_said_to_be_left_out(
    spots: list[tuple[float, int]], counts_from: float, sure_from: float
) -> None:
    point = {"cluster": {"balanced_confidence": counts_from, "balanced_core": sure_from}}
    settings = Settings.from_mapping(point)
    # no member of a cluster is under the operating point
    places = [(450.0, 150.0, 3.0, Kind.MICRO, c, int(owner and c >= counts_from)) for c, owner in spots]
    found = dataclasses.replace(reading_of(mammogram_of(breast()), places), settings=settings.to_mapping())
    marked = found.spots.spot_id[marked_spots(found)].tolist()
    left_out = unmarked_spots(found).spot_id.tolist()
    counting = found.spots.spot_id[found.spots.confidence >= counts_from].tolist()
    assert sorted(marked + left_out) == counting


def longest_run(picture: Grey) -> int:
    """Return the longest horizontal run of pure white."""
    padded = np.pad(is_ink(picture, WHITE).astype(int), ((0, 0), (1, 1)))
    edges = np.diff(padded, axis=1)
    starts, stops = np.nonzero(edges == 1), np.nonzero(edges == -1)
    return int((stops[1] - starts[1]).max(initial=0))


@pytest.mark.parametrize("spacing", [(0.0435, 0.0435), (0.07, 0.07), (0.2, 0.2), (0.1, 0.05), (0.07, 0.11)])
def test_the_scale_bar_is_as_long_as_it_says(spacing: tuple[float, float]) -> None:
    mammogram = mammogram_of(breast(1200, 1000), spacing_mm=spacing)
    bar = scale_bar(mammogram.identity, 150)
    length_mm = float(bar.words.split()[0])
    assert longest_run(draw_overlay(mammogram, reading_of(mammogram))) == bar.length_px == round(length_mm / spacing[1])
    assert ("across" in bar.words) == (spacing[0] != spacing[1])


def test_without_known_size_there_is_no_scale_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    mammogram = mammogram_of(breast(), spacing_mm=(0.0, 0.0), sizes_known=False)
    reading = reading_of(mammogram, grouped(5, 450, 150, 20, 1), [(0.5, True)])
    assert longest_run(draw_overlay(mammogram, reading)) < 15
    assert "size unknown" in legend_texts(monkeypatch, reading, mammogram)
    [(_, crop)] = draw_crops(mammogram, reading)
    assert longest_run(crop) < 15


@given(st.text(max_size=60), st.text(max_size=60), st.lists(st.text(max_size=30), max_size=3), st.text(max_size=300))
def test_no_words_break_a_picture(side: str, view: str, modifiers: list[str], words: str) -> None:
    mammogram = mammogram_of(np.zeros((80, 60)), side=side, view=view, view_modifiers=tuple(modifiers))
    reading = reading_of(mammogram, [(40, 30, 3, Kind.MICRO, 0.9, 1)], [(0.5, True)])
    reading = dataclasses.replace(
        reading, quality=words, clusters=reading.clusters.replace(reasons=np.array([words], dtype=f"U{len(words) + 1}"))
    )
    assert draw_overlay(mammogram, reading).shape == (80, 60, 3)
    assert len(list(draw_crops(mammogram, reading))) == 1
    assert plain(words).isprintable()


@given(st.integers(1, 130), st.integers(1, 130), st.booleans())
def test_tiny_images_have_pictures(rows: int, cols: int, flagged: bool) -> None:
    mammogram = mammogram_of(np.linspace(0, 4000, rows * cols).reshape(rows, cols), None)
    spots = [(rows / 2, cols / 2, 2, Kind.MICRO, 0.9, 1), (rows - 1, 0, 3, Kind.MACRO, 0.9, 1)]
    for reading in (reading_of(mammogram), reading_of(mammogram, spots, [(0.5, flagged)])):
        assert draw_overlay(mammogram, reading).shape == (rows, cols, 3)
        for _, crop in draw_crops(mammogram, reading):
            assert max(crop.shape) <= 1200


@given(npst.arrays(np.float32, st.tuples(st.integers(1, 20), st.just(2)), elements=st.floats(-50, 50, width=32)))
def test_a_ring_goes_around_every_vertex_of_its_spot(outline: NDArray[np.float32]) -> None:
    both = np.concatenate([outline, 3 * outline[::-1]])
    offsets = np.array([0, len(outline), len(outline), 2 * len(outline)])
    centres = np.array([outline.mean(0), (7, 7), 3 * outline.mean(0)])
    frames = frame_spots(both, offsets, centres)
    rings = frames.place(CIRCLE, 1.0).astype(np.float32)
    for ring, vertices in ((rings[0], outline), (rings[1], centres[1:2]), (rings[2], 3 * outline)):
        for x, y in vertices.tolist():
            assert cv2.pointPolygonTest(ring.reshape(-1, 1, 2), (x, y), measureDist=False) >= 0


def test_spots_without_outlines_are_marked_at_their_centres() -> None:
    mammogram = mammogram_of(breast())
    reading = reading_of(mammogram, [(450, 150, 3, Kind.MICRO, 0.9, 0)])
    reading = dataclasses.replace(reading, spot_outlines=Outlines.of([np.empty((0, 2))]))
    assert is_hue(draw_overlay(mammogram, reading)[430:470, 130:170], MICRO).any()


def test_the_legend_fits_its_width() -> None:
    mammogram = mammogram_of(breast(), side="L" * 50, view="V" * 50)
    reading = dataclasses.replace(reading_of(mammogram), quality="|".join(["coarse pixels"] * 12))
    for width in (150, 300, 900):
        assert draw_legend(reading, reading.spots, reading.spots, Pen(width / 300), width).shape[1] == width


# --------------------------------------------------------------------------------------------------------------
# crops


def panels(crop: Grey) -> tuple[Grey, Grey]:
    """Return the two panels of a crop whose image is brighter than the sheet."""
    bright = np.asarray((crop[:, crop.shape[1] // 4] > 20).any(1))
    runs = np.split(np.arange(len(bright)), np.flatnonzero(np.diff(bright)) + 1)
    rows = max((run for run in runs if bright[run[0]]), key=len)
    cols = np.flatnonzero((crop[rows[len(rows) // 2], : crop.shape[1] // 2] > 20).any(1))
    right = cols[0] + crop.shape[1] // 2 - 2
    band = crop[rows[0] : rows[-1] + 1]
    return band[:, cols[0] : cols[-1] + 1], band[:, right : right + cols[-1] + 1 - cols[0]]


def test_a_crop_is_three_times_magnified_without_and_with_marks() -> None:
    mammogram = mammogram_of(cv2.GaussianBlur(breast(seed=3), (0, 0), 1.5) + 300)
    reading = reading_of(mammogram, grouped(8, 450, 150, 30, 1), [(0.9, True)])
    [(cluster_id, crop)] = draw_crops(mammogram, reading)
    assert cluster_id == 1
    clean, marked = panels(crop)
    assert clean.shape == marked.shape
    assert (clean == clean[..., :1]).all(), "there is colour in the panel without marks"
    assert is_ink(marked, REVIEW).any()
    assert is_ink(marked, MICRO).any()
    rows, cols = clean.shape[0] // 3, clean.shape[1] // 3
    assert (rows * 3, cols * 3) == clean.shape[:2]
    small = cv2.resize(clean[..., 0], (cols, rows), interpolation=cv2.INTER_AREA)
    grey = apply_window(mammogram)
    score = cv2.matchTemplate(grey, small, cv2.TM_CCOEFF_NORMED)
    _, best, _, (left, top) = cv2.minMaxLoc(score)
    assert best > 0.98, "the crop is not the image, three times enlarged"
    assert top < 420
    assert top + rows > 480
    assert left < 120
    assert left + cols > 180
    for outline in reading.spot_outlines:
        where = inside_of((outline - (top, left) + 0.5) * 3 - 0.5, clean.shape)
        assert len(where[0]) > 50
        assert np.array_equal(clean[where], marked[where])


@given(
    st.integers(60, 2500),
    st.integers(60, 2500),
    st.tuples(st.floats(0.03, 0.2), st.floats(0.03, 0.2)),
    st.floats(0.01, 1.2),
    st.floats(0, 1),
)
def test_crops_are_at_most_1200_px_a_side(
    rows: int, cols: int, spacing: tuple[float, float], spread: float, middle: float
) -> None:
    mammogram = mammogram_of(np.full((rows, cols), 2000.0), spacing_mm=spacing)
    spots = grouped(5, rows * middle, cols * middle, spread * min(rows, cols) / 2, 1)
    [(_, crop)] = draw_crops(mammogram, reading_of(mammogram, spots, [(0.9, True)]))
    assert max(crop.shape) <= 1200
    assert min(crop.shape[:2]) > 100
    assert is_ink(crop, REVIEW).any()


@pytest.mark.parametrize("spacing", [(0.05, 0.1), (0.1, 0.07), (0.08, 0.08)])
def test_a_crop_shows_true_proportions_and_its_bar_is_right(spacing: tuple[float, float]) -> None:
    y, x = np.mgrid[:600, :600]
    distance_mm = np.hypot((y - 300) * spacing[0], (x - 300) * spacing[1])
    mammogram = mammogram_of(800 + 2000 * np.clip((3 - distance_mm) / 0.4 + 0.5, 0, 1), spacing_mm=spacing)
    spots = [(300 + d, 300 + e, 1, Kind.MICRO, 0.9, 1) for d, e in ((-20, 0), (20, 0), (0, 20))]
    [(_, crop)] = draw_crops(mammogram, reading_of(mammogram, spots, [(0.1, False)]))
    clean, _ = panels(crop)
    disc = clean[..., 0] > 1800 / 4000 * 255
    height, width = np.ptp(np.flatnonzero(disc.any(1))) + 1, np.ptp(np.flatnonzero(disc.any(0))) + 1
    assert width == pytest.approx(height, rel=0.02)
    zoom = 3 * (spacing[1] / min(spacing))
    bar = scale_bar(mammogram.identity, crop.shape[1] / 4, zoom)
    assert longest_run(crop[-160:]) == pytest.approx(bar.length_px, abs=1)
    assert bar.length_px / float(bar.words.split()[0]) == pytest.approx(width / 6, rel=0.02)


def test_there_is_one_crop_a_cluster_and_none_without() -> None:
    mammogram = mammogram_of(breast())
    spots = [*grouped(4, 300, 150, 20, 1), *grouped(4, 500, 150, 20, 2), *grouped(4, 896, 2, 3, 3)]
    reading = reading_of(mammogram, spots, [(0.9, True), (0.1, False), (0.4, False)])
    assert [i for i, _ in draw_crops(mammogram, reading)] == [1, 2, 3]
    assert list(draw_crops(mammogram, reading_of(mammogram))) == []
