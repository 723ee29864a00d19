"""The image without its background, in noise units at every scale: Mammogram -> Detail.

A Gaussian pyramid serves all scales; each level carries its white top-hat, each scale a difference of Gaussians, and
the noise of each response is measured as a function of grey level and place, so that one threshold in sigmas holds
over film and digital images, in bright and dark tissue. All pictures are of 16-bit integers, in steps of grey far finer
than the noise: half the memory to go through, and twice the pixels in each instruction.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from detector.records import (
    STRIP_ROWS,
    Band,
    BoolImage,
    Box,
    BreastRegion,
    Buffers,
    Detail,
    FloatImage,
    GreySteps,
    Level,
    Mammogram,
    Noise,
    StepImage,
    Zone,
)
from detector.settings import EnhanceSettings

_Picture = TypeVar("_Picture", FloatImage, StepImage)

Take = Callable[[str, tuple[int, ...]], StepImage]
"""Gives memory for a picture by name and shape."""

STEPS, MOST_STEPS, MARGIN = 13500, 32000, 0.65
"""Steps that the breast's range of grey levels is divided into, most that there are (16 bits), and how far, in such
ranges, the first one lies below the breast's darkest, which leaves 0.7 above its brightest: films and digital images
reach 0.1 below and 0.5 above, phantoms a little farther. Noise of 0.5 % of the range, as on low-noise images, is 67
steps, and rounding adds a fiftieth of a thousandth to its variance."""

LOWEST, HIGHEST = -8.0, 128.0
"""How far below and above its darkest, in ranges of the breast, values are told apart at most; where anything is darker
or brighter than that margin, steps are coarser. In pictures of even blocks the range is no more than the noise."""

MULTIPLE_PX = 64
"""The box is padded to multiples of this, so that each level halves exactly and flips keep the sampling."""

_CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)
OPENING = (np.ones((3, 3), np.uint8), _CROSS, _CROSS)
"""Elements that, one after another, are a disc with a radius of 3.5 cells of the next coarser level, i.e. 7 cells of
the level: three times the radius of the largest blob that the level is asked for. They look at half as many cells."""

MEAN_ABSOLUTE_TO_SIGMA = math.sqrt(math.pi / 2)
"""Standard deviation of a Gaussian by its mean absolute deviation (Geary 1935, doi 10.2307/2332693)."""


N_GREYS = 24
"""Groups of like grey in which noise is taken as one; with fewer cells of breast it is one number altogether."""

SMALLEST_LEVEL = 32
"""Cells a side under which an image is not halved further."""

ALMOST_TWO = 1.999
"""Ratio of scale to cells from which a level is halved, but for `CELLS_OF_SCALE`: where pixels and scales are multiples
of one another rounding must not decide."""

CELLS_OF_SCALE = 0.75
"""Standard deviation in cells of a level from which it can carry a scale: the sampled Gaussian then loses under 1 %."""

PIXEL_BLUR = 1 / math.sqrt(12)
"""Standard deviation, in pixels, of the mean over a pixel's width."""

LEAST_BLUR = 0.45
"""Standard deviation in cells that coarse levels are blurred by: halved pictures look different from shift to shift."""

DETAIL_MM = 0.3
"""Distance over which grey levels are compared to measure the noise of pixels: beyond the blur, within the texture."""

DETAIL_BY_NOISE = np.float32(math.sqrt(1.25))
"""Their difference by the noise of one pixel: the variances of one and of a mean of four add up."""

GREY_MM = 0.3
"""Cells that the grey level is read on which noise depends: quanta and texture change with the strand or the vessel
that a spot lies on; on much finer cells the spot itself would raise its own noise."""

LEAST_SHARE = 1e-3
"""Share of breast around a cell under which nothing is known of its noise."""

TINY = 1e-12
"""Least noise, for images that have none."""


