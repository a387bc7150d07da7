"""From a model's expressions to the waist: coefficients are extracted structurally, once, on the host.

`canonicalize` fixes the sparse pattern of every block of the program and which entries depend on which
parameters; `CanonicalForm.assemble` fills the values in, as NumPy arrays or as a traceable JAX function of
the parameters. What does not depend on a parameter is a constant, shared by every batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from decigrad.canonical.atoms import check_atoms
from decigrad.canonical.blocks import Block, block
from decigrad.canonical.curvature import Factor, check_convex, quadratic
from decigrad.canonical.rows import RowGroup, Rows, bound_blocks, placed
from decigrad.canonical.rules import Walk
from decigrad.expressions.constraint import Constraint
from decigrad.expressions.expression import Expression, Parameter, Variable, evaluate
from decigrad.program import Dense, Diagonal, LowRank, Operator, QuadraticProgram


@dataclass(frozen=True)
class CanonicalForm:
    """The pattern of a model's program. `assemble` fills in the values.

    `offsets` and `variables` lay the user's variables out in x, in order of declaration and C order within
    each; auxiliary variables of piecewise-linear terms follow from `num_user` on.
    """

    variables: dict[str, Variable]
    parameters: dict[str, Parameter]
    offsets: dict[str, int]
    num_user: int
    blocks: dict[str, Block]
    factors: tuple[Factor, ...]
    curvature: str  # "zero", "diagonal", "low-rank" or "dense"
    integer: tuple[int, ...]
    rows: tuple[RowGroup, ...]
    declared_bounds: np.ndarray  # [2, n] bool: the bound at lb / ub is the variable's own
    cache: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """Compiled functions of this structure, kept by whoever compiles them."""

    @property
    def n(self) -> int:
        return self.blocks["q"].shape[0]

    @property
    def linear(self) -> bool:
        return self.curvature == "zero"

    def depends(self, *names: str) -> frozenset[str]:
        """Parameters that enter the named parts of the program: P, q, r, A, b, G, h, lb, ub."""
        found: set[str] = set()
        for name in names:
            found |= self.blocks[name].depends
            if name == "P":
                for factor in self.factors:
                    for block in (factor.left, factor.right, factor.weight):
                        found |= block.depends if block is not None else set()
        return frozenset(found)

    def assemble(self, values: dict[str, Any], xp: Any = np) -> QuadraticProgram:
        """The single program at the given parameter values (dict of arrays shaped like the parameters)."""
        blocks = list(self.blocks.items())
        for number, factor in enumerate(self.factors):
            blocks += [((number, "left"), factor.left), ((number, "weight"), factor.weight)]  # type: ignore[list-item]
            if factor.right is not None:
                blocks.append(((number, "right"), factor.right))  # type: ignore[arg-type]
        roots = [value for _, block in blocks for _, value in block.pieces]
        given = {name: xp.asarray(value) for name, value in values.items()}
        found = iter(evaluate(roots, given, xp) if roots else [])
        part: dict[Any, Any] = {
            name: block.fill([next(found) for _ in block.pieces], xp) for name, block in blocks
        }
        return QuadraticProgram(
            P=self._curvature(part),
            q=part["q"],
            r=part["r"],
            A=Dense(part["A"]),
            b=part["b"],
            G=Dense(part["G"]),
            h=part["h"],
            lb=part["lb"],
            ub=part["ub"],
            integer=self.integer,
            linear=self.linear,
        )

    def _curvature(self, part: dict[Any, Any]) -> Operator:
        if self.curvature in ("zero", "diagonal"):
            return Diagonal(part["P"])
        if self.curvature == "low-rank":
            return LowRank(part["P"], part[0, "left"], 2.0 * part[0, "weight"])
        P = part["P"]
        for number, factor in enumerate(self.factors):
            left, weight = part[number, "left"], part[number, "weight"][:, None]
            if factor.right is None:
                P = P + 2.0 * left.T @ (weight * left)
            else:
                half = left.T @ (weight * part[number, "right"])
                P = P + half + half.T
        return Dense(P)

    def split(self, x: Any) -> dict[str, Any]:
        """x [..., n] as a dict of the user's variables, each [..., *shape]."""
        lead = x.shape[:-1]
        return {
            name: x[..., start : start + self.variables[name].size].reshape(lead + self.variables[name].shape)
            for name, start in self.offsets.items()
        }

    def multipliers(self, y: Any, z: Any, w: Any) -> dict[str, np.ndarray]:
        """Multipliers [...] by constraint name, and of declared bounds as "x.lb" and "x.ub"."""
        upper, lower = np.maximum(w, 0.0), np.maximum(-w, 0.0)
        sources, lead = (y, z, upper, lower), w.shape[:-1]
        duals: dict[str, np.ndarray] = {}
        for group in self.rows:
            total: Any = 0.0
            for kind, position, factor in group.parts:
                values = np.zeros((*lead, kind.size))
                for code, source in enumerate(sources):
                    values[..., kind == code] = source[..., position[kind == code]]
                total = total + (values / factor).reshape(lead + group.shape)
            duals[group.name] = np.asarray(total)
        for side, own in zip(("lb", "ub"), (lower, upper), strict=True):
            kept = np.where(self.declared_bounds[int(side == "ub")], own, 0.0)
            for name, variable in self.variables.items():
                span = slice(self.offsets[name], self.offsets[name] + variable.size)
                duals[f"{name}.{side}"] = kept[..., span].reshape(lead + variable.shape)
        return duals

    def describe(self, kind: str, position: int) -> str:
        """A row of the program, by kind ("equality", … "upper bound") and position, in the user's words."""
        code = {"equality": 0, "inequality": 1, "upper bound": 2, "lower bound": 3}[kind]
        if code < 2 or not self.declared_bounds[3 - code, position]:
            for group in self.rows:
                for kinds, positions, _ in group.parts:
                    hit = np.flatnonzero((kinds == code) & (positions == position))
                    if hit.size:
                        return f"{group.name}{_entry(hit[0], group.shape)}"
        for name, start in reversed(self.offsets.items()):
            if start <= position < start + self.variables[name].size and code >= 2:
                return f"{kind} of {name}{_entry(position - start, self.variables[name].shape)}"
        return f"{kind} {position} of a piecewise-linear term"


