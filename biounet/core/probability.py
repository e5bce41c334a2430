"""Probabilities are integers of 16 bits, 0 … 65535, from the network to the labels.

Sums and comparisons of integers are exact in any order, so that results do not depend on how an image was tiled.
"""

PROBABILITY_MAX = 65535
"""Probability 1."""
