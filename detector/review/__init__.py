"""Review by readers: decisions kept and never changed, served with the review pages on this machine, and compared."""

from detector.review.decisions import Decision, read_decisions, write_decisions
from detector.review.server import Review, ReviewServer
from detector.review.store import STORE, Store

__all__ = ["STORE", "Decision", "Review", "ReviewServer", "Store", "read_decisions", "write_decisions"]
