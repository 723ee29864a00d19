"""Finds calcifications on mammograms, measures and groups them, and flags groups for a radiologist's review."""
