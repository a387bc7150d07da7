"""Routing: the symmetric traveling salesman, and vehicles of limited capacity; by cutting planes."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from decigrad.errors import ModelError
from decigrad.oracles.cutting_planes import ROUNDING, Cut, CuttingPlanes
from decigrad.oracles.fixed import FixedArray, finite, positive
from decigrad.oracles.protocol import LinearOracle
from decigrad.program import Array, QuadraticProgram


@dataclass(frozen=True)
class TSP(LinearOracle):
    """The symmetric traveling salesman problem.

    minimize cᵀx over the indicators x [B, E] of tours through all cities; costs c [B, E] of any sign on the
    edges of the complete graph, E = num_cities · (num_cities − 1) / 2, ordered (0, 1), (0, 2), …, (1, 2), …

    Args:
        num_cities: at least 3.

    Ties: costs are raised by fixed amounts of up to 2.4e-10 of the largest, which decide; an answer may cost
    2.4e-10 · max|c| · num_cities more than the best tour.

    Subtour cuts, shared by all costs, then branching; on the host. Exact, so the time for one sample has no
    bound; some milliseconds for 20 cities. Source: Dantzig, Fulkerson and Johnson (1954), "Solution of a
    large-scale traveling-salesman problem", Operations Research 2, doi:10.1287/opre.2.4.393.
    """

    num_cities: int

    name = "tsp"
    host: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_cities", positive("num_cities", self.num_cities))
        if self.num_cities < 3:
            raise ModelError(f"a tour needs at least 3 cities, got {self.num_cities}")

    def size(self) -> int:
        """Number of edges."""
        return self.num_cities * (self.num_cities - 1) // 2

    def edges(self) -> np.ndarray:
        """The edges [E, 2] as pairs of cities, in the order of the costs."""
        return _complete(self.num_cities)

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Tour indicators [B, E]."""
        return _tours(self).minimize(cost)


@functools.lru_cache(maxsize=16)
def _tours(tsp: TSP) -> CuttingPlanes:
    n, graph = tsp.num_cities, _Graph(tsp.num_cities)

    def separate(x: Array) -> list[Cut]:
        edges = graph.support(x)
        parts = graph.components(edges)
        if len(parts) == 1:
            if all(value > 1.0 - ROUNDING for _, _, value in edges):
                return []
            parts = [s for s, value in graph.small_cuts(edges) if value < 2.0 - ROUNDING]
        smaller = [s if 2 * len(s) <= n else sorted(set(range(n)) - set(s)) for s in parts]
        # Of two complementary sets of one size, each is the smaller: the one with city 0 stands for both.
        chosen = [sorted(set(range(n)) - set(s)) if 2 * len(s) == n and 0 not in s else s for s in smaller]
        return list(dict.fromkeys((graph.inside(s), len(s) - 1.0) for s in chosen))

    degree = np.full(n, 2.0)
    return CuttingPlanes(graph.incidence(), degree, degree, np.ones(tsp.size()), separate)


@dataclass(frozen=True)
class CVRP(LinearOracle):
    """Vehicle routes of limited capacity.

    minimize cᵀx over integer x [B, E] on the edges of the complete graph of the depot 0 and the customers
    1, …, num_customers, ordered (0, 1), (0, 2), …, (1, 2), …: at most `vehicles` closed routes through the
    depot that visit every customer once and load at most `capacity` each. x is 1 on used edges, and 2 on the
    edge to the only customer of a route. Costs c [B, E] of any sign.

    Args:
        num_customers: at least 1.
        demands: [num_customers], not negative, none above the capacity.
        capacity: of each vehicle.
        vehicles: how many there are; all need not be used.
        single: whether a route may visit a single customer; without such routes x is binary.

    A sample gets NaN if the demands cannot be packed. Ties: as for `TSP`.

    Rounded capacity cuts, shared by all costs, then branching; on the host. For about fifteen customers:
    beyond, the time for a sample grows from tenths of a second to minutes.
    Source: Laporte, Nobert and Desrochers (1985), "Optimal routing under capacity and distance restrictions",
    Operations Research 33, doi:10.1287/opre.33.5.1050.
    """

    num_customers: int
    demands: Any
    capacity: float
    vehicles: int
    single: bool = True

    name = "cvrp"
    host: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_customers", positive("num_customers", self.num_customers))
        object.__setattr__(self, "vehicles", positive("vehicles", self.vehicles))
        object.__setattr__(self, "capacity", float(finite("capacity", [self.capacity], 1)[0]))
        demands = finite("demands", self.demands, 1)
        if len(demands) != self.num_customers:
            raise ModelError(f"{self.num_customers} customers need as many demands, got {len(demands)}")
        if demands.min() < 0 or self.capacity <= 0:
            raise ModelError(
                f"demands must not be negative and the capacity positive, "
                f"got {demands.min():g} and {self.capacity:g}"
            )
        if demands.max() > self.capacity * (1.0 + _LOAD):
            raise ModelError(f"a demand of {demands.max():g} exceeds the capacity of {self.capacity:g}")
        object.__setattr__(self, "demands", FixedArray(demands))

    def size(self) -> int:
        """Number of edges."""
        return self.num_customers * (self.num_customers + 1) // 2

    def edges(self) -> np.ndarray:
        """The edges [E, 2] as pairs of nodes, in the order of the costs."""
        return _complete(self.num_customers + 1)

    def minimize(self, cost: Array, program: QuadraticProgram) -> Array:
        """Uses of the edges [B, E]."""
        return _routes(self).minimize(cost)


