"""The benchmarks: their reference is right, processes fail alone, journals resume, slopes fit."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path

import daqp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks/ stands beside tests/

from benchmarks import harness, layers, layers_report, scaling, training
from benchmarks.peers import SYSTEMS
from benchmarks.programs import ROWS, Cell, program
from benchmarks.reference import Reference, reference, reference_samples


def simplex(cost: np.ndarray) -> np.ndarray:
    """argmin ‖x‖² + c·x over shares: the projection of −c/2, by sorting."""
    v = np.sort(-cost / 2.0)[::-1]
    level = (np.cumsum(v) - 1.0) / np.arange(1, len(v) + 1)
    return np.maximum(-cost / 2.0 - level[v > level][-1], 0.0)


def decided(p, cost: np.ndarray) -> np.ndarray:
    """DAQP called directly."""
    G, h = p.rows
    C, upper = np.vstack([p.A, G]), np.concatenate([p.b, h])
    lower = np.concatenate([p.b, np.full(len(h), -1e30)])
    sense = np.concatenate([np.full(len(p.b), 5), np.zeros(len(h))]).astype(np.int32)
    bounds = np.full(p.n, 1e20)
    x, _, flag, _ = daqp.solve(
        p.P.copy(), cost.copy(), C, np.concatenate([bounds, upper]), np.concatenate([-bounds, lower]),
        np.concatenate([np.zeros(p.n, np.int32), sense]), primal_tol=1e-12,
    )  # fmt: skip
    assert flag > 0
    return np.asarray(x)


def test_reference_of_the_tutorials_program_is_the_projection_on_the_simplex():
    p = program(Cell("a", 16))
    known = reference(p, 16)
    assert known.sure.all()
    for cost, x, gradient in zip(p.cost, known.x, known.gradient, strict=True):
        np.testing.assert_allclose(x, simplex(cost), atol=1e-14)
        step = 1e-6 * np.eye(3)
        moved = [np.sum(simplex(cost + s) ** 2) - np.sum(simplex(cost - s) ** 2) for s in step]
        np.testing.assert_allclose(gradient, np.array(moved) / 2e-6, atol=1e-8)


@pytest.mark.parametrize(
    "cell", [Cell("b", 3), Cell("c", 2, 40), Cell("d", 3), Cell("d", 1, 144), Cell("e", 3)], ids=str
)
def test_reference_is_what_another_solver_finds_and_its_differences(cell):
    p = program(cell)
    known = reference(p, cell.batch)
    assert known.sure.all()
    np.testing.assert_allclose(known.x, [decided(p, cost) for cost in p.cost], atol=1e-9)
    direction = np.random.default_rng(0).normal(size=p.n)
    for cost, gradient in zip(p.cost, known.gradient, strict=True):
        ahead, behind = (np.sum(decided(p, cost + s * 1e-5 * direction) ** 2) for s in (1.0, -1.0))
        assert gradient @ direction == pytest.approx((ahead - behind) / 2e-5, rel=1e-4, abs=1e-4)


def test_programs_have_the_sizes_of_the_rows():
    for row, size in {"a": 3, "b": 50, "c": 200, "d": 40, "e": 100}.items():
        p = program(Cell(row, 2))
        assert (p.n, ROWS[row].size, p.cost.shape) == (size, size, (2, size))
        np.testing.assert_array_equal(p.cost, program(Cell(row, 5)).cost[:2])
        if p.factor is not None:
            np.testing.assert_allclose(np.diag(p.diagonal) + p.factor.T @ p.factor, p.P)
    assert reference_samples(Cell("b", 4096)) == 128
    assert reference_samples(Cell("b", 4096, 1000)) == 2


def test_a_process_that_raises_hangs_or_dies_costs_its_own_question_alone():
    process = harness.Process()
    try:
        first = process.ask(os.getpid, limit=60.0)
        assert first != os.getpid()
        assert process.ask(os.getenv, "OMP_NUM_THREADS", limit=60.0) == "1"
        if hasattr(os, "sched_getaffinity"):
            assert len(process.ask(os.sched_getaffinity, 0, limit=60.0)) == 1
        with pytest.raises(harness.Failure, match="ValueError: "):
            process.ask(math.sqrt, -1.0, limit=60.0)
        assert process.ask(os.getpid, limit=60.0) == first
        with pytest.raises(harness.Failure, match="over 0 s"):
            process.ask(time.sleep, 60.0, limit=0.2)
        second = process.ask(os.getpid, limit=60.0)
        assert second != first
        with pytest.raises(harness.Failure, match="died"):
            process.ask(os._exit, 3, limit=60.0)
        assert process.ask(os.getpid, limit=60.0) not in (first, second)
    finally:
        process.end()


def test_journal_finds_again_what_was_measured_with_the_same_settings(tmp_path):
    harness.Journal(tmp_path, {"repeat": 3})["cell"] = {"seconds": 0.5}
    again = harness.Journal(tmp_path, {"repeat": 3})
    assert again["cell"] == {"seconds": 0.5}
    assert "other" not in again
    assert "cell" not in harness.Journal(tmp_path, {"repeat": 4})
    assert "cell" not in harness.Journal(tmp_path, {"repeat": 3}, fresh=True)


def test_errors_count_what_is_wrong_and_what_is_missing():
    exact = Reference(np.zeros((4, 2)), np.ones((4, 2)), np.array([True, True, True, False]))
    x, gradient = np.zeros((4, 2)), np.ones((4, 2))
    x[0, 1], gradient[1, 0], gradient[2] = 1e-3, 1.5, np.nan
    x[3] = 7.0  # not counted: the reference is not sure
    found = layers.errors(x, gradient, exact)
    assert found["error_x"] == pytest.approx(1e-3)
    assert found["error_gradient"] == pytest.approx(0.25)
    assert (found["off"], found["failed"], found["compared"], found["unsure"]) == (1, 1, 2, 1)


def test_slow_systems_are_skipped_by_what_smaller_cells_took(tmp_path):
    session = layers.Session([], harness.Journal(tmp_path, {}), 3, limit=10.0, budget=1.0)
    session._remember("qpth", Cell("b", 32), {"wall": {"median": 1.0}})
    assert session._reason("qpth", Cell("b", 128)) is None
    assert "16 s" in session._reason("qpth", Cell("b", 512))
    assert session._reason("qpth", Cell("b", 32, 150)) is not None  # 3^2.5 = 15.6
    assert session._reason("qpth", Cell("d", 4096)) is None
    session._remember("qpth", Cell("e", 1), {"missing": "over 10 s"})
    assert session._reason("qpth", Cell("e", 2)) is not None


def test_slope_is_the_exponent_of_a_power_law():
    sizes = np.array([3, 10, 100, 1000])
    assert harness.slope(sizes, 7.0 * sizes**2.5) == pytest.approx(2.5)


def test_ratio_table_takes_the_fastest_accurate_of_ours_and_the_fastest_peer():
    def entry(system: str, seconds: float, error: float) -> dict:
        figures = {"wall": {"median": seconds, "q1": 0, "q3": 0}, "error_x": error, "error_gradient": error}
        return {"system": system, "row": "b", "n": 50, "batch": 128, "headline": True, **figures}

    text = layers_report.ratios([
        entry("decigrad", 1e-3, 1e-5), entry("decigrad, daqp", 2e-3, 1e-12), entry("qpth", 3e-2, 1e-4),
        entry("proxsuite", 5e-2, 1e-4), entry("Moreau, jit", 8e-3, 1e-12), entry("Moreau", 4e-3, 1e-12),
    ])  # fmt: skip
    assert "decigrad, daqp: 2 |" in text and "15.0 (qpth" in text
    assert "4.0 (Moreau, jit" in text


def test_machine_is_described_by_cores_and_instruction_set_alone():
    assert harness.machine().split(",")[0].split()[0].isdigit()
    assert not set(harness.machine().lower().split()) & {"amd", "intel", "epyc", "xeon"}


def test_training_table_shows_ratios_regrets_and_what_is_missing():
    def times(seconds: float) -> dict:
        return {"median": seconds, "q1": seconds, "q3": seconds, "min": seconds}

    row = {"name": "grid", "peer name": "PyEPO", "own": times(0.004), "peer": times(0.4), "apart": 1e-9}
    regrets = {"own regret": [7.0, 8.0], "peer regret": [8.0, 8.5], "epochs": 20, "unit": "%"}
    lost = {"name": "energy", "peer name": "PyEPO", "missing": "needs a file"}
    text = training.table([{**row, **regrets}, lost])
    assert "| 100 | 1e-09 | 7.50 ± 0.71 / 8.25 ± 0.35 % after 20 |" in text
    assert "needs a file" in text


def test_scaling_page_states_exponents_memory_and_cores():
    def point(part: str, size: int, seconds: float, peak: float = 1e8, cores: int = 1) -> dict:
        return {"part": part, "size": size, "cores": cores, "peak": peak, "seconds": {"median": seconds}}

    found = [point("batch b", b, 1e-3 * b**0.5) for b in (1, 16, 256)]
    found += [{**point("samples", n, 1e-6 * n, 1e8 + 700 * n), "samples": n} for n in (10**3, 10**5, 10**6)]
    found += [point("cores b", 0, 0.4 / cores, cores=cores) for cores in (1, 2)]
    found += [{"part": "variables a", "size": 9, "cores": 1, "missing": "over 900 s"}]
    text = scaling.text(found, {"python": "3"})
    assert "| batch b | 1 to 256 | 0.50 | 0.50 |" in text
    assert "| samples | 1,000 to 1,000,000 | 1.00 | 1.00 |" in text and "700 bytes a sample" in text
    assert "| b | 400 | 200 | 2.00 |" in text
    assert "variables a, 9: over 900 s" in text


@pytest.mark.slow
def test_quick_run_measures_and_resumes(tmp_path, capsys):
    arguments = ["--quick", "--systems", "decigrad, daqp"]
    arguments += ["--journal", str(tmp_path / "journal"), "--out", str(tmp_path / "out")]
    layers.main(arguments)
    found = json.loads((tmp_path / "out" / "layers.json").read_text())["entries"]
    assert [e["system"] for e in found] == ["decigrad, daqp"]
    assert found[0]["error_gradient"] < 1e-12 and found[0]["failed"] == 0
    assert (tmp_path / "out" / "layers.svg").exists()
    before = found[0]["wall"]
    layers.main(arguments)  # from the journal: the same numbers
    again = json.loads((tmp_path / "out" / "layers.json").read_text())["entries"]
    assert again[0]["wall"] == before
    assert "decigrad, daqp" in capsys.readouterr().out


def test_every_system_says_what_it_is():
    assert {s.kind for s in SYSTEMS.values()} == {"own", "peer", "Moreau"}
    assert SYSTEMS["decigrad, active-set, within jit"].takes(Cell("a", 1), False)
    assert not SYSTEMS["decigrad, active-set, within jit"].takes(Cell("a", 128), True)
    assert SYSTEMS["discopt"].scale(Cell("a", 128)) == 32.0
