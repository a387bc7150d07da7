"""Which solver: by name, or chosen from the structure of a program, with the reason in words."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from decigrad import native
from decigrad.program import Diagonal, LowRank, QuadraticProgram, Solver

__all__ = ["NAMES", "by_name", "choose"]

# Measured on one thread, batches of 128, in ms of compiled active set / DAQP / interior point. Diagonal with
# 5 rows, n = 100: 8 / 20 / 30, n = 200: 13 / 100 / 40, n = 400: 42 / 380 / 100; with 120 rows, n = 400:
# 500 / 1540 / 6320; low rank n = 30: 3 / 10 / 14, n = 100: 13 / 104 / 37; dense n = 50: 4 / 35 / 490. The
# interior point compiles first, for 10 to 20 s. In seconds of compiled active set / interior point, batches
# of 8: dense n = 1500: 0.9 / 28; a grid of 1984 edges and 1023 equalities: 5.6 / 13; low rank n = 2000:
# 0.5 / 0.6; diagonal n = 2000 with one row: 0.21 / 0.02.
_DENSE = 1000
"""Variables above which structure is worth more than a compiled dense active set, and DAQP is too slow."""

_LARGE = 2000
"""Variables above which the factors of the compiled active set, n² numbers each, take too much memory."""

# Without the compiled core:
_LOW_RANK = 60
"""Variables from which the interior point wins on curvature of low rank: a step costs no more than a system
of the rank, while an active set grows with the variables."""

_DIAGONAL = 200
"""Variables from which it wins on diagonal curvature, as long as there are few rows."""

_FEW = 10
"""Variables for each row, at least."""


def choose(program: QuadraticProgram) -> tuple[Solver, str]:
    """A solver for this class of programs and the reason for it.

    Args:
        program: single or batched; only its static facts are read (shapes, operator types, batch axes,
            `integer`, `linear`), so it may hold JAX tracers.

    Raises:
        ValueError: for a quadratic objective with integer variables where SCIP is not installed.
    """
    n = program.n
    if program.integer and not program.linear:
        if find_spec("pyscipopt") is None:
            raise ValueError(
                f"a quadratic objective with {len(program.integer)} integer variables (MIQP) needs SCIP: pip "
                "install 'decigrad[scip]'. Or state the objective linearly (abs, maximum are reformulated as "
                "linear programs), or relax the integers to continuous variables"
            )
        return _scip(), f"SCIP: {len(program.integer)} integer variables, quadratic objective"
    if program.integer:
        return _highs(), f"HiGHS: {len(program.integer)} integer variables, linear objective"
    if program.linear:
        return _highs(), "HiGHS: the objective is linear, so a vertex is optimal and simplex finds it exactly"
    compiled = native.missing() is None
    if n > (_DENSE if not compiled or _structured(program) else _LARGE):
        return _interior_point(), f"interior point: a quadratic program of {n} variables"
    leaves = (*vars(program.P).values(), program.A.matrix, program.G.matrix)
    shared = program.q.ndim == 1 or all(leaf.shape[0] == 1 for leaf in leaves)
    matrices = "one factorization serves the batch" if shared else "matrices that differ by sample"
    if compiled:
        return _active_set(), f"active set, compiled: a quadratic program of {n} variables, {matrices}"
    return _without_core(program) or (
        _daqp(),
        f"DAQP: a small quadratic program ({n} variables), {matrices}; the compiled core is not installed",
    )


def _structured(program: QuadraticProgram) -> bool:
    """Whether the interior point has less to do than with dense matrices of all variables."""
    rows = program.num_equalities + program.num_inequalities
    return isinstance(program.P, Diagonal | LowRank) and _FEW * rows <= program.n


def _without_core(program: QuadraticProgram) -> tuple[Solver, str] | None:
    """Where the interior point beats DAQP."""
    n, rows = program.n, program.num_equalities + program.num_inequalities
    if isinstance(program.P, LowRank) and n >= _LOW_RANK and 2 * program.P.factor.shape[-2] <= n:
        rank = program.P.factor.shape[-2]
        why = f"interior point: the curvature is diagonal plus rank {rank} of {n} variables"
        return _interior_point(), why
    if isinstance(program.P, Diagonal) and n >= _DIAGONAL and _FEW * rows <= n:
        return _interior_point(), f"interior point: the curvature is diagonal with {n} variables, {rows} rows"
    return None


def by_name(name: str | Solver, *, program: QuadraticProgram | None = None) -> tuple[Solver, str]:
    """The solver called `name` (one of `NAMES`) and the reason; a solver as it is.

    Args:
        name: a name from `NAMES`, or a solver of your own.
        program: read by "auto", and checked against what the solver refuses; required for "auto".

    Raises:
        ValueError: for an unknown name, or where the solver refuses the program.
        TypeError: for something that is neither a name nor a solver.
    """
    if isinstance(name, str) and name == "auto":
        if program is None:
            raise ValueError('solver="auto" chooses by the program: pass program=')
        return choose(program)
    if isinstance(name, str):
        if name not in _MAKERS:
            raise ValueError(
                f"unknown solver {name!r}: choose one of {', '.join(map(repr, NAMES))} or pass a solver"
            )
        solver = _MAKERS[name]()
    elif callable(name) and hasattr(name, "refuses") and hasattr(name, "host"):
        solver = name
    else:
        raise TypeError(
            f"solver must be one of {', '.join(map(repr, NAMES))} or a solver object, got {name!r}"
        )
    if program is not None and (reason := solver.refuses(program)):
        raise ValueError(f"solver {solver.name!r} does not take this program: {reason}")
    return solver, f"{solver.name}: asked for"


def _daqp() -> Solver:
    from decigrad.solvers.daqp import DAQP

    return DAQP()


def _active_set() -> Solver:
    from decigrad.solvers.active_set import ActiveSet

    return ActiveSet()


def _highs() -> Solver:
    from decigrad.solvers.highs import HiGHS

    return HiGHS()


def _interior_point() -> Solver:
    from decigrad.solvers.interior_point import InteriorPoint

    return InteriorPoint()


def _scip() -> Solver:
    from decigrad.solvers.scip import SCIP

    return SCIP()


_MAKERS: dict[str, Callable[[], Solver]] = {
    "active-set": _active_set,
    "daqp": _daqp,
    "highs": _highs,
    "interior-point": _interior_point,
    "scip": _scip,
}
NAMES = ("auto", *_MAKERS)
"""The names that `by_name` knows."""
