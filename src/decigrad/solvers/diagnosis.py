"""Why a program has no solution: certificates, conflicting constraints, rays, negative curvature.

A program is infeasible exactly when multipliers prove it (Farkas): there are y, z ≥ 0, w⁻ ≥ 0, w⁺ ≥ 0 with

    Aᵀy + Gᵀz − w⁻ + w⁺ = 0   and   bᵀy + hᵀz − lbᵀw⁻ + ubᵀw⁺ < 0,

for then every feasible x would give 0 ≤ a negative number. They are found by one linear program in a box,
which always has a solution. A feasible convex program is unbounded exactly when a direction d exists with

    P d = 0,  qᵀd < 0,  A d = 0,  G d ≤ 0,  d_j ≥ 0 where lb_j is finite,  d_j ≤ 0 where ub_j is finite.

So a solver's word is checked by two linear programs that know nothing of the solver.

Source: Farkas (1902), doi:10.1515/crll.1902.124.1; deletion filter: Chinneck and Dravnieks (1991),
"Locating minimal infeasible constraint sets in linear programs", doi:10.1287/ijoc.3.2.157.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from decigrad.program import Array, QuadraticProgram, Status
from decigrad.solvers.highs import LinearModel
from decigrad.solvers.verification import Curvature, curvature, invalid

__all__ = ["Diagnosis", "Farkas", "confirm", "diagnose"]

Element = tuple[str, int]
"""A constraint by kind and position: "equality", "inequality", "lower bound" or "upper bound"."""

_GAP = 1e-9  # what the constraints must clash by, relative to the right-hand sides involved
_SEARCH_SECONDS = 10.0  # time allowed to reduce a conflict among integer variables


@dataclass(frozen=True)
class Farkas:
    """Multipliers that prove infeasibility; the largest is 1 in absolute value.

    Attributes:
        y: [p] multipliers of A x = b.
        z: [m] multipliers ≥ 0 of G x ≤ h.
        lower: [n] multipliers w⁻ ≥ 0 of lb ≤ x.
        upper: [n] multipliers w⁺ ≥ 0 of x ≤ ub.
        gap: bᵀy + hᵀz − lbᵀw⁻ + ubᵀw⁺, a negative number.
    """

    y: Array
    z: Array
    lower: Array
    upper: Array
    gap: float

    @property
    def w(self) -> Array:
        """w⁺ − w⁻, the bound multiplier of the standard form."""
        return self.upper - self.lower


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with one program.

    Attributes:
        status: the confirmed status; it corrects a solver that took unbounded for infeasible.
        certificate: proof of infeasibility. None if the status is another, or if only the integrality
            of variables makes the program infeasible.
        conflict: constraints that clash, as ("equality" | "inequality" | "lower bound" | "upper bound",
            position). Without any one of them the rest is feasible, if `minimal`.
        minimal: False where the time for reducing the conflict ran out.
        ray: [n] direction along which the objective of an unbounded program falls; largest entry 1.
        eigenvalue: the most negative eigenvalue of a non-convex P.
        eigenvector: [n] its eigenvector: a direction of negative curvature.
    """

    status: Status
    certificate: Farkas | None = None
    conflict: tuple[Element, ...] = ()
    minimal: bool = True
    ray: Array | None = None
    eigenvalue: float | None = None
    eigenvector: Array | None = None


def diagnose(program: QuadraticProgram, status: Status) -> Diagnosis:
    """Explain the status of one program.

    Args:
        program: a batch of one (`program.sample(i)` or `batched(program)`), NumPy or JAX leaves.
        status: what a solver said about it.

    Raises:
        ValueError: if the program is a batch of several.
    """
    if program.batch_size != 1:
        raise ValueError(
            f"diagnose takes one program, got a batch of {program.batch_size}: use program.sample(i)"
        )
    program = program.numpy()
    if invalid(program)[0]:
        return Diagnosis(Status.INVALID_DATA)
    if curvature(program.P)[0] == Curvature.INDEFINITE:
        values, vectors = np.linalg.eigh(program.P.dense()[0])
        return Diagnosis(Status.NONCONVEX, eigenvalue=float(values[0]), eigenvector=vectors[:, 0])
    system = _System(program)
    multipliers = system.prove()
    if multipliers is not None:
        return system.explain(multipliers)
    ray = _ray(program)
    if ray is not None and status is not Status.OPTIMAL:
        return Diagnosis(Status.UNBOUNDED, ray=ray)
    if program.integer and status is Status.PRIMAL_INFEASIBLE:
        return _integer_conflict(program)
    return Diagnosis(_unproven(program, status))


