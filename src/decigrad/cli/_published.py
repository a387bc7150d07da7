"""The figures that the tutorial prints, as it prints them.

Source: the discopt tutorial "Decision-Focused Learning with discopt" (seed 42). A matrix is on one line, its
rows separated by a slash.
"""

from __future__ import annotations

_COUPLED = "-0.3333 0.1667 0.1667 / 0.1667 -0.3333 0.1667 / 0.1667 0.1667 -0.3333"

ALLOCATION = {
    "first sample's true costs": "1.01 1.742 0.248",
    "cost range, from": "-0.70",
    "cost range, to": "2.26",
    "cost spread": "1.14",
    "oracle, average cost": "0.5058",
    "oracle, lowest cost": "-0.7039",
    "oracle, highest cost": "0.9834",
    "two-stage, train MSE": "0.8664",
    "two-stage, test MSE": "1.4504",
    "two-stage, average cost": "0.6545",
    "two-stage, average regret": "0.1486",
    "two-stage, max regret": "0.8628",
    "costs .8 1 1.2: x*": "0.4333 0.3333 0.2333",
    "costs .8 1 1.2: objective": "1.3133",
    "costs .8 1 1.2: dx*/dc": _COUPLED,
    "training loss, epoch 1": "0.6435",
    "training loss, epoch 2": "0.6292",
    "training loss, epoch 3": "0.6166",
    "training loss, epoch 4": "0.6062",
    "training loss, epoch 5": "0.5980",
    "training loss, epoch 6": "0.5916",
    "training loss, epoch 7": "0.5863",
    "training loss, epoch 8": "0.5813",
    "training loss, epoch 9": "0.5765",
    "training loss, epoch 10": "0.5716",
    "training loss, reduction": "0.0719",
    "derivatives found, per epoch": "30/30",
    "trained, test MSE": "1.4688",
    "trained, average cost": "0.6010",
    "trained, average regret": "0.0952",
    "trained, max regret": "0.7278",
    "regret reduction": "36.0%",
    "two-stage weights, activity 1": "0.45 -0.05 -0.2 -0.2 -0.38",
    "two-stage weights, activity 2": "0.04 0.32 -0.57 0.22 -0.61",
    "two-stage weights, activity 3": "-0.31 0.06 0. -0.38 -0.17",
    "trained weights, activity 1": "0.61 -0.11 -0.19 -0.16 -0.43",
    "trained weights, activity 2": "0.09 0.38 -0.65 0.29 -0.63",
    "trained weights, activity 3": "-0.51 0.07 0.07 -0.5 -0.11",
    "relative weight change": "0.268",
    "two-stage, cheapest right": "12/15 (80%)",
    "trained, cheapest right": "13/15 (87%)",
    "test instance 0: true costs": "0.464 1.578 0.957",
    "test instance 0: cheapest": "1",
    "test instance 0: x*": "0.6012 0.0441 0.3547",
    "test instance 0: objective": "1.1775",
    "test instance 0: d obj*/dc": "0.6012 0.0441 0.3547",
    "test instance 0: dx*/dc": _COUPLED,
}
"""Part 1: the resource allocation."""

PORTFOLIO = {
    "oracle, average utility": "-0.4688",
    "two-stage, average utility": "-0.5563",
    "two-stage, average regret": "0.0875",
    "two-stage, test MSE": "0.3842",
    "training loss, epoch 1": "0.5463",
    "training loss, epoch 2": "0.5458",
    "training loss, epoch 3": "0.5450",
    "training loss, epoch 4": "0.5452",
    "training loss, epoch 5": "0.5444",
    "training loss, epoch 6": "0.5440",
    "training loss, epoch 7": "0.5438",
    "training loss, epoch 8": "0.5430",
    "training loss, epoch 9": "0.5428",
    "training loss, epoch 10": "0.5427",
    "derivatives found, per epoch": "30/30",
    "trained, test MSE": "0.4051",
    "trained, average utility": "-0.5641",
    "trained, average regret": "0.0953",
    "regret reduction": "-8.9%",
}
"""Part 2: the portfolio."""