def enhance_detail(
    mammogram: Mammogram, breast: BreastRegion, settings: EnhanceSettings, buffers: Buffers | None = None
) -> Detail:
    """Remove the background, respond to blobs of every scale, and measure the noise of each response.

    Parameters
    ----------
    mammogram : Mammogram
    breast : BreastRegion
    settings : EnhanceSettings
    buffers : Buffers, optional
        What the finest level's pictures are written to; the Detail then lasts until these are used again.

    Returns
    -------
    Detail
        Without levels and bands if there is no breast.
    """
    if breast.is_empty:
        return _no_detail(mammogram, breast)
    pixel_mm = mammogram.pixel_mm
    take: Take = functools.partial((buffers or Buffers()).take, dtype=np.int16)
    plain, steps = _in_steps(mammogram.pixels[breast.box.slices], breast.grey_range, take)
    smooth_px = _missing_blur(settings, pixel_mm)
    image, _ = _blur_to(plain, 0.0, smooth_px, 1, take("image 0", plain.shape))
    cells = _Cells(breast, half := _halved(image))
    levels, bands = [_level(image, half, 1, breast.box, take("tophat 0", plain.shape))], list[Band]()
    half, half_px = (half, smooth_px) if smooth_px <= _level_blur_px(settings, 2, pixel_mm) else (_halved(plain), 0.0)
    # how far `current` is blurred, as a standard deviation in pixels; a pixel is itself a mean over its square
    step_px, blurred_px, current = 1, math.hypot(smooth_px, PIXEL_BLUR), image
    for scale_mm in _scales(settings, pixel_mm):
        scale_px = scale_mm / pixel_mm
        while scale_px > ALMOST_TWO * step_px * CELLS_OF_SCALE and min(current.shape) >= 2 * SMALLEST_LEVEL:
            current, step_px = _halved(current), 2 * step_px
            half = half if half.shape == current.shape else _halved(half)
            blurred_px = math.hypot(blurred_px, step_px / 4)
        canvas, wider = (take(f"{name} {len(bands)}", current.shape) for name in ("response", "outer"))
        inner, blurred_px = _blur_to(current, blurred_px, scale_px, step_px, canvas)
        if levels[-1].step_px != step_px:
            canvases = [take(f"{name} {len(levels)}", half.shape) for name in ("image", "tophat")]
            smooth, _ = _blur_to(half, half_px, _level_blur_px(settings, step_px, pixel_mm), step_px, canvases[0])
            levels.append(_level(smooth, _halved(smooth), step_px, breast.box, canvases[1]))
        current, blurred_px = _blur_to(inner, blurred_px, scale_px * settings.scale_ratio, step_px, wider)
        response = np.subtract(inner, current, out=canvas)
        noise = cells.noise(cells.mean_size(response, step_px), max(settings.noise_window_mm, 4 * scale_mm) / pixel_mm)
        bands.append(Band(scale_mm, len(levels) - 1, response, noise))
    return Detail(
        levels=tuple(levels),
        bands=tuple(bands),
        noise=cells.noise(cells.fine_detail(image, pixel_mm), settings.noise_window_mm / pixel_mm),
        grey_level=min(range(len(levels)), key=lambda i: abs(math.log(levels[i].step_px * pixel_mm / GREY_MM))),
        coherence=cells.coherence(levels, 1.0 / pixel_mm),
        steps=steps,
        cell_px=cells.step_px,
        pixel_mm=pixel_mm,
        box=breast.box,
        image_shape=mammogram.pixels.shape,
    )


def _no_detail(mammogram: Mammogram, breast: BreastRegion) -> Detail:
    nothing = np.zeros((0, 0), np.float32)
    no_noise, steps = Noise(np.zeros(1), np.ones(1), nothing), GreySteps(0.0, 1.0)
    return Detail((), (), no_noise, 0, nothing, steps, 1, mammogram.pixel_mm, breast.box, mammogram.pixels.shape)


def _in_steps(pixels: FloatImage, grey_range: tuple[float, float], take: Take) -> tuple[StepImage, GreySteps]:
    """Return grey levels in steps that divide the breast's range finely, and reach up to the brightest of the box.

    Parameters
    ----------
    pixels : ndarray of float32, shape (rows, cols)
        The breast's box.
    grey_range : tuple of float
    take : Take

    Returns
    -------
    image : ndarray of int16
        Rounded; what is darker than the first step is none, what is too bright the last. The outermost pixels are
        repeated to full multiples of `MULTIPLE_PX`.
    steps : GreySteps
    """
    low, span = grey_range[0], grey_range[1] - grey_range[0]
    rows, cols = pixels.shape
    image = take("steps", (rows + -rows % MULTIPLE_PX, cols + -cols % MULTIPLE_PX))
    inside = image[:rows, :cols]
    steps = GreySteps(low - MARGIN * span, max(span / STEPS, TINY))
    lowest, highest = _put_in_steps(pixels, steps, inside)
    if lowest < 0 or highest > MOST_STEPS:
        start = min(steps.start, max(float(pixels.min()), low + LOWEST * span))
        end = max(steps.start + MOST_STEPS * steps.size, min(float(pixels.max()), low + HIGHEST * span))
        steps = GreySteps(start, (end - start) / MOST_STEPS)
        _put_in_steps(pixels, steps, inside)
        np.maximum(inside, 0, out=inside)
    image[:rows, cols:] = image[:rows, cols - 1 : cols]
    image[rows:] = image[rows - 1]
    return image, steps