def _entry(position: int, shape: tuple[int, ...]) -> str:
    return str([int(i) for i in np.unravel_index(int(position), shape)]) if shape else ""


def canonicalize(
    variables: dict[str, Variable],
    parameters: dict[str, Parameter],
    objective: Expression,
    constraints: list[Constraint],
) -> CanonicalForm:
    """The canonical form of: minimize objective subject to constraints.

    Raises:
        UnsupportedModelError: a term leaves the class of convex quadratic and mixed-integer linear
            programs; the message names the term and the constraint.
        NonConvexError: the curvature is constant and has a negative eigenvalue.
    """
    offsets, total = {}, 0
    for name, variable in variables.items():
        offsets[name] = total
        total += variable.size
    walk = Walk(offsets, total)
    goal = placed(walk, objective, "the objective")
    rows = Rows(walk, bound_blocks(variables, total))
    for constraint in constraints:
        rows.add(constraint)
    rows.add_epigraph()
    check_atoms(walk, goal, "the objective")
    n = walk.columns
    pairs, factors, curvature = quadratic(goal, n)
    blocks = {
        "q": block((n,), *[(t.cols, t.value) for t in goal.linear]),
        "r": block((), (np.zeros(1, int), goal.constant)),
        "P": pairs,
        **rows.blocks(n),
    }
    integer = tuple(
        position
        for name, v in variables.items()
        if v.kind != "continuous"
        for position in range(offsets[name], offsets[name] + v.size)
    )
    form = CanonicalForm(
        variables=variables,
        parameters=parameters,
        offsets=offsets,
        num_user=total,
        blocks=blocks,
        factors=factors,
        curvature=curvature,
        integer=integer,
        rows=tuple(rows.groups),
        declared_bounds=np.pad(rows.declared, ((0, 0), (0, n - total)), constant_values=True),
    )
    if not form.depends("P"):
        check_convex(form.assemble(_placeholders(parameters)).P)
    return form


def _placeholders(parameters: dict[str, Parameter]) -> dict[str, np.ndarray]:
    return {name: np.ones(p.shape) for name, p in parameters.items()}
