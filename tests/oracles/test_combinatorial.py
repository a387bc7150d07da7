"""Assignments, spanning trees and intervals against enumeration and NetworkX."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from oracles.reference import answer, assert_first_minimizer, costs, subsets

from decigrad.errors import ModelError
from decigrad.oracles import Assignment, GridPath, IntervalScheduling, SpanningTree


@pytest.mark.parametrize(("rows", "cols"), [(4, 4), (3, 5), (5, 3), (1, 3), (1, 1)])
def test_assignment_is_the_best_of_all(rows, cols):
    oracle = Assignment(rows, cols)
    few, many = sorted((rows, cols))
    points = []
    for choice in itertools.permutations(range(many), few):
        table = np.zeros((few, many))
        table[np.arange(few), choice] = 1
        points.append((table if rows <= cols else table.T).ravel())
    cost = costs(np.random.default_rng(rows), 500, oracle.size())
    x = answer(oracle, cost)
    assert (x[:, None] == np.array(points)).all(axis=2).any(axis=1).all()
    np.testing.assert_allclose((cost * x).sum(1), (cost @ np.transpose(points)).min(1), atol=1e-12)


def test_assignment_is_square_unless_told():
    assert Assignment(4) == Assignment(4, 4)
    assert Assignment(4).host


@pytest.mark.parametrize("seed", range(4))
def test_spanning_tree_is_that_of_kruskal(seed):
    rng = np.random.default_rng(seed)
    num_nodes = int(rng.integers(2, 9))
    chain = np.stack([np.arange(num_nodes - 1), np.arange(1, num_nodes)], axis=1)
    edges = np.concatenate([rng.integers(0, num_nodes, (12, 2)), chain])
    edges = edges[edges[:, 0] != edges[:, 1]]
    oracle = SpanningTree(num_nodes, edges)
    cost = costs(rng, 200, len(edges))
    x = answer(oracle, cost)
    for c, found in zip(cost, x, strict=True):
        graph = nx.MultiGraph()
        for e, (u, v) in enumerate(edges.tolist()):
            graph.add_edge(u, v, key=e, weight=c[e])
        tree = nx.minimum_spanning_edges(graph, algorithm="kruskal", data=False)
        assert sum(c[e] for *_, e in tree) == pytest.approx(c @ found, abs=1e-12)
        assert nx.is_tree(graph.edge_subgraph((u, v, e) for u, v, e in graph.edges if found[e]))


def test_spanning_trees_break_ties_by_the_order_of_the_edges():
    edges = [(0, 1), (1, 2), (2, 0), (0, 1), (2, 3), (3, 0)]
    cost = np.array([[1.0, 1, 1, 1, 1, 1], [1, 0, 0, 0, 1, 0], [-1, -2, -2, -1, -2, -2]])
    expected = [[1, 1, 0, 0, 1, 0], [0, 1, 1, 0, 0, 1], [0, 1, 1, 0, 1, 0]]
    np.testing.assert_array_equal(answer(SpanningTree(4, edges), cost), expected)


def test_spanning_tree_of_a_large_grid():
    edges = GridPath(12, 15).edges()
    cost = costs(np.random.default_rng(0), 6, len(edges))
    for c, found in zip(cost, answer(SpanningTree(180, edges), cost), strict=True):
        graph = nx.Graph()
        graph.add_weighted_edges_from((u, v, w) for (u, v), w in zip(edges.tolist(), c, strict=True))
        tree = nx.minimum_spanning_tree(graph, algorithm="prim")
        assert tree.size(weight="weight") == pytest.approx(c @ found, abs=1e-9)
        assert found.sum() == 179


@pytest.mark.parametrize("seed", range(4))
def test_interval_scheduling_is_the_first_of_all_subsets(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 10))
    starts = rng.integers(-5, 10, n)
    ends = starts + rng.integers(1, 7, n)
    apart = (ends[:, None] <= starts) | (ends <= starts[:, None]) | np.eye(n, dtype=bool)
    cost = costs(rng, 500, n)
    order = np.argsort(ends, kind="stable")
    by_end = subsets(n)  # their members in the order of the ends
    by_end = by_end[[apart[np.ix_(order[p > 0], order[p > 0])].all() for p in by_end]]
    x = answer(IntervalScheduling(starts, ends), cost)
    assert_first_minimizer(x[:, order], cost[:, order], by_end)
    assert not x[cost >= 0].any()


def test_sets_are_checked():
    for make, message in [
        (lambda: Assignment(0), "rows must be"),
        (lambda: Assignment(3, -1), "cols must be"),
        (lambda: SpanningTree(3, [(0, 1)]), "not connected: no path joins nodes 0 and 2"),
        (lambda: SpanningTree(3, [(0, 1), (1, 1), (1, 2)]), "edge 1 joins node 1 to itself"),
        (lambda: SpanningTree(2, [(0, 2)]), "nodes are 0 to 1"),
        (lambda: IntervalScheduling([0, 1], [1]), "differ in number: 2 and 1"),
        (lambda: IntervalScheduling([0, 1], [1, 1]), r"interval 1 must end after its start: it is \[1, 1\)"),
        (lambda: IntervalScheduling([0, np.inf], [1, 2]), "infinite"),
        (lambda: IntervalScheduling([], []), "nonempty"),
    ]:
        with pytest.raises(ModelError, match=message):
            make()
