"""Which solver is chosen, why, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from solvers.programs import boxed, dense, everything_varies, knapsack, low_rank, simplex, transport

import decigrad.solvers
from decigrad import native
from decigrad.solvers import DAQP, ActiveSet, HiGHS, by_name, choose

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("make", "arguments", "name", "reason"),
    [
        (dense, (4,), "active-set", "one factorization"),
        (simplex, (4, 3), "active-set", "compiled"),
        (dense, (1, 1001, 0, 0), "active-set", "1001"),
        (boxed, (1, 1001), "interior-point", "1001"),
        (boxed, (4, 240), "active-set", "one factorization"),
        (low_rank, (4, 80), "active-set", "80 variables"),
        (everything_varies, (4,), "active-set", "differ by sample"),
        (transport, (4,), "highs", "linear"),
        (knapsack, (2,), "highs", "integer"),
    ],
)
def test_choice_and_reason(make, arguments, name, reason):
    if name == "active-set" and native.missing():
        pytest.skip("needs the compiled core")
    solver, why = choose(make(RNG, *arguments))
    assert solver.name == name
    assert reason in why


@pytest.mark.parametrize(
    ("make", "arguments", "name", "reason"),
    [
        (dense, (4,), "daqp", "not installed"),
        (simplex, (4, 3), "daqp", "small"),
        (boxed, (4, 80), "daqp", "one factorization"),
        (boxed, (4, 240), "interior-point", "diagonal"),
        (low_rank, (4, 15), "daqp", "small"),
        (low_rank, (4, 80), "interior-point", "rank 3"),
        (everything_varies, (4,), "daqp", "differ by sample"),
    ],
)
def test_choice_without_the_compiled_core(make, arguments, name, reason, monkeypatch):
    monkeypatch.setattr(native, "missing", lambda: "no compiler")
    solver, why = choose(make(RNG, *arguments))
    assert solver.name == name
    assert reason in why


def test_the_largest_programs_go_to_the_interior_point(monkeypatch):
    monkeypatch.setattr("decigrad.solvers.automatic._LARGE", 11)
    solver, why = choose(dense(RNG))
    assert solver.name == "interior-point"
    assert "12 variables" in why
    monkeypatch.setattr("decigrad.solvers.automatic._DENSE", 11)
    monkeypatch.setattr(native, "missing", lambda: "no compiler")
    assert choose(dense(RNG))[0].name == "interior-point"


def test_integers_with_a_quadratic_objective_need_scip(monkeypatch):
    monkeypatch.setattr("decigrad.solvers.automatic.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"MIQP.*decigrad\[scip\]"):
        choose(replace(boxed(RNG), integer=(0, 1)))


def test_by_name():
    p = dense(RNG)
    assert by_name("daqp")[0] == DAQP()
    assert by_name("highs")[0] == HiGHS()
    assert by_name("auto", program=p)[0] == (DAQP() if native.missing() else ActiveSet())
    own = DAQP(max_iterations=3)
    assert by_name(own, program=p)[0] is own
    with pytest.raises(ValueError, match="'auto', 'active-set', 'daqp', 'highs', 'interior-point', 'scip'"):
        by_name("gurobi")
    with pytest.raises(TypeError, match="solver object"):
        by_name(3)
    with pytest.raises(ValueError, match="quadratic"):
        by_name("highs", program=p)
    with pytest.raises(ValueError, match="program="):
        by_name("auto")


def test_names_are_exported_lazily():
    assert decigrad.solvers.HiGHS is HiGHS
    with pytest.raises(AttributeError, match="Simplex"):
        decigrad.solvers.Simplex  # noqa: B018
    code = "import sys, decigrad.solvers; print(any(m in sys.modules for m in ('highspy', 'daqp')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
