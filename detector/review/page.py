"""The page that shows how far readers agree."""

from __future__ import annotations

import math
from pathlib import Path

from detector.batch.cases import run_of
from detector.evaluate.uncertainty import Estimate
from detector.export.pages import render_page
from detector.review.agreement import agreements, tallies
from detector.review.store import Store


def agreement_page(folder: Path, store: Store, reviewer: str) -> str:
    """Return the page as HTML; a reader sees only what concerns things that he has decided himself.

    Parameters
    ----------
    folder : Path
        The result folder.
    store : Store
    reviewer : str
        Empty shows nothing.
    """
    kept = store.all()
    own = {decision.subject for decision, _ in kept if decision.reviewer == reviewer and decision.decision}
    seen = [(decision, received) for decision, received in kept if decision.subject in own]
    targets = [("cluster", "Clusters"), ("case", "Whole cases")]
    return render_page(
        "agreement.html",
        run_of(folder),
        (),
        reviewer=reviewer,
        tallies=tallies(seen),
        groups=[(words, agreements(seen, target)) for target, words in targets],
        kappa_words=_words,
    )


def _words(kappa: Estimate) -> str:
    if math.isnan(kappa.value):
        return "kappa is not defined: both used one word alone"
    interval = "" if math.isnan(kappa.low) else f" (95 % interval {kappa.low:.2f} to {kappa.high:.2f})"
    return f"kappa {kappa.value:.2f}{interval}; {kappa.note}"