def _put_in_steps(pixels: FloatImage, steps: GreySteps, image: StepImage) -> tuple[float, float]:
    """Round grey levels to whole steps, and return the lowest and the highest; those of 16 bits stand for any beyond.

    Strip after strip, which is in the processor's cache when its steps are looked through.
    """
    extremes = []
    for start in range(0, len(pixels), STRIP_ROWS):
        strip, rounded = pixels[start : start + STRIP_ROWS], image[start : start + STRIP_ROWS]
        # of two pictures, since OpenCV has no quicker way from one to 16 bits; the second counts nothing
        cv2.addWeighted(strip, 1 / steps.size, strip, 0.0, -steps.start / steps.size, rounded, cv2.CV_16S)
        extremes.append(cv2.minMaxLoc(rounded)[:2])
    return min(low for low, _ in extremes), max(high for _, high in extremes)


def _level_blur_px(settings: EnhanceSettings, step_px: int, pixel_mm: float) -> float:
    """Return the Gaussian, in pixels, that a halved level is blurred by, and no more than that."""
    return step_px * max(_missing_blur(settings, step_px * pixel_mm), LEAST_BLUR)


def _missing_blur(settings: EnhanceSettings, cell_mm: float) -> float:
    """Return the Gaussian, in cells, that blurs cells as much as wanted; 0 where they are about that wide."""
    missing = math.sqrt(max((settings.smoothing_mm / cell_mm) ** 2 - PIXEL_BLUR**2, 0.0))
    return missing if missing > 0.3 else 0.0