_LOAD = 1e-9
"""How far, relative to it, a load may exceed a capacity: decimals such as 0.1 are not exact."""


@functools.lru_cache(maxsize=16)
def _routes(cvrp: CVRP) -> CuttingPlanes:
    n, graph = cvrp.num_customers + 1, _Graph(cvrp.num_customers + 1)
    demand = [0.0, *np.asarray(cvrp.demands).tolist()]

    def trips(customers: Sequence[int]) -> int:
        """A lower bound on the vehicles that serve a set."""
        return max(1, math.ceil(sum(demand[i] for i in customers) / cvrp.capacity - _LOAD))

    def separate(x: Array) -> list[Cut]:
        edges = graph.support(x)
        among = [edge for edge in edges if edge[0] > 0]
        sets = [part for part in graph.components(among) if part != [0]]
        if not all(abs(value - round(value)) <= ROUNDING for _, _, value in edges):
            sides = (s for s, _ in graph.small_cuts(edges))
            sets += [sorted(set(range(n)) - set(s)) if 0 in s else s for s in sides]
            sets += [s for s, weight in _grown(n, among) if weight > len(s) - trips(s) + ROUNDING]
        violated: dict[Cut, None] = {}
        for s in sets:
            limit = float(len(s) - trips(s))
            columns = graph.inside(s)
            if columns and x[list(columns)].sum() > limit + ROUNDING:
                violated[columns, limit] = None
        return list(violated)

    # 2 for every customer, at most two for every vehicle at the depot
    lower, above = np.full(n, 2.0), np.full(n, 2.0)
    lower[0], above[0] = 0.0, 2.0 * cvrp.vehicles
    upper = np.where(_complete(n)[:, 0] == 0, 2.0 if cvrp.single else 1.0, 1.0)
    return CuttingPlanes(graph.incidence(), lower, above, upper, separate)


# --------------------------------------------------------------------------------------- sets of nodes

Edge = tuple[int, int, float]


def _complete(n: int) -> np.ndarray:
    return np.array(list(itertools.combinations(range(n), 2)))


class _Graph:
    """The complete graph on n nodes: its columns, and the sets of nodes that a solution calls in question."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.edges = list(itertools.combinations(range(n), 2))
        self.column = {edge: e for e, edge in enumerate(self.edges)}

    def incidence(self) -> np.ndarray:
        """Nodes by edges, [n, E]."""
        matrix = np.zeros((self.n, len(self.edges)))
        for e, edge in enumerate(self.edges):
            matrix[edge, e] = 1.0
        return matrix

    def inside(self, nodes: Sequence[int]) -> tuple[int, ...]:
        """Columns of the edges between `nodes`, which are in ascending order."""
        return tuple([self.column[edge] for edge in itertools.combinations(nodes, 2)])

    def support(self, x: Array) -> list[Edge]:
        """The edges that a solution uses, with how much."""
        used = np.flatnonzero(x > ROUNDING)
        return [(*self.edges[e], value) for e, value in zip(used.tolist(), x[used].tolist(), strict=True)]

    def components(self, edges: Iterable[Edge]) -> list[list[int]]:
        """Connected sets of nodes, each in ascending order."""
        parent = list(range(self.n))

        def root(i: int) -> int:
            while parent[i] != i:
                i = parent[i]
            return i

        for i, j, _ in edges:
            parent[root(j)] = root(i)
        found: dict[int, list[int]] = {}
        for i in range(self.n):
            found.setdefault(root(i), []).append(i)
        return list(found.values())

    def small_cuts(self, edges: list[Edge]) -> Iterator[tuple[list[int], float]]:
        """Sets of nodes with the weight of the edges that leave them; the least such weight is among them.

        Nodes that an edge of weight 1 joins are merged first, which leaves a handful.

        Source: Stoer and Wagner (1997), "A simple min-cut algorithm", Journal of the ACM 44,
        doi:10.1145/263867.263872.
        """
        parts = self.components(edge for edge in edges if edge[2] > 1.0 - ROUNDING)
        label = {i: k for k, part in enumerate(parts) for i in part}
        groups = dict(enumerate(parts))
        weight: dict[int, dict[int, float]] = {k: {} for k in groups}
        for i, j, value in edges:
            a, b = label[i], label[j]
            if a != b:
                weight[a][b] = weight[b][a] = weight[a].get(b, 0.0) + value
        while len(groups) > 1:
            first = next(iter(groups))
            reach = {k: weight[first].get(k, 0.0) for k in groups if k != first}
            before, last, leaving = first, first, 0.0
            while reach:
                before, last = last, max(reach, key=reach.__getitem__)
                leaving = reach.pop(last)
                for k, value in weight[last].items():
                    if k in reach:
                        reach[k] += value
            yield sorted(groups[last]), leaving
            groups[before] = groups[before] + groups.pop(last)
            for k, value in weight.pop(last).items():
                del weight[k][last]
                if k != before:
                    weight[before][k] = weight[k][before] = weight[before].get(k, 0.0) + value


def _grown(n: int, edges: Iterable[Edge]) -> Iterator[tuple[list[int], float]]:
    """Sets that grow from each customer by the neighbor with the strongest ties, and the ties inside."""
    tie = np.zeros((n, n))
    for i, j, value in edges:
        tie[i, j] = tie[j, i] = value
    for start in range(1, n):
        members, strength, weight = [start], tie[start].copy(), 0.0
        strength[start] = -np.inf
        while strength[other := int(np.argmax(strength))] > 0.0:
            members.append(other)
            weight += float(strength[other])
            strength += tie[other]
            strength[other] = -np.inf
            yield sorted(members), weight