def confirm(program: QuadraticProgram, claimed: Status) -> Status:
    """The status of one convex program with valid data, checked independently of the solver that claims it.

    Infeasible and unbounded programs are recognized whatever was claimed. A claim of either that has no
    proof becomes NUMERICAL_ERROR (except that integrality may make an integer program infeasible). Other
    claims stand.
    """
    if _System(program).prove() is not None:
        return Status.PRIMAL_INFEASIBLE
    if _ray(program) is not None:
        return Status.UNBOUNDED
    return _unproven(program, claimed)


def _unproven(program: QuadraticProgram, claimed: Status) -> Status:
    """What remains of a claim without a proof."""
    if claimed is Status.UNBOUNDED or (claimed is Status.PRIMAL_INFEASIBLE and not program.integer):
        return Status.NUMERICAL_ERROR
    return claimed


class _System:
    """The multipliers' linear program: columns are the constraints, each scaled to a largest entry of 1."""

    def __init__(self, program: QuadraticProgram) -> None:
        A, G = program.A.matrix[0], program.G.matrix[0]
        b, h, lb, ub = program.b[0], program.h[0], program.lb[0], program.ub[0]
        n = program.n
        rows, low, up = np.isfinite(h), np.isfinite(lb), np.isfinite(ub)
        self.elements: list[Element] = [("equality", i) for i in range(len(b))]
        self.elements += [("inequality", int(i)) for i in np.flatnonzero(rows)]
        self.elements += [("lower bound", int(j)) for j in np.flatnonzero(low)]
        self.elements += [("upper bound", int(j)) for j in np.flatnonzero(up)]
        normals = np.concatenate([A, G[rows], -np.eye(n)[low], np.eye(n)[up]])
        sides = np.concatenate([b, h[rows], -lb[low], ub[up]])
        size = np.abs(normals).max(axis=1, initial=0.0)
        self.scale = np.where(size > 0, size, 1.0)
        self.normals, self.sides = normals / self.scale[:, None], sides / self.scale
        self.signed = np.arange(len(sides)) < len(b)  # multipliers of equalities have any sign
        self.shape = (len(b), len(h), n)
        self.model: LinearModel | None = None

    def prove(self, among: Array | None = None) -> Array | None:
        """Multipliers that prove the constraints `among` (a mask; all by default) infeasible, or None."""
        count = len(self.sides)
        if count == 0:
            return None
        among = np.ones(count, dtype=bool) if among is None else among
        lower, upper = np.where(self.signed & among, -1.0, 0.0), np.where(among, 1.0, 0.0)
        if self.model is None:
            zero = np.zeros(self.normals.shape[1])
            self.model = LinearModel()
            self.model.load(self.sides, np.ascontiguousarray(self.normals.T), zero, zero, lower, upper)
        else:
            self.model.change(bounds=(lower, upper))
        if self.model.run() is not Status.OPTIMAL:
            return None
        multipliers = self.model.solution()[0]
        multipliers = np.where(np.abs(multipliers) > 1e-9, multipliers, 0.0)
        return multipliers if self._clashes(multipliers) else None

    def _clashes(self, multipliers: Array) -> bool:
        terms = multipliers * self.sides
        return bool(terms.sum() < -_GAP * max(1.0, np.abs(terms).sum()))

    def explain(self, multipliers: Array) -> Diagnosis:
        """Reduce a proof to constraints none of which can be spared, and sharpen its multipliers."""
        kept = multipliers != 0
        for k in np.argsort(np.abs(multipliers), kind="stable"):
            if not kept[k]:
                continue
            fewer = kept.copy()
            fewer[k] = False
            found = self.prove(fewer)
            if found is not None:
                multipliers, kept = found, found != 0
        multipliers = self._sharpen(multipliers, kept)
        conflict = tuple(self.elements[k] for k in np.flatnonzero(kept))
        return Diagnosis(Status.PRIMAL_INFEASIBLE, certificate=self._farkas(multipliers), conflict=conflict)

    def _sharpen(self, multipliers: Array, kept: Array) -> Array:
        """An irreducible conflict has one proof up to scale: the null vector of its normals."""
        index = np.flatnonzero(kept)
        *_, vectors = np.linalg.svd(self.normals[index].T, full_matrices=True)
        null = vectors[-1]
        null = null * np.sign(null @ multipliers[index])
        sharp = np.zeros_like(multipliers)
        sharp[index] = null / np.abs(null).max()
        residual = np.abs(self.normals.T @ sharp).max(initial=0.0)
        valid = (sharp[~self.signed] >= 0).all() and residual < 1e-12 and self._clashes(sharp)
        return sharp if valid else multipliers

    def _farkas(self, multipliers: Array) -> Farkas:
        p, m, n = self.shape
        parts = {"equality": np.zeros(p), "inequality": np.zeros(m)}
        parts |= {"lower bound": np.zeros(n), "upper bound": np.zeros(n)}
        raw = multipliers / self.scale
        unit = 1.0 / float(np.abs(raw).max())
        for (kind, position), value in zip(self.elements, raw * unit, strict=True):
            parts[kind][position] = value
        return Farkas(
            y=parts["equality"],
            z=parts["inequality"],
            lower=parts["lower bound"],
            upper=parts["upper bound"],
            gap=float(multipliers @ self.sides) * unit,
        )


