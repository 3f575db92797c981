"""What is made of measurements: medians, spreads, percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of them are; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def spread(values: Sequence[float]) -> float:
    """Half the distance between the quartiles, relative to the median."""
    middle = median(values)
    return (percentile(values, 0.75) - percentile(values, 0.25)) / 2 / middle if middle else 0.0