def _middle_rows(rows: NDArray[Any], group: int) -> NDArray[Any]:
    """Return the middle two of each `group` rows: samples enough, next to each other in memory, and kept by flips."""
    whole = rows.reshape(len(rows) // group, group, *rows.shape[1:])
    return whole[:, group // 2 - 1 : group // 2 + 1] if group >= 4 else whole


def _scales(settings: EnhanceSettings, pixel_mm: float) -> list[float]:
    """Return the standard deviations in mm, one ladder for all pixel sizes; under 0.6 px a sampled Gaussian is none."""
    octaves = math.log(settings.coarsest_scale_mm / settings.finest_scale_mm, settings.scale_ratio)
    ladder = [settings.finest_scale_mm * settings.scale_ratio**step for step in range(math.floor(octaves + 1e-6) + 1)]
    return [scale for scale in ladder if scale >= 0.599 * pixel_mm]


def _blur(image: _Picture, sigma: float, canvas: _Picture | None = None) -> _Picture:
    """Return the Gaussian blur, cut at about three standard deviations, of the picture's type."""
    size = (2 * max(1, round(3 * sigma)) + 1,) * 2
    blurred = cv2.GaussianBlur(image, size, sigma, dst=canvas, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, image.dtype)


def _blur_to(
    image: StepImage, blurred_px: float, wanted_px: float, step_px: int, canvas: StepImage
) -> tuple[StepImage, float]:
    """Return the image blurred from one standard deviation to a larger one, both in pixels, and the larger."""
    missing = math.sqrt(max(wanted_px**2 - blurred_px**2, 0.0)) / step_px
    if missing < 0.2:
        return image, max(blurred_px, wanted_px)
    return _blur(image, missing, canvas), wanted_px


def _halved(image: StepImage) -> StepImage:
    """Return the means of blocks of 2 x 2."""
    rows, cols = image.shape
    return np.asarray(cv2.resize(image, (cols // 2, rows // 2), interpolation=cv2.INTER_AREA), np.int16)


def _level(image: StepImage, half: StepImage, step_px: int, box: Box, canvas: StepImage) -> Level:
    """Return a level with its top-hat: over the opening of its half, where that is sixteen times cheaper."""
    (rows, cols), opened = image.shape, half
    for step, elements in ((cv2.erode, OPENING), (cv2.dilate, OPENING[::-1])):
        for element in elements:
            opened = np.asarray(step(opened, element, borderType=cv2.BORDER_REPLICATE), np.int16)
    background = np.asarray(cv2.resize(opened, (cols, rows), canvas, interpolation=cv2.INTER_LINEAR), np.int16)
    shift = (step_px - 1) / 2
    tophat = np.subtract(image, background, out=background)
    return Level(image, tophat, step_px, (box.row_start + shift, box.col_start + shift))


def _middle(values: FloatImage) -> FloatImage:
    """Return the middle one of the values along the last axis by size, of two the greater."""
    middle = values.shape[-1] // 2
    return np.asarray(np.partition(values, middle)[..., middle])


def _order_of_whole(values: NDArray[np.floating]) -> NDArray[np.intp]:
    """Return the stable order of values, none negative, by their nearest whole numbers.

    numpy sorts whole numbers of 16 bits by their digits, in a tenth of the time.
    """
    whole = np.rint(values)
    return np.argsort(whole.astype(np.min_scalar_type(int(whole.max(initial=0)))), kind="stable")


class _Cells:
    """Statistics on cells of the padded box, twice as wide as the zone map's: a quarter of the noise's window."""

    def __init__(self, breast: BreastRegion, half: StepImage) -> None:
        self.step_px = 2 * breast.step_px
        self.size = (2 * half.shape[0] // self.step_px, 2 * half.shape[1] // self.step_px)
        self.grey = self.mean(half, 2)
        self.inside = self._inside(breast)
        self.weight = self.inside.astype(np.float32)
        greys = self.grey[self.inside]
        # cells by rising grey, in groups of equal number
        order = _order_of_whole(greys)
        self.group_size = len(greys) // N_GREYS
        starts = np.linspace(0, len(greys), N_GREYS, endpoint=False).astype(np.int64)
        self.groups = np.flatnonzero(self.inside)[order][starts[:, None] + np.arange(self.group_size)]
        self.centres = (
            greys[order[starts + self.group_size // 2]].astype(np.float64) if self.group_size else np.zeros(1)
        )
        # where each cell lies between two groups: what `numpy.interp` would seek anew for each band
        place = np.interp(self.grey, self.centres, np.arange(len(self.centres))).astype(np.float32)
        self.darker = place.astype(np.intp)
        self.brighter = np.minimum(self.darker + 1, len(self.centres) - 1)
        self.share_of_brighter = place - self.darker.astype(np.float32)
        self.shares: dict[float, FloatImage] = {}

    def _inside(self, breast: BreastRegion) -> BoolImage:
        """Return which cells of the box are breast at least by half, without image and film edges."""
        row, col = breast.box.row_start // breast.step_px, breast.box.col_start // breast.step_px
        rows, cols = self.size
        part = breast.zones[row : row + 2 * rows, col : col + 2 * cols]
        inside = np.zeros((2 * rows, 2 * cols), np.bool_)
        inside[: part.shape[0], : part.shape[1]] = (part & (Zone.BREAST | Zone.EDGE)) == Zone.BREAST
        # sums along short axes take several times as long
        number = inside.view(np.uint8)
        number = number[::2] + number[1::2]
        return np.asarray(number[:, ::2] + number[:, 1::2] >= 2, np.bool_)

    def group(self, step_px: int) -> int:
        """Return how many rows of a level are read together: those of a cell, at most 8."""
        return max(1, min(self.step_px // step_px, 8))

    def mean_size(self, values: StepImage, step_px: int) -> FloatImage:
        """Return the mean absolute value over each cell, from a part of the rows where there are many."""
        return self.mean(np.abs(_middle_rows(values, self.group(step_px))).astype(np.float32), step_px)

    def fine_detail(self, image: StepImage, pixel_mm: float) -> FloatImage:
        """Return the noise of pixels over each cell, by how far they are from the mean of four others `DETAIL_MM` away.

        From the middle two of each group of rows.
        """
        away = max(1, round(DETAIL_MM / pixel_mm))
        rows = _middle_rows(np.arange(len(image)), self.group(1)).ravel()
        last = len(image) - 1
        above, below = np.abs(rows - away), last - np.abs(last - rows - away)
        # unsigned, two of them can be added; a mean of two is a step low at most
        grey, size = image.view(np.uint16), np.empty((len(rows), image.shape[1]), np.float32)
        for start in range(0, len(rows), STRIP_ROWS):
            strip = slice(start, start + STRIP_ROWS)
            around = grey[above[strip]]
            around += grey[below[strip]]
            around >>= 1
            here = np.asarray(cv2.copyMakeBorder(grey[rows[strip]], 0, 0, away, away, cv2.BORDER_REFLECT_101))
            beside = here[:, : -2 * away] + here[:, 2 * away :]
            beside >>= 1
            around += beside
            around >>= 1
            detail = np.subtract(here[:, away:-away].view(np.int16), around.view(np.int16))
            size[strip] = np.abs(detail, out=detail)
        return self.mean(size, 1) / DETAIL_BY_NOISE

    def mean(self, values: FloatImage | StepImage, step_px: int) -> FloatImage:
        """Return the mean over each cell of the box; `values` has `step_px` pixels a sample."""
        rows, cols = self.size
        interpolation = cv2.INTER_AREA if step_px <= self.step_px else cv2.INTER_LINEAR
        picture = values.reshape(-1, values.shape[-1])
        return np.asarray(cv2.resize(picture, (cols, rows), interpolation=interpolation), np.float32)

    def noise(self, deviation: FloatImage, window_px: float) -> Noise:
        """Return the standard deviation, from the mean absolute one, as a function of grey times a factor of place.

        The function is the median over cells of like grey; the factor is a local mean over `window_px`, taken twice so
        that bright detail, clipped the second time, does not hide itself in its own noise.
        """
        if not self.group_size:
            one = max(float(deviation.mean()), TINY)
            return Noise(np.zeros(1), np.full(1, one), np.ones(self.size, np.float32))
        medians = _middle(deviation.ravel().take(self.groups))
        floor = max(1e-3 * float(_middle(medians)), TINY)
        darker = medians.take(self.darker)
        rise = (medians.take(self.brighter) - darker) * self.share_of_brighter
        typical = np.maximum(darker + rise, np.float32(floor))

        sigma = window_px / self.step_px
        if sigma not in self.shares:
            self.shares[sigma] = np.maximum(_blur_coarsely(self.weight, sigma), np.float32(LEAST_SHARE))
        share = self.shares[sigma]
        ratio = deviation / typical
        local = _blur_coarsely(np.minimum(ratio, 3) * self.weight, sigma) / share
        local = _blur_coarsely(np.minimum(ratio, 1.5 * local) * self.weight, sigma) / share
        sigma_of_grey = MEAN_ABSOLUTE_TO_SIGMA * np.maximum(medians, floor).astype(np.float64)
        # where no breast is near nothing is known
        factor = np.where(share > LEAST_SHARE, np.maximum(local, 0.3), 1.0)
        return Noise(self.centres, sigma_of_grey, factor.astype(np.float32))

    def coherence(self, levels: list[Level], window_px: float) -> FloatImage:
        """Return how strongly the surroundings of each cell run in one direction, from 0 to 1.

        From the structure tensor (Bigun 1987) of the level next to a quarter of the window.
        """
        level = min(levels, key=lambda item: abs(math.log(item.step_px / (window_px / 4))))
        by_row = cv2.Sobel(level.image, cv2.CV_32F, 0, 1, ksize=3)
        by_col = cv2.Sobel(level.image, cv2.CV_32F, 1, 0, ksize=3)
        rr, cc, rc = (
            _blur(self.mean(np.multiply(one, other), level.step_px), window_px / self.step_px)
            for one, other in ((by_row, by_row), (by_col, by_col), (by_row, by_col))
        )
        total = np.maximum(rr + cc, np.float32(TINY))
        return np.asarray(np.sqrt((rr - cc) ** 2 + 4 * rc**2) / total, np.float32)


def _blur_coarsely(image: FloatImage, sigma: float) -> FloatImage:
    """Return about the Gaussian blur; a wide one is taken on blocks of cells, which it makes equal anyway."""
    block = int(sigma // 4)
    if block < 2:
        return _blur(image, sigma)
    rows, cols = image.shape
    small = cv2.resize(image, (-(-cols // block), -(-rows // block)), interpolation=cv2.INTER_AREA)
    wide = _blur(np.asarray(small, np.float32), sigma / block)
    return np.asarray(cv2.resize(wide, (cols, rows), interpolation=cv2.INTER_LINEAR), np.float32)
