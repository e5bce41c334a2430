"""Probabilities are 16-bit integers between network and labels.

Sums of integers are exact in any order, so that results do not depend on the tiling.
"""

PROBABILITY_MAX = 65535
"""Probability 1."""
