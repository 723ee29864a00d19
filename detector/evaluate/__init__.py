"""Is it any good: phantoms, insertion, data-set readers, scoring."""
