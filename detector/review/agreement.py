"""How far readers agree: raw tables, and Cohen's kappa with its interval."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.evaluate.uncertainty import Estimate, resample, resampled_note
from detector.review.decisions import WORDS, Decision

Table = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Agreement:
    """Two readers on what both have decided.

    Attributes
    ----------
    readers : tuple of str
    target : str
        ``cluster`` or ``case``.
    words : tuple of str
    table : ndarray of int, shape (n words, n words)
        Rows are the first reader's decisions, columns the second's.
    kappa : Estimate
    n_cases : int
    """

    readers: tuple[str, str]
    target: str
    words: tuple[str, ...]
    table: Table
    kappa: Estimate
    n_cases: int


def cohens_kappa(table: NDArray[np.floating] | Table) -> float:
    """Return Cohen's kappa of a square table, unweighted; NaN where chance alone agrees on all.

    Source: Cohen 1960, doi 10.1177/001316446002000104.
    """
    total = float(table.sum())
    if total == 0:
        return math.nan
    observed = float(np.trace(table)) / total
    chance = float(table.sum(0) @ table.sum(1)) / total**2
    return (observed - chance) / (1 - chance) if chance < 1 else math.nan


def agreements(kept: Sequence[tuple[Decision, str]], target: str) -> list[Agreement]:
    """Return the agreement of each pair of readers on clusters, or on whole cases.

    Parameters
    ----------
    kept : sequence of (Decision, str)
        As `Store.all` returns them. Of each reader the last decision counts that he made before he could see the
        other's, so that the two are independent.
    target : str
        ``cluster`` or ``case``.
    """
    subjects: dict[str, dict[str, list[tuple[Decision, str]]]] = {}
    for decision, received in kept:
        if decision.target == target and decision.decision:
            readers = subjects.setdefault(decision.subject, {})
            readers.setdefault(decision.reviewer, []).append((decision, received))
    pairs = sorted({pair for readers in subjects.values() for pair in itertools.combinations(sorted(readers), 2)})
    return [_agreement(pair, target, subjects) for pair in pairs]


def _agreement(
    pair: tuple[str, str], target: str, subjects: Mapping[str, Mapping[str, list[tuple[Decision, str]]]]
) -> Agreement:
    words = WORDS[target][:-1]
    both = [(readers[pair[0]], readers[pair[1]]) for readers in subjects.values() if set(pair) <= set(readers)]
    chosen = [_independent(*lists) for lists in both]
    codes = np.array([[words.index(d.decision) for d in decisions] for decisions in chosen], np.int64)
    _, cases = np.unique([decisions[0].case_id for decisions in chosen], return_inverse=True)
    cells = codes[:, 0] * len(words) + codes[:, 1]

    def table(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(cells, weights, len(words) ** 2).astype(np.float64).reshape(len(words), len(words))

    whole = table(np.ones(len(cells)))
    low, high = resample(lambda weights: cohens_kappa(table(weights)), cases.astype(np.intp), n_samples=2000)
    n_cases = int(cases.max()) + 1
    note = resampled_note(n_cases).replace("patient", "case")
    kappa = Estimate(cohens_kappa(whole), float(low), float(high), note)
    return Agreement(pair, target, words, whole.astype(np.int64), kappa, n_cases)


def _independent(
    first: Sequence[tuple[Decision, str]], second: Sequence[tuple[Decision, str]]
) -> tuple[Decision, Decision]:
    """Return the last decisions of two readers on one thing that were made before either saw the other's."""
    seen = max(first[0][1], second[0][1])
    one, two = ([decision for decision, received in kept if received <= seen][-1] for kept in (first, second))
    return one, two


@dataclass(frozen=True)
class Tally:
    """What one reader has decided: of clusters flagged and not, of cases, and how many he has drawn."""

    reader: str
    clusters: Mapping[str, int]
    cases: Mapping[str, int]
    blind: Mapping[str, int]
    missed: int


def tallies(kept: Sequence[tuple[Decision, str]]) -> list[Tally]:
    """Return what each reader's latest decisions are, by name."""
    latest: dict[tuple[str, str], Decision] = {}
    for decision, _ in kept:
        if decision.decision:
            latest[decision.reviewer, decision.subject] = decision
    found = []
    for reader in sorted({name for name, _ in latest}):
        own = [decision for (name, _), decision in latest.items() if name == reader]
        clusters, cases, blind = (
            {word: sum(d.decision == word and d.target == target and d.blind in hidden for d in own) for word in words}
            for target, hidden, words in (
                ("cluster", ("true", "false"), WORDS["cluster"][:-1]),
                ("case", ("false",), WORDS["case"][:-1]),
                ("case", ("true",), WORDS["case"][:-1]),
            )
        )
        found.append(Tally(reader, clusters, cases, blind, sum(d.decision == "added" for d in own)))
    return found
