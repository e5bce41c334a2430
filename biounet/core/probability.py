"""Probabilities are 16-bit integers between network and labels: their sums are exact, whatever the tiling."""

PROBABILITY_MAX = 65535
"""Probability 1."""
