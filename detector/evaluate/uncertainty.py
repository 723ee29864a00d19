"""What may honestly be said of a figure's uncertainty: resampled by patient, Wilson's interval, or none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Row = dict[str, Any]

LEAST_PATIENTS = 10
"""Fewer than these are too few to resample."""
FEW_MARKS = 50
"""Up to this many objects a proportion is given as k of n with Wilson's interval."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval; `low` and `high` are NaN where none is due, and `note` says what they are."""

    value: float
    low: float = math.nan
    high: float = math.nan
    note: str = ""
    k: int | None = None
    n: int | None = None

    @property
    def differs(self) -> bool:
        """True if there is an interval that does not cover 0: only then may a difference be called better or worse."""
        return self.low > 0 or self.high < 0


def wilson(k: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927, doi 10.1080/01621459.1927.10502953); NaN for n = 0."""
    if n == 0:
        return math.nan, math.nan
    z = float(norm.ppf(0.975))
    middle = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def proportion(k: int, n: int, n_patients: int) -> Estimate:
    """Return k of n, with Wilson's interval from 10 patients up."""
    value = k / n if n else math.nan
    if n_patients < LEAST_PATIENTS:
        return Estimate(value, note=too_few(n_patients), k=k, n=n)
    return Estimate(value, *wilson(k, n), "Wilson", k, n)


def resample(
    statistic: Callable[[Floats], ArrayLike], patients: Ints, *, n_samples: int = 1000, seed: int = 0
) -> tuple[Floats, Floats]:
    """Return the 2.5th and 97.5th percentile of a statistic over resampled patients.

    Parameters
    ----------
    statistic : callable
        Takes how often each image counts, float64 of shape (n images,); returns a number or an array.
    patients : ndarray of intp, shape (n images,)
        Number of each image's patient. All images of a patient are drawn together.
    n_samples, seed : int

    Returns
    -------
    low, high : ndarray of float64
        NaN if there are fewer than 10 patients, or the statistic has no value.
    """
    n_patients = int(patients.max(initial=-1)) + 1
    blank = np.full_like(np.asarray(statistic(np.ones(len(patients))), float), np.nan)
    if n_patients < LEAST_PATIENTS:
        return blank, blank
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_patients, np.full(n_patients, 1 / n_patients), size=n_samples)
    values = np.array([statistic(times[patients].astype(float)) for times in drawn], float)
    # a draw without a true object has no sensitivity
    values = values[np.isfinite(values).reshape(n_samples, -1).all(axis=1)]
    if len(values) == 0:
        return blank, blank
    low, high = np.percentile(values, [2.5, 97.5], axis=0)
    return low, high


def too_few(n_patients: int) -> str:
    """Say why there is no interval."""
    return f"no interval: {n_patients} patient{'s' * (n_patients != 1)}, fewer than {LEAST_PATIENTS}"


def resampled_note(n_patients: int) -> str:
    """Say what the interval of a resampled figure is, or why there is none."""
    return too_few(n_patients) if n_patients < LEAST_PATIENTS else f"bootstrap over {n_patients} patients"


def estimate_row(name: str, estimate: Estimate) -> Row:
    """Return an estimate as columns of a row, named after it."""
    row: Row = {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    return row | {"found": estimate.k, "of": estimate.n, "interval": estimate.note}
