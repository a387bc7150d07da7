"""Oracles: exact solvers of one linear problem, by cost batch; each is a `Solver` for `DecisionLayer`."""

from decigrad.oracles.combinatorial import Assignment as Assignment
from decigrad.oracles.combinatorial import IntervalScheduling as IntervalScheduling
from decigrad.oracles.combinatorial import SpanningTree as SpanningTree
from decigrad.oracles.external import Gurobi as Gurobi
from decigrad.oracles.external import ORTools as ORTools
from decigrad.oracles.grids import GridPath as GridPath
from decigrad.oracles.grids import NodeGridPath as NodeGridPath
from decigrad.oracles.knapsack import Knapsack as Knapsack
from decigrad.oracles.knapsack import MultiKnapsack as MultiKnapsack
from decigrad.oracles.paths import DagPath as DagPath
from decigrad.oracles.paths import GraphPath as GraphPath
from decigrad.oracles.portfolio import Portfolio as Portfolio
from decigrad.oracles.protocol import LinearOracle as LinearOracle
from decigrad.oracles.protocol import Oracle as Oracle
from decigrad.oracles.routing import CVRP as CVRP
from decigrad.oracles.routing import TSP as TSP
from decigrad.oracles.sets import Enumeration as Enumeration
from decigrad.oracles.sets import Ranking as Ranking
from decigrad.oracles.sets import Simplex as Simplex
from decigrad.oracles.sets import TopK as TopK
