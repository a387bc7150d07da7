"""Grid paths against enumeration, HiGHS and NetworkX."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from oracles.reference import answer, assert_first_minimizer, costs, indicators, subsets
from scipy.optimize import linprog

from decigrad.errors import ModelError
from decigrad.oracles import GridPath, NodeGridPath


def edge_order(rows: int, cols: int) -> list[tuple[int, int]]:
    """The edges in the order of PyEPO, as `shortestPathModel` of its package lists them."""
    arcs = []
    for i in range(rows):
        arcs += [(i * cols + j, i * cols + j + 1) for j in range(cols - 1)]
        if i < rows - 1:
            arcs += [(i * cols + j, (i + 1) * cols + j) for j in range(cols)]
    return arcs


def all_paths(rows: int, cols: int) -> np.ndarray:
    """Every path as edge indicators; those that come from the left at their end first."""
    position = {arc: e for e, arc in enumerate(edge_order(rows, cols))}
    moves = sorted(set(itertools.permutations("a" * (cols - 1) + "d" * (rows - 1))), key=lambda m: m[::-1])
    paths = []
    for move in moves:
        nodes = list(itertools.accumulate((1 if m == "a" else cols for m in move), initial=0))
        paths.append([position[arc] for arc in itertools.pairwise(nodes)])
    return indicators(paths, len(position))


@pytest.mark.parametrize(("rows", "cols"), [(5, 4), (3, 4), (4, 2), (2, 2), (1, 6), (5, 1), (1, 2)])
def test_grid_path_is_the_first_of_all_paths(rows, cols):
    oracle = GridPath(rows, cols)
    np.testing.assert_array_equal(oracle.edges(), edge_order(rows, cols))
    cost = costs(np.random.default_rng(rows + 10 * cols), 2000, oracle.size())
    assert_first_minimizer(answer(oracle, cost), cost, all_paths(rows, cols))


def test_large_grid_path_against_a_linear_program():
    oracle, rng = GridPath(20, 20), np.random.default_rng(0)
    edges = oracle.edges()
    flow = np.zeros((400, len(edges)))
    flow[edges[:, 0], np.arange(len(edges))] = 1
    flow[edges[:, 1], np.arange(len(edges))] = -1
    supply = np.zeros(400)
    supply[[0, -1]] = 1, -1
    cost = costs(rng, 32, len(edges))
    x = answer(oracle, cost)
    np.testing.assert_array_equal(x @ flow.T, np.tile(supply, (32, 1)))
    assert np.isin(x, (0.0, 1.0)).all()
    for c, found in zip(cost[::4], x[::4], strict=True):
        best = linprog(c, A_eq=flow, b_eq=supply, bounds=(0, 1), method="highs")
        assert c @ found == pytest.approx(best.fun, abs=1e-9)


def king_graph(rows: int, cols: int) -> nx.DiGraph:
    """A grid whose nodes are joined to their eight neighbors."""
    graph = nx.DiGraph()
    cells = list(itertools.product(range(rows), range(cols)))
    graph.add_nodes_from(range(rows * cols))
    for (i, j), (k, l) in itertools.permutations(cells, 2):
        if max(abs(i - k), abs(j - l)) == 1:
            graph.add_edge(i * cols + j, k * cols + l)
    return graph


@pytest.mark.parametrize(("rows", "cols"), [(3, 3), (2, 4), (4, 2), (1, 5), (5, 1)])
def test_node_grid_path_is_the_first_of_all_paths(rows, cols):
    oracle, n = NodeGridPath(rows, cols), rows * cols
    found = list(nx.all_simple_paths(king_graph(rows, cols), 0, n - 1))
    points = indicators(sorted(found, key=lambda path: (len(path), path[::-1])), n)
    cost = costs(np.random.default_rng(n), 2000, n, low=0.0)
    assert_first_minimizer(answer(oracle, cost), cost, points)


def test_node_grid_path_of_a_large_grid():
    """A map with walls makes paths that turn back; the value is that of Dijkstra's method."""
    rng, rows, cols = np.random.default_rng(1), 12, 9
    oracle, graph = NodeGridPath(rows, cols), king_graph(rows, cols)
    cost = rng.integers(0, 4, (20, rows, cols)).astype(float)
    cost[:10, 2::4, 1:] = 1000.0
    cost[:10, 4::4, :-1] = 1000.0
    cost = cost.reshape(20, -1)
    x = answer(oracle, cost)
    for c, found in zip(cost, x, strict=True):
        length = nx.dijkstra_path_length(graph, 0, rows * cols - 1, weight=lambda u, v, _, c=c: c[v])
        assert c @ found == length + c[0]
        assert nx.has_path(graph.subgraph(np.flatnonzero(found)), 0, rows * cols - 1)
    assert x[0].sum() > 2 * rows


def test_node_grid_path_where_everything_is_free():
    x = answer(NodeGridPath(6, 6), np.zeros((2, 36)))
    np.testing.assert_array_equal(x, np.tile(np.eye(6).ravel(), (2, 1)))
    np.testing.assert_array_equal(answer(NodeGridPath(1, 1), np.ones((2, 1))), np.ones((2, 1)))


def test_a_negative_node_cost_fails_its_sample_alone():
    cost = np.ones((3, 12))
    cost[1, 5] = -0.1
    x = answer(NodeGridPath(3, 4), cost)
    assert np.isnan(x[1]).all()
    np.testing.assert_array_equal(x[[0, 2]].sum(axis=1), 4)


@pytest.mark.parametrize(("rows", "cols"), [(2, 3), (3, 3), (1, 4)])
def test_a_cover_is_the_best_of_all_sets_that_contain_a_path(rows, cols):
    oracle, n = NodeGridPath(rows, cols, cover=True), rows * cols
    paths = indicators(list(nx.all_simple_paths(king_graph(rows, cols), 0, n - 1)), n)
    sets = subsets(n)
    covers = sets[((sets[:, None] >= paths[None]).all(axis=2)).any(axis=1)]
    cost = costs(np.random.default_rng(n), 300, n)
    x = answer(oracle, cost)
    assert (covers[None] == x[:, None]).all(axis=2).any(axis=1).all()
    np.testing.assert_allclose((cost * x).sum(axis=1), (cost @ covers.T).min(axis=1), atol=1e-12)
    np.testing.assert_array_equal(answer(oracle, abs(cost)), answer(NodeGridPath(rows, cols), abs(cost)))


@pytest.mark.parametrize("kind", [GridPath, NodeGridPath])
@pytest.mark.parametrize("size", [(0, 3), (3, -1), (2.5, 3), (True, 3), ("2", 3)])
def test_sizes_are_checked(kind, size):
    with pytest.raises(ModelError, match="must be an integer of at least 1"):
        kind(*size)


def test_a_grid_of_one_node_has_no_edges():
    with pytest.raises(ModelError, match="no edges"):
        GridPath(1, 1)
