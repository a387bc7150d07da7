"""Paths in directed graphs against enumeration and NetworkX."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from oracles.reference import answer, assert_first_minimizer, costs, indicators

from decigrad.errors import ModelError
from decigrad.oracles import DagPath, GraphPath, GridPath


def paths_of(edges: np.ndarray, source: int, target: int) -> list[list[int]]:
    """All simple paths as lists of edge positions."""
    graph = nx.MultiDiGraph()
    for e, (u, v) in enumerate(edges.tolist()):
        graph.add_edge(u, v, key=e)
    return [[e for *_, e in path] for path in nx.all_simple_edge_paths(graph, source, target)]


def random_dag(rng: np.random.Generator, num_nodes: int, num_edges: int) -> tuple[np.ndarray, int, int]:
    """A graph with shuffled names and parallel edges, and two nodes joined by a path."""
    name = rng.permutation(num_nodes)
    while True:
        pairs = np.sort(rng.integers(0, num_nodes, (num_edges, 2)), axis=1)
        edges = name[pairs[pairs[:, 0] < pairs[:, 1]]]
        source, target = int(name[0]), int(name[-1])
        if len(edges) and {source, target} <= set(edges.ravel().tolist()) and paths_of(edges, source, target):
            return edges, source, target


@pytest.mark.parametrize("seed", range(4))
def test_dag_path_is_the_first_of_all_paths(seed):
    rng = np.random.default_rng(seed)
    num_nodes = int(rng.integers(3, 12))
    edges, source, target = random_dag(rng, num_nodes, int(rng.integers(num_nodes, 40)))
    oracle = DagPath(num_nodes, edges, source, target)
    points = indicators(sorted(paths_of(edges, source, target), key=lambda p: p[::-1]), len(edges))
    cost = costs(rng, 400, len(edges))
    assert_first_minimizer(answer(oracle, cost), cost, points)


def test_dag_path_with_many_edges_into_one_node():
    """Every second node is an alternative of the same length, and the last one takes twenty edges."""
    middle = np.arange(1, 21)
    edges = np.stack(
        [np.concatenate([0 * middle, middle]), np.concatenate([middle, 0 * middle + 21])], axis=1
    )
    cost = costs(np.random.default_rng(0), 500, 40)
    points = indicators([(e, 20 + e) for e in range(20)], 40)
    for oracle in (DagPath(22, edges, 0, 21), GraphPath(22, edges, 0, 21)):
        assert_first_minimizer(answer(oracle, cost), cost, points)


@pytest.mark.parametrize("kind", [DagPath, GraphPath])
def test_paths_of_a_grid_cost_what_the_grid_oracle_says(kind):
    grid = GridPath(9, 7)
    order = np.random.default_rng(0).permutation(grid.size())
    oracle = kind(63, grid.edges()[order], 0, 62)
    cost = costs(np.random.default_rng(1), 300, grid.size())
    x = answer(oracle, cost[:, order])
    np.testing.assert_allclose((cost[:, order] * x).sum(1), (cost * answer(grid, cost)).sum(1), atol=1e-12)
    np.testing.assert_array_equal(x.sum(axis=1), 14)


def no_negative_cycle(rng: np.random.Generator, edges: np.ndarray, batch: int) -> np.ndarray:
    """Integer costs of both signs: nonnegative ones, shifted by a potential of the nodes."""
    potential = rng.integers(-4, 5, (batch, edges.max() + 1))
    return rng.integers(0, 4, (batch, len(edges))) + potential[:, edges[:, 1]] - potential[:, edges[:, 0]]


@pytest.mark.parametrize("seed", range(4))
def test_graph_path_is_the_first_of_all_paths(seed):
    rng = np.random.default_rng(seed)
    num_nodes = int(rng.integers(3, 8))
    chain = np.stack([np.arange(num_nodes - 1), np.arange(1, num_nodes)], axis=1)
    edges = np.concatenate([rng.integers(0, num_nodes, (int(rng.integers(1, 14)), 2)), chain])
    oracle = GraphPath(num_nodes, edges, 0, num_nodes - 1)
    points = indicators(
        sorted(paths_of(edges, 0, num_nodes - 1), key=lambda p: (len(p), p[::-1])), len(edges)
    )
    cost = no_negative_cycle(rng, edges, 300)
    assert (cost < 0).any()
    assert_first_minimizer(answer(oracle, cost), cost, points)


@pytest.mark.parametrize("seed", range(3))
def test_graph_path_fails_where_a_negative_cycle_is_on_the_way(seed):
    rng = np.random.default_rng(seed)
    num_nodes = 7
    chain = np.stack([np.arange(num_nodes - 1), np.arange(1, num_nodes)], axis=1)
    edges = np.concatenate([chain, rng.integers(0, num_nodes, (6, 2))])
    edges = edges[edges[:, 0] != edges[:, 1]]
    target = 5  # node 6 may lie beyond it
    cost = rng.integers(-1, 4, (200, len(edges)))
    x = answer(GraphPath(num_nodes, edges, 0, target), cost)
    paths = indicators(paths_of(edges, 0, target), len(edges))
    broken = 0
    for c, found in zip(cost, x, strict=True):
        graph = nx.MultiDiGraph()
        for (u, v), weight in zip(edges.tolist(), c.tolist(), strict=True):
            graph.add_edge(u, v, weight=weight)
        between = (nx.descendants(graph, 0) | {0}) & (nx.ancestors(graph, target) | {target})
        if nx.negative_edge_cycle(graph.subgraph(between).copy()):
            assert np.isnan(found).all()
            broken += 1
        else:
            assert c @ found == (paths @ c).min()
            assert (paths == found).all(axis=1).any()
    assert 0 < broken < 200


def test_a_negative_cycle_off_the_way_does_no_harm():
    edges = [(0, 1), (1, 2), (2, 1), (3, 0), (0, 3), (1, 1), (4, 4)]
    cost = np.array([[1.0, -2.0, -2.0, 1.0, 1.0, -5.0, -5.0]])
    # The cycle 1-2-1 cannot reach node 3; a loop is on no path, whatever it costs.
    np.testing.assert_array_equal(answer(GraphPath(5, edges, 0, 3), cost), [[0, 0, 0, 0, 1, 0, 0]])


@pytest.mark.parametrize("kind", [DagPath, GraphPath])
def test_graphs_are_checked(kind):
    edges = [(0, 1), (1, 2)]
    for arguments, message in [
        ((0, edges, 0, 2), "num_nodes must be"),
        ((2, edges, 0, 1), r"edge 1 is \(1, 2\): nodes are 0 to 1"),
        ((3, [(0, -1), (1, 2)], 0, 2), r"edge 0 is \(0, -1\)"),
        ((3, [(0, 1, 2)], 0, 2), r"pairs of nodes"),
        ((3, [(0, 1.5)], 0, 2), "must be integers"),
        ((3, [(0, np.nan)], 0, 2), "NaN"),
        ((3, [], 0, 2), "nonempty"),
        ((3, [("a", "b")], 0, 2), "needs numbers"),
        ((3, edges, 0, 3), "target must be a node from 0 to 2, got 3"),
        ((3, edges, 0.5, 2), "source must be a node"),
        ((3, edges, 1, 1), "same node"),
        ((3, edges, 2, 0), "no path leads from source 2 to target 0"),
    ]:
        with pytest.raises(ModelError, match=message):
            kind(*arguments)


def test_a_cycle_is_refused_anywhere_in_the_graph():
    for edges in ([(0, 1), (1, 0)], [(0, 1), (1, 1)], [(0, 1), (2, 3), (3, 4), (4, 2)]):
        with pytest.raises(ModelError, match="cycle at or before node"):
            DagPath(5, edges, 0, 1)


def test_a_table_that_would_not_fit_is_refused():
    middle = np.arange(1, 10_000)
    edges = np.stack([np.concatenate([0 * middle, middle]), np.concatenate([middle, 0 * middle + 10_000])], 1)
    with pytest.raises(ModelError, match="too many for this oracle"):
        GraphPath(10_001, edges, 0, 10_000)
