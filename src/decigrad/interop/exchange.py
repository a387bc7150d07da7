"""Models of elsewhere: MPS and LP files, in and out, and the models of packages that write such files.

HiGHS reads and writes the files, so what it understands is what is understood: linear and quadratic
objectives, linear rows with one or two sides, bounds, integer and binary columns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from decigrad.errors import ModelError
from decigrad.interop.files import Imported, imported, read
from decigrad.model import Model
from decigrad.solvers.highs import instance, stated

__all__ = ["Imported", "from_gurobi", "from_linopy", "from_lp", "from_mps", "from_pyomo", "to_lp", "to_mps"]

Places = str | tuple[str, Any]


def from_mps(path: str | Path, parameters: Mapping[str, Places] | None = None) -> Imported:
    """A model from an MPS file (free or fixed; `.mps`, `.mps.gz`), some of its numbers as parameters.

    Arguments:
        path: of the file.
        parameters: by the name of a new parameter, which numbers it holds: a kind, or a kind with names,

            "cost"                                   the objective's coefficients of all columns
            ("cost", ["x1", "x2"])                   of some columns, in this order
            ("cost", "flow_*")                       of the columns that match a pattern, in the file's order
            ("rhs", ["demand1"])                     right-hand sides of rows
            ("coefficients", [("row", "column")])    entries of the matrix
            ("lower", [...]), ("upper", [...])       bounds of columns

            A parameter is a vector in that order; its value is what the file says, so that the model solves
            as it is, and `layer({"cost": ...})` replaces it.

    Raises:
        FileNotFoundError: no such file.
        ModelError: the file cannot be read; a name is not in it; the right-hand side of a row with two sides
            or none, or an infinite bound, is asked for as a parameter; a number stands in two parameters.

    Example: `benchmark = dg.from_mps("plan.mps", parameters={"price": ("cost", "buy_*")})`, then
    `dg.DecisionLayer(benchmark.model)`.
    """
    return imported(read(Path(path), (".mps", ".mps.gz"), "from_mps"), dict(parameters or {}))


def from_lp(path: str | Path, parameters: Mapping[str, Places] | None = None) -> Imported:
    """A model from a file in CPLEX's LP format (`.lp`, `.lp.gz`); see `from_mps`."""
    return imported(read(Path(path), (".lp", ".lp.gz"), "from_lp"), dict(parameters or {}))


def from_pyomo(model: Any, parameters: Mapping[str, Places] | None = None) -> Imported:
    """A linear or quadratic Pyomo model, as it is now; see `from_mps`. Names are Pyomo's: `flow(1,2)` for
    `flow[1,2]`. Pyomo's own parameters are numbers by then: name the places that they fill."""
    with _file("model.lp") as path:
        model.write(str(path), format="lp_v2", io_options={"symbolic_solver_labels": True})
        return from_lp(path, parameters)


def from_linopy(model: Any, parameters: Mapping[str, Places] | None = None) -> Imported:
    """A linopy model, as it is now; see `from_mps`. Names are linopy's in files that it writes."""
    with _file("model.lp") as path:
        model.to_file(path, explicit_coordinate_names=True)
        return from_lp(path, parameters)


def from_gurobi(model: Any, parameters: Mapping[str, Places] | None = None) -> Imported:
    """A gurobipy model without quadratic or general constraints, as it is now; see `from_mps`."""
    for kind in ("NumQConstrs", "NumGenConstrs", "NumSOS"):
        if getattr(model, kind):
            raise ModelError(
                f"from_gurobi: the model has {kind} = {getattr(model, kind)}: only linear constraints"
            )
    with _file("model.mps") as path:
        model.write(str(path))
        return from_mps(path, parameters)


def to_mps(model: Model, path: str | Path, params: Mapping[str, Any] | None = None) -> None:
    """Write the model at parameter values (default: each parameter's own) as an MPS file.

    Columns are named `x(0,1)` after variables and positions (brackets mean something else in LP files),
    auxiliary ones of piecewise-linear terms `aux(k)`; rows after constraints. A maximization is written as
    the minimization of its negative.
    """
    _write(model, Path(path), ".mps", params)


def to_lp(model: Model, path: str | Path, params: Mapping[str, Any] | None = None) -> None:
    """Write the model at parameter values as a file in CPLEX's LP format; see `to_mps`."""
    _write(model, Path(path), ".lp", params)


_IN_FILES = str.maketrans({"[": "(", "]": ")", " ": None})


@contextmanager
def _file(name: str) -> Iterator[Path]:
    """A path in a folder of its own, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="decigrad-") as folder:
        yield Path(folder) / name


def _write(model: Model, path: Path, ending: str, params: Mapping[str, Any] | None) -> None:
    import highspy

    if path.suffix.lower() != ending:
        raise ModelError(f"{path.name!r} must end in {ending}")
    form = model.form
    program = form.assemble(model.values(params)).numpy()
    none = np.full(program.num_inequalities, -np.inf)
    lp = stated(
        program.q, np.concatenate([program.A.matrix, program.G.matrix]), np.concatenate([program.b, none]),
        np.concatenate([program.b, program.h]), program.lb, program.ub,
    )  # fmt: skip
    lp.offset_, lp.model_name_ = float(program.r), model.name.translate(_IN_FILES)
    lp.col_names_ = _column_names(model, program.n)
    lp.row_names_ = [
        form.describe(kind, i).translate(_IN_FILES)
        for kind, count in (("equality", program.num_equalities), ("inequality", program.num_inequalities))
        for i in range(count)
    ]
    if program.integer:
        types = highspy.HighsVarType
        lp.integrality_ = [types.kInteger if whole else types.kContinuous for whole in program.is_integer]
    highs = instance({})
    highs.passModel(lp)
    if not program.linear:
        lower = np.tril(program.P.dense())
        column, row = np.nonzero(lower.T)
        start = np.searchsorted(column, np.arange(program.n)).astype(np.int32)
        highs.passHessian(
            program.n,
            len(row),
            highspy.HessianFormat.kTriangular,
            start,
            row.astype(np.int32),
            lower[row, column],
        )
    if highs.writeModel(str(path)) == highspy.HighsStatus.kError:
        raise ModelError(f"HiGHS could not write {str(path)!r}: is the folder there, and room?")


def _column_names(model: Model, n: int) -> list[str]:
    names: list[str] = []
    for name, variable in model.variables.items():
        places = np.ndindex(variable.shape)
        names += [f"{name}({','.join(map(str, at))})" if at else name for at in places]
    return names + [f"aux({k})" for k in range(n - len(names))]
