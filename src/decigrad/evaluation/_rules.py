"""The thresholds of a diagnosis' verdict, and how its outcomes are called."""

CLEAR = 2.0
"""Standard errors beyond which a difference counts."""
WORTH = 0.05
"""Share of the two-stage regret below which a gain is not worth the effort."""
NEGLIGIBLE = 1e-3
"""Regret below this share of the mean absolute optimal value is none."""

OUTLOOKS = {"gain": "It may help.", "none": "Unlikely to help.", "unclear": "Cannot tell."}
