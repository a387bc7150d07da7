"""Oracles: exact solvers of one linear problem, by cost batch; each is a `Solver` for `DecisionLayer`."""

from decigrad.oracles.protocol import LinearOracle as LinearOracle
from decigrad.oracles.protocol import Oracle as Oracle