def _ray(program: QuadraticProgram) -> Array | None:
    """A direction along which a feasible convex program falls without limit, or None."""
    if curvature(program.P)[0] == Curvature.DEFINITE:
        return None
    q, n = program.q[0], program.n
    largest = np.abs(q).max(initial=0.0)
    if largest == 0.0:
        return None
    P = np.zeros((0, n)) if program.linear else program.P.dense()[0]
    bounded = np.isfinite(program.h[0])
    matrix = np.concatenate([P, program.A.matrix[0], program.G.matrix[0][bounded]])
    size = np.abs(matrix).max(axis=1, initial=0.0)
    size[: len(P)] = size[: len(P)].max(initial=0.0)  # rows of P keep their proportions
    matrix = matrix / np.where(size > 0, size, 1.0)[:, None]
    lower = np.zeros(len(matrix))
    lower[len(P) + program.num_equalities :] = -np.inf
    model = LinearModel()
    low, high = (
        np.where(np.isfinite(program.lb[0]), 0.0, -1.0),
        np.where(np.isfinite(program.ub[0]), 0.0, 1.0),
    )
    model.load(q / largest, matrix, lower, np.zeros(len(matrix)), low, high)
    if model.run() is not Status.OPTIMAL:
        return None
    d = model.solution()[0]
    if q @ d >= -1e-8 * largest:
        return None
    return np.where(np.abs(d) > 1e-12, d, 0.0) / np.abs(d).max()


def _integer_conflict(program: QuadraticProgram) -> Diagnosis:
    """Constraints that clash over integers: drop groups, ever smaller, while the rest still clashes."""
    system = _System(program)
    remaining = np.arange(len(system.elements))
    deadline = time.monotonic() + _SEARCH_SECONDS
    size, known = max(len(remaining) // 2, 1), True
    while known:
        start = 0
        while start < len(remaining):
            fewer = np.delete(remaining, slice(start, start + size))
            left = deadline - time.monotonic()
            if left <= 0:
                known = False
                break
            verdict = _integer_status(program, [system.elements[k] for k in fewer], left)
            known &= verdict is not Status.TIME_LIMIT
            if verdict is Status.PRIMAL_INFEASIBLE:
                remaining = fewer
            else:
                start += size
        if size == 1:
            break
        size //= 2
    conflict = tuple(system.elements[k] for k in remaining)
    return Diagnosis(Status.PRIMAL_INFEASIBLE, conflict=conflict, minimal=known)


def _integer_status(program: QuadraticProgram, elements: list[Element], seconds: float) -> Status:
    """Whether integers satisfy the constraints `elements` alone."""
    kept: dict[str, list[int]] = {"equality": [], "inequality": [], "lower bound": [], "upper bound": []}
    for kind, position in elements:
        kept[kind].append(position)
    lb, ub = np.full(program.n, -np.inf), np.full(program.n, np.inf)
    lb[kept["lower bound"]] = program.lb[0][kept["lower bound"]]
    ub[kept["upper bound"]] = program.ub[0][kept["upper bound"]]
    A, b = program.A.matrix[0][kept["equality"]], program.b[0][kept["equality"]]
    G, h = program.G.matrix[0][kept["inequality"]], program.h[0][kept["inequality"]]
    model = LinearModel(program.integer)
    below = np.concatenate([b, np.full(len(h), -np.inf)])
    model.load(np.zeros(program.n), np.concatenate([A, G]), below, np.concatenate([b, h]), lb, ub)
    return model.run(seconds)
