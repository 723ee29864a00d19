"""Suspicion, flags and words: what raises them, what must not, and what must never be said."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.assess import WEIGHTS, assess_clusters
from detector.records import Clusters, Distribution, Morphology, Spots, Suggestion
from detector.settings import AssessSettings

SETTINGS = AssessSettings()
NEVER = r"biops|routine|normal|benign\b(?! form)|malign|cancer|BI-?RADS|category|month|interval|%|probab"
"""What no reason and no suggestion may say."""


def clusters_of(n_clusters: int = 1, **known: Any) -> Clusters:
    """Return clusters of eight round spots in 0.8 cm2."""
    columns: dict[str, Any] = {
        "cluster_id": np.arange(1, n_clusters + 1),
        "n_spots": 8,
        "area_mm2": 80.0,
        "density_per_cm2": 10.0,
        "size_cv": 0.2,
        "extent_mm": 9.0,
        "confidence": 0.95,
        "distribution": Distribution.GROUPED,
        "morphology": Morphology.PUNCTATE,
    } | known
    return Clusters.blank(n_clusters, **{name: np.broadcast_to(value, n_clusters) for name, value in columns.items()})


def assessed(settings: AssessSettings = SETTINGS, **known: Any) -> Clusters:
    return assess_clusters(Spots.empty(), clusters_of(**known), settings)


def suspicion_of(**known: Any) -> float:
    return float(assessed(**known).suspicion[0])


# --- ranking


def test_weights_share_out_the_whole_suspicion() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)


def test_forms_rank_as_their_predictive_values_do() -> None:
    round_ones = suspicion_of(n_irregular=0)
    amorphous = suspicion_of(n_unresolved=8)
    irregular = suspicion_of(n_irregular=8)
    linear = suspicion_of(n_irregular=8, n_thin=8)
    assert round_ones < amorphous < irregular < linear


counts = st.integers(3, 60)


@given(counts, st.data())
def test_suspicion_lies_between_0_and_1_and_grows_with_every_trait(n: int, data: st.DataObject) -> None:
    n_irregular = data.draw(st.integers(0, n))
    traits: dict[str, Any] = {
        "n_spots": n,
        "n_irregular": n_irregular,
        "n_unresolved": data.draw(st.integers(0, n - n_irregular)),
        "n_thin": data.draw(st.integers(0, n_irregular)),
        "density_per_cm2": data.draw(st.floats(0.5, 500)),
        "size_cv": data.draw(st.floats(0, 2)),
    }
    before = suspicion_of(**traits)
    assert 0 <= before <= 1
    for name, more in (("density_per_cm2", 2.0), ("size_cv", 1.5)):
        assert suspicion_of(**(traits | {name: traits[name] * more})) >= before
    if n_irregular < n - traits["n_unresolved"]:
        assert suspicion_of(**(traits | {"n_irregular": n_irregular + 1})) > before
    if traits["n_thin"] < n_irregular:
        assert suspicion_of(**(traits | {"n_thin": traits["n_thin"] + 1})) >= before


def test_more_spots_of_the_same_kind_are_more_suspicious() -> None:
    by_number = [suspicion_of(n_spots=n, n_irregular=n // 2) for n in (4, 8, 12)]
    assert by_number[0] < by_number[1] < by_number[2]


def test_doubtful_members_add_little() -> None:
    """Eight sure round spots with three that are noise are hardly more suspicious than the eight alone."""
    eleven = clusters_of(n_spots=11, n_unresolved=3, density_per_cm2=13.75)
    known: dict[str, Any] = {"cluster_id": np.ones(11, np.int32)}
    alone = suspicion_of()
    sure, doubtful = (
        assess_clusters(Spots.blank(11, confidence=np.repeat([1.0, c], [8, 3]), **known), eleven, SETTINGS)
        for c in (1.0, 0.1)
    )
    assert doubtful.suspicion[0] - alone < 0.2 * (sure.suspicion[0] - alone)


# --- flags


def test_flags_are_raised_from_the_settings_on() -> None:
    score = suspicion_of(n_irregular=4)
    assert assessed(AssessSettings(review_suspicion=score - 0.01), n_irregular=4).review[0]
    assert not assessed(AssessSettings(review_suspicion=score + 0.01), n_irregular=4).review[0]


def test_a_group_that_is_hardly_real_raises_no_flag() -> None:
    assert assessed(n_irregular=8).review[0]
    assert not assessed(n_irregular=8, confidence=0.4).review[0]


def test_vascular_tracks_keep_their_row_and_reason_and_raise_no_flag() -> None:
    vascular = assessed(n_irregular=8, n_thin=8, morphology=Morphology.VASCULAR)
    assert not vascular.review[0]
    assert "possible vascular" in vascular.reasons[0]


@pytest.mark.parametrize("form", [Morphology.FINE_LINEAR, Morphology.FINE_LINEAR_BRANCHING])
def test_even_a_few_thin_lines_are_flagged(form: Morphology) -> None:
    few = assessed(n_spots=5, n_irregular=5, n_thin=4, density_per_cm2=5.0, area_mm2=100.0, morphology=form)
    assert few.review[0]


def test_two_thin_lines_need_be_no_surer_than_what_is_highly_suspicious() -> None:
    few: dict[str, Any] = {"n_spots": 4, "n_irregular": 2, "n_thin": 2}
    assert SETTINGS.review_suspicion < suspicion_of(**few) < SETTINGS.high_suspicion
    least = SETTINGS.min_confidence_high
    assert assessed(**few, confidence=1.01 * least).review[0]
    assert not assessed(**few, confidence=0.99 * least).review[0]
    assert not assessed(**few | {"n_thin": 1}, confidence=1.01 * least).review[0]


@pytest.mark.parametrize("form", [Morphology.FINE_LINEAR, Morphology.FINE_LINEAR_BRANCHING])
def test_short_lines_that_prevail_count_as_two_thin_ones(form: Morphology) -> None:
    few: dict[str, Any] = {"n_spots": 5, "n_irregular": 1}
    prevailing = suspicion_of(**few, morphology=form)
    assert prevailing == suspicion_of(**few, n_thin=2) > suspicion_of(**few, morphology=Morphology.PUNCTATE)
    assert suspicion_of(**few, n_thin=3, morphology=form) == suspicion_of(**few, n_thin=3)
    for n_thin, named in ((0, True), (1, True), (2, False)):
        reasons = assessed(**few, n_thin=n_thin, morphology=form).reasons[0].split("|")
        assert ("mostly short thin lines" in reasons) == named
    less_sure = 0.5 * (SETTINGS.min_confidence_high + SETTINGS.min_confidence)
    assert assessed(**few, morphology=form, confidence=less_sure).review[0]
    assert not assessed(**few, morphology=Morphology.PUNCTATE, n_thin=1, confidence=less_sure).review[0]


def test_what_is_highly_suspicious_is_flagged_though_it_is_less_sure() -> None:
    many: dict[str, Any] = {"n_spots": 15, "n_irregular": 15, "density_per_cm2": 30.0, "size_cv": 0.5, "n_thin": 1}
    assert suspicion_of(**many) >= SETTINGS.high_suspicion
    assert assessed(**many, confidence=1.01 * SETTINGS.min_confidence_high).review[0]
    assert not assessed(**many, confidence=0.99 * SETTINGS.min_confidence_high).review[0]


def test_loose_smooth_round_spots_are_not_flagged() -> None:
    assert not assessed(n_irregular=0, morphology=Morphology.ROUND).review[0]


# --- words


def test_reasons_say_number_area_and_irregular_ones() -> None:
    assert assessed(n_spots=14, n_irregular=9, area_mm2=60.0).reasons[0] == "14 spots in 0.6 cm2, 9 of them irregular"
    assert assessed(n_spots=14, area_mm2=60.0).reasons[0] == "14 spots in 0.6 cm2"
    assert assessed(n_spots=4, area_mm2=8.3).reasons[0] == "4 spots in 8 mm2"


def test_reasons_name_thin_lines_small_spots_and_arrangement() -> None:
    words = assessed(n_thin=3, n_irregular=3, n_unresolved=5, distribution=Distribution.LINEAR).reasons[0].split("|")
    assert words[0] == "8 spots in 0.8 cm2, 3 of them irregular"
    assert "3 thin or branching lines" in words
    assert "most too small for their shape to be told" in words
    assert "linear arrangement" in words
    assert "1 thin or branching line" in assessed(n_thin=1, n_irregular=1).reasons[0].split("|")


def test_suggestions() -> None:
    assert assessed(n_irregular=8).suggestion[0] == Suggestion.CLOSER_VIEWS
    assert assessed(morphology=Morphology.ROUND, density_per_cm2=3.0).suggestion[0] == Suggestion.BENIGN_FORM
    assert assessed(morphology=Morphology.NONE, density_per_cm2=3.0).suggestion[0] == Suggestion.COMPARE


@given(
    st.integers(3, 40),
    st.sampled_from(Morphology),
    st.sampled_from(Distribution),
    st.floats(0, 1),
    st.lists(st.integers(0, 40), min_size=3, max_size=3),
)
def test_nothing_is_ever_said_that_only_a_radiologist_may_say(
    n: int, form: Morphology, distribution: Distribution, confidence: float, counts: list[int]
) -> None:
    n_irregular, n_unresolved, n_thin = (min(c, n) for c in counts)
    clusters = assessed(
        n_spots=n,
        n_irregular=n_irregular,
        n_unresolved=min(n_unresolved, n - n_irregular),
        n_thin=min(n_thin, n_irregular),
        morphology=form,
        distribution=distribution,
        confidence=confidence,
    )
    for words in (clusters.reasons[0], clusters.words("suggestion")[0]):
        assert not re.search(NEVER, words, re.IGNORECASE), words
    assert clusters.words("suggestion")[0] in {
        "closer views",
        "compare with earlier images",
        "benign form, radiologist to confirm",
    }
    assert bool(clusters.review[0]) == (clusters.suggestion[0] == Suggestion.CLOSER_VIEWS)


# --- the table


def test_no_clusters_stay_none() -> None:
    assert len(assess_clusters(Spots.empty(), Clusters.empty(), SETTINGS)) == 0


def test_only_its_own_columns_are_written() -> None:
    before = clusters_of(3, n_irregular=[0, 4, 8])
    after = assess_clusters(Spots.empty(), before, SETTINGS)
    own = {c.name for c in Clusters.columns() if c.room == "assess"}
    assert own == {"suspicion", "review", "reasons", "suggestion"}
    assert after.replace(**{name: getattr(before, name) for name in own}) == before
    assert np.all(np.diff(after.suspicion) > 0)
    assert [len(r) > 0 for r in after.reasons.tolist()] == [True] * 3
