"""Derivatives of decisions against the exact active-set formula, on random QPs and LPs of every class.

    python -m benchmarks.derivatives [--samples 120] [--out benchmarks/tables]

Each program is built from its answer: draw x*, an active set and multipliers, and derive the cost, the
right-hand sides and the bounds from them. The active set is then known, and the derivative follows from one
dense system assembled here, sharing no code with the library: with C the active rows (equalities,
inequalities, bounds) and μ their multipliers,

    [ P  Cᵀ ] [ẋ]   [ −(Ṗx + q̇ + Ċᵀμ) ]
    [ C  0  ] [μ̇] = [ ḋ − Ċx           ]          (minimum norm where rows are dependent).

Compared with it: `jax.jvp` and `jax.vjp` through `DecisionLayer` in one random direction of all parameters at
once, `jax.jacfwd` and `jax.jacrev` in the cost, and `Solution.sensitivity_matrix`. Away from degeneracy the
formula itself is compared with central differences of another solver's answers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import decigrad as dg

Arrays = dict[str, np.ndarray]

SIZES = (1, 3, 8, 20, 40, 60)
CURVATURES = ("dense", "diagonal", "low-rank", "linear")
DISTANCES = tuple(10.0**-k for k in range(3, 10))
CLASSES = {
    "interior": "no constraint active but the equalities",
    "bounds": "variables at their bounds",
    "rows": "rows of a vector constraint active",
    "mixed": "rows and bounds active",
    "near": "mixed, and constraints 1e-3 … 1e-9 from switching, on both sides",
    "vertex": "as many active constraints as variables",
    "near vertex": "vertex, and constraints 1e-3 … 1e-9 from switching, on both sides",
    "dependent": "dependent active constraints: a row doubled, a sum of rows, a bound stated twice",
    "semidefinite": "curvature only where no constraint holds",
}
SMOOTH = ("interior", "bounds", "rows", "mixed", "vertex")
"""Classes whose constraints are all at least 0.3 from switching: central differences apply."""


# ---------------------------------------------------------------------------------------------- structures


@dataclass(frozen=True)
class Structure:
    """What one model, and so one compilation, covers. `shared`: matrices and curvature are constants."""

    n: int
    curvature: str
    shared: bool = False

    @property
    def equalities(self) -> int:
        return self.n // 5

    @property
    def rows(self) -> int:
        """Independent inequality rows; three dependent ones follow (see `matrices`)."""
        return max(1, self.n // 3)

    @property
    def rank(self) -> int:
        return max(1, self.n // 4)

    @property
    def classes(self) -> list[str]:
        if self.curvature == "linear":
            return ["vertex", "near vertex", "dependent"]
        kept = [c for c in CLASSES if c != "semidefinite" or (self.curvature == "dense" and not self.shared)]
        return kept if self.n > 1 else [c for c in kept if c not in ("mixed", "semidefinite")]


def matrices(structure: Structure, rng: np.random.Generator) -> Arrays:
    """A, G and the curvature's parameters. G's last rows: twice row 0, row 0 + row 1, and x[0] by itself."""
    n, k = structure.n, structure.rank
    G = rng.standard_normal((structure.rows, n))
    unit = np.eye(n)[0]
    found = {
        "A": rng.standard_normal((structure.equalities, n)),
        "G": np.vstack([G, 2.0 * G[0], G[0] + G[int(structure.rows > 1)], unit]),
    }
    if structure.curvature == "dense":
        root, skew = rng.standard_normal((n, n)), rng.standard_normal((n, n))
        found["Q"] = root @ root.T / n + 0.5 * np.eye(n) + 0.2 * (skew - skew.T)
    elif structure.curvature == "diagonal":
        found["s"] = rng.uniform(-1.0, 1.0, n)
    elif structure.curvature == "low-rank":
        found["d"], found["F"] = rng.uniform(0.5, 2.0, n), rng.standard_normal((k, n)) / np.sqrt(n)
    return found


def model(structure: Structure, constants: Arrays) -> dg.Model:
    """The structure as a model: every block a parameter, but those in `constants`."""
    n, m = structure.n, dg.Model(f"{structure.curvature} n={structure.n}")
    lb, ub = m.parameter("lb", shape=n), m.parameter("ub", shape=n)
    x = m.continuous("x", shape=n, lb=lb, ub=ub)

    def data(name: str, *shape: int) -> Any:
        return constants[name] if name in constants else m.parameter(name, shape=shape)

    objective = m.parameter("c", shape=n) @ x
    if structure.curvature == "dense":
        objective = objective + 0.5 * dg.quad_form(x, data("Q", n, n))
    elif structure.curvature == "diagonal":
        objective = objective + 0.5 * dg.sum(dg.exp(data("s", n)) * x * x)
    elif structure.curvature == "low-rank":
        F = data("F", structure.rank, n)
        objective = objective + 0.5 * (dg.sum(data("d", n) * x * x) + dg.sum_squares(F @ x))
    m.minimize(objective)
    if structure.equalities:
        m.subject_to(data("A", structure.equalities, n) @ x == m.parameter("b", shape=structure.equalities))
    m.subject_to(data("G", structure.rows + 3, n) @ x <= m.parameter("h", shape=structure.rows + 3))
    return m


def hessian(values: Arrays) -> np.ndarray:
    """P of the objective ½xᵀPx + cᵀx at the values of the curvature's parameters."""
    if "Q" in values:
        return 0.5 * (values["Q"] + values["Q"].T)
    if "s" in values:
        return np.diag(np.exp(values["s"]))
    if "d" in values:
        return np.diag(values["d"]) + values["F"].T @ values["F"]
    return np.zeros((values["c"].size, values["c"].size))


# ------------------------------------------------------------------------------------------------ samples


@dataclass(frozen=True)
class Sample:
    """A program with its answer: `values` of all blocks, x, multipliers y, z, w and the active set."""

    kind: str
    values: Arrays
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    w: np.ndarray
    active: np.ndarray
    fixed: np.ndarray


def draw(structure: Structure, kind: str, rng: np.random.Generator, shared: Arrays | None = None) -> Sample:
    """A random program of a class, built from its answer."""
    for _ in range(1000):
        values = dict(shared) if shared is not None else matrices(structure, rng)
        active, fixed = _active_set(structure, kind, rng)
        C = np.vstack([values["A"], values["G"][active], np.eye(structure.n)[fixed != 0]])
        spread = np.linalg.svd(C, compute_uv=False) if len(C) else np.ones(1)
        if kind == "dependent":
            spread = spread[spread > 1e-9]
        elif len(C) > structure.n:
            continue
        if spread.size == 0 or spread.min() > 0.05:
            break
    else:
        raise AssertionError(f"no {kind} sample for {structure}")
    if kind == "semidefinite":
        free = np.linalg.svd(C)[2][len(C) :]
        mix = free.T @ rng.standard_normal((len(free), len(free))) + 0.3 * rng.standard_normal(
            (structure.n, len(free))
        )
        values["Q"] = mix @ mix.T + 0.0
    n, m = structure.n, structure.rows + 3
    x, y = rng.uniform(-1.0, 1.0, n), rng.uniform(-1.0, 1.0, structure.equalities)
    z, w = np.where(active, rng.uniform(0.3, 2.0, m), 0.0), fixed * rng.uniform(0.3, 2.0, n)
    slack, below, above = (rng.uniform(0.3, 2.0, size) for size in (m, n, n))
    if kind.startswith("near"):
        # A constraint comes close from its own side: by its distance, or by a multiplier in the unit of c.
        nearest = DISTANCES[:-1] if structure.curvature == "linear" else DISTANCES
        curved = hessian({**values, "c": x}) @ x
        unit = max(np.abs(curved).max(), np.abs(curved + values["A"].T @ y + values["G"].T @ z + w).max())
        for j in rng.permutation(m)[:2]:
            z[j], slack[j] = (unit if active[j] else 0.0) * rng.choice(nearest), rng.choice(DISTANCES)
        for j in rng.permutation(n)[:2]:
            w[j] = fixed[j] * unit * rng.choice(nearest)
            (below if rng.random() < 0.5 else above)[j] = rng.choice(DISTANCES)
    values["c"] = -(hessian({**values, "c": x}) @ x + values["A"].T @ y + values["G"].T @ z + w)
    values["b"], values["h"] = values["A"] @ x, values["G"] @ x + np.where(active, 0.0, slack)
    values["lb"] = x - np.where(fixed < 0, 0.0, below)
    values["ub"] = x + np.where(fixed > 0, 0.0, above)
    return Sample(kind, values, x, y, z, w, active, fixed)


def _active_set(structure: Structure, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Active rows [m] bool and variables held at their lower (−1) or upper (+1) bound [n]."""
    n, base, room = structure.n, structure.rows, structure.n - structure.equalities
    active, fixed = np.zeros(base + 3, bool), np.zeros(n, int)
    side = rng.choice([-1, 1], n)
    held = 0
    if kind in ("rows", "mixed", "near", "semidefinite"):
        count = int(rng.integers(1, max(2, min(base, room // 2) + 1)))
        active[rng.choice(base, min(count, base), replace=False)] = True
        held = active.sum()
    if kind in ("bounds", "mixed", "near", "semidefinite") and room > held:
        count = int(rng.integers(1, max(2, (room - held) // 2 + 1)))
        fixed[rng.choice(n, count, replace=False)] = 1
    if kind in ("vertex", "near vertex") or (kind == "dependent" and structure.curvature == "linear"):
        count = int(rng.integers(0, min(base, room) + 1))
        active[rng.choice(base, count, replace=False)] = True
        fixed[rng.choice(n, room - count, replace=False)] = 1
    if kind == "dependent":
        which = int(rng.integers(0, 3))
        active[[0, base]] |= which == 0
        active[[0, int(base > 1), base + 1]] |= which == 1
        if which == 2:
            active[base + 2], fixed[0], side[0] = True, 1, 1
    return active, fixed * side


# ---------------------------------------------------------------------------------------------- reference


@dataclass(frozen=True)
class Reference:
    """The active-set formula at one sample."""

    sample: Sample
    C: np.ndarray = field(init=False)
    inverse: np.ndarray = field(init=False)
    """K⁺ of the system in the module's docstring."""

    def __post_init__(self) -> None:
        s, n = self.sample, self.sample.x.size
        C = np.vstack([s.values["A"], s.values["G"][s.active], np.eye(n)[s.fixed != 0]])
        K = np.block([[hessian(s.values), C.T], [C, np.zeros((len(C), len(C)))]])
        object.__setattr__(self, "C", C)
        object.__setattr__(self, "inverse", np.linalg.lstsq(K, np.eye(len(K)), rcond=1e-12)[0])

    def forward(self, moved: Arrays) -> np.ndarray:
        """ẋ for the tangent `moved` of the blocks (absent: not moved)."""
        s, v = self.sample, self.sample.values
        zero = {name: np.zeros_like(value) for name, value in v.items()}
        t = {**zero, **moved}
        if "Q" in v:
            curved = 0.5 * (t["Q"] + t["Q"].T) @ s.x
        elif "s" in v:
            curved = np.exp(v["s"]) * t["s"] * s.x
        elif "d" in v:
            curved = t["d"] * s.x + t["F"].T @ (v["F"] @ s.x) + v["F"].T @ (t["F"] @ s.x)
        else:
            curved = np.zeros_like(s.x)
        first = -(curved + t["c"] + t["A"].T @ s.y + t["G"].T @ s.z)
        held = s.fixed != 0
        second = [
            t["b"] - t["A"] @ s.x,
            (t["h"] - t["G"] @ s.x)[s.active],
            np.where(s.fixed < 0, t["lb"], t["ub"])[held],
        ]
        return (self.inverse @ np.concatenate([first, *second]))[: s.x.size]

    def reverse(self, cotangent: np.ndarray) -> Arrays:
        """The gradient of cotangent·x* in every block."""
        s, v, n = self.sample, self.sample.values, self.sample.x.size
        solved = self.inverse[:, :n] @ cotangent
        lx, ly = solved[:n], solved[n : n + s.y.size]
        lz, lw = np.zeros(s.active.size), np.zeros(n)
        lz[s.active] = solved[n + s.y.size : n + s.y.size + s.active.sum()]
        lw[s.fixed != 0] = solved[n + s.y.size + s.active.sum() :]
        found = {
            "c": -lx,
            "b": ly,
            "h": lz,
            "lb": np.where(s.fixed < 0, lw, 0.0),
            "ub": np.where(s.fixed > 0, lw, 0.0),
            "A": -(np.outer(s.y, lx) + np.outer(ly, s.x)),
            "G": -(np.outer(s.z, lx) + np.outer(lz, s.x)),
        }
        if "Q" in v:
            found["Q"] = -0.5 * (np.outer(lx, s.x) + np.outer(s.x, lx))
        elif "s" in v:
            found["s"] = -np.exp(v["s"]) * s.x * lx
        elif "d" in v:
            found["d"] = -s.x * lx
            found["F"] = -(np.outer(v["F"] @ s.x, lx) + np.outer(v["F"] @ lx, s.x))
        return found


def independent_solution(v: Arrays) -> np.ndarray:
    """x* by DAQP called directly (QP) or SciPy's linear programming (LP)."""
    import daqp

    P, n = hessian(v), v["c"].size
    if not P.any():
        sides = list(zip(v["lb"], v["ub"], strict=True))
        equalities = {"A_eq": v["A"], "b_eq": v["b"]} if v["b"].size else {}
        return np.asarray(scipy.optimize.linprog(v["c"], v["G"], v["h"], bounds=sides, **equalities).x)
    upper, lower = np.concatenate([v["ub"], v["b"], v["h"]]), np.concatenate([v["lb"], v["b"], 0 * v["h"]])
    lower[n + v["b"].size :] = -1e30
    sense = np.zeros(upper.size, np.int32)
    sense[n : n + v["b"].size] = 5
    rows = np.ascontiguousarray(np.vstack([v["A"], v["G"]]))
    x, _, flag, _ = daqp.solve(P, v["c"].copy(), rows, upper, lower, sense, primal_tol=1e-12)
    if flag < 1:
        raise AssertionError(f"DAQP ended with {flag}")
    return np.asarray(x)


def central_difference(sample: Sample, moved: Arrays, step: float = 1e-4) -> np.ndarray:
    """(x*(θ + step·t) − x*(θ − step·t)) / (2 step), by an independent solver."""

    def at(size: float) -> np.ndarray:
        return independent_solution({k: v + size * moved.get(k, 0.0) for k, v in sample.values.items()})

    return (at(step) - at(-step)) / (2.0 * step)


# --------------------------------------------------------------------------------------------- comparison


@dataclass
class Errors:
    """Samples compared, and the worst errors relative to max(1, |reference|), of one class."""

    samples: int = 0
    differences: int = 0
    jacobians: int = 0
    matrices: int = 0
    handed_on: int = 0
    decision: float = 0.0
    forward: float = 0.0
    reverse: float = 0.0
    jacobian: float = 0.0
    sensitivity: float = 0.0
    formula: float = 0.0

    def see(self, what: str, found: Any, expected: Any) -> None:
        found, expected = np.asarray(found, float), np.asarray(expected, float)
        if not expected.size:
            return
        error = float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
        setattr(self, what, max(getattr(self, what), error if np.isfinite(error) else np.inf))

    @property
    def worst(self) -> float:
        return max(self.decision, self.forward, self.reverse, self.jacobian, self.sensitivity)

    def merge(self, other: Errors) -> None:
        for name, value in vars(other).items():
            mine = getattr(self, name)
            setattr(self, name, mine + value if isinstance(value, int) else max(mine, value))


def compare(
    structure: Structure,
    count: int,
    seed: int = 0,
    solver: str = "auto",
    jacobian_up_to: int = 8,
    singles: int = 2,
    differences: int = 20,
    traced: bool = True,
) -> dict[str, Errors]:
    """Derivatives of `count` samples of a structure against the reference, by class.

    Args:
        structure: what the samples share.
        count: samples, dealt to the structure's classes in turn.
        seed: of the draws.
        solver: the layer's solver.
        jacobian_up_to: full Jacobians in the cost (forward and reverse) for n up to this.
        singles: samples that are also solved by `Model.solve` and differentiated by `sensitivity_matrix`.
        differences: samples whose formula is compared with central differences.
        traced: compare `jax.jvp` and `jax.vjp`; else only what `singles` covers.
    """
    rng = np.random.default_rng([seed, structure.n, CURVATURES.index(structure.curvature), structure.shared])
    constants = matrices(structure, rng) if structure.shared else {}
    stated = model(structure, constants)
    layer = dg.DecisionLayer(stated, solver=solver)
    kinds = [structure.classes[i % len(structure.classes)] for i in range(count)]
    samples = [draw(structure, kind, rng, constants or None) for kind in kinds]
    names = list(stated.parameters)
    values = {k: np.stack([s.values[k] for s in samples]) for k in names}
    moved = {k: rng.standard_normal(v.shape) / np.sqrt(v[0].size) for k, v in values.items()}
    for i in [i for i, kind in enumerate(kinds) if kind == "dependent"]:
        _move_together(samples[i], {k: v[i] for k, v in moved.items()}, rng)
    cotangent = rng.standard_normal((count, structure.n))

    jacobians: list[Any] = []
    if traced:
        with jax.enable_x64(True):
            found = jax.jit(_derivatives(layer))(values, moved, cotangent)
            if structure.n <= jacobian_up_to:
                jacobians = [
                    jax.jit(_cost_jacobian(layer, mode))(values) for mode in (jax.jacfwd, jax.jacrev)
                ]
            x, moving, pulled, jacobians = jax.tree_util.tree_map(np.asarray, (*found, jacobians))

    errors: dict[str, Errors] = {}
    compared = 0
    for i, sample in enumerate(samples):
        e, reference = errors.setdefault(sample.kind, Errors()), Reference(sample)
        e.samples += 1
        tangent = {k: v[i] for k, v in moved.items()}
        expected = reference.forward(tangent)
        if traced:
            e.see("decision", x[i], sample.x)
            e.see("forward", moving[i], expected)
            _see_pullback(e, {k: v[i] for k, v in pulled.items()}, tangent, cotangent[i], reference)
        for jacobian in jacobians:
            e.jacobians += 1
            e.see("jacobian", jacobian[i], -reference.inverse[: structure.n, : structure.n])
        if i < singles:
            e.matrices += 1
            _see_sensitivity(e, stated, solver, sample, reference)
        if sample.kind in SMOOTH and compared < differences:
            compared += 1
            e.differences += 1
            e.see("formula", central_difference(sample, tangent), expected)
    return errors


def _move_together(sample: Sample, tangent: Arrays, rng: np.random.Generator) -> None:
    """Restrict a tangent, in place, so that dependent constraints still meet in one point.

    Matrices stay; the sides of all tight constraints follow one movement of the point where they meet.
    """
    shift = rng.standard_normal(sample.x.size)
    for name in {"A", "G"} & set(tangent):
        tangent[name][:] = 0.0
    if "b" in tangent:
        tangent["b"][:] = sample.values["A"] @ shift
    tangent["h"][sample.active] = (sample.values["G"] @ shift)[sample.active]
    for name, side in (("lb", -1), ("ub", 1)):
        tangent[name][sample.fixed == side] = shift[sample.fixed == side]


def _derivatives(layer: dg.DecisionLayer) -> Callable[..., Any]:
    def decision(values: Any) -> Any:
        return layer(values)["x"]

    def both(values: Any, moved: Any, cotangent: Any) -> Any:
        _, moving = jax.jvp(decision, (values,), (moved,))
        x, pull = jax.vjp(decision, values)
        return x, moving, pull(cotangent)[0]

    return both


def _cost_jacobian(layer: dg.DecisionLayer, mode: Any) -> Callable[[Any], Any]:
    def one(values: Any) -> Any:
        return mode(lambda c: layer({**values, "c": c})["x"])(jnp.asarray(values["c"]))

    return jax.vmap(one)


def _see_pullback(
    e: Errors, found: Arrays, tangent: Arrays, cotangent: np.ndarray, reference: Reference
) -> None:
    expected = reference.reverse(cotangent)
    if reference.sample.kind == "dependent":
        # Block by block there is a choice; along a movement that keeps constraints together there is none.
        total = sum(float((found[k] * tangent[k]).sum()) for k in found)
        e.see("reverse", total, cotangent @ reference.forward(tangent))
        e.see("reverse", found["c"], expected["c"])
    else:
        for k in found:
            e.see("reverse", found[k], expected[k])


def _see_sensitivity(e: Errors, stated: dg.Model, solver: str, sample: Sample, reference: Reference) -> None:
    names = list(stated.parameters)
    solution = stated.solve({k: sample.values[k] for k in names}, solver=solver)
    e.handed_on += int(solution.stats["handed_on"])
    e.see("decision", solution.x["x"], sample.x)
    rows = [reference.reverse(unit) for unit in np.eye(sample.x.size)]
    for name in names:
        if name == "c" or sample.kind != "dependent":
            expected = np.stack([row[name].reshape(-1) for row in rows])
            e.see("sensitivity", solution.sensitivity_matrix(name), expected)


# ---------------------------------------------------------------------------------------------- the table


def structures() -> Iterator[Structure]:
    """All structures of the table."""
    for curvature in CURVATURES:
        for n in SIZES:
            yield Structure(n, curvature)
    for curvature in CURVATURES:
        yield Structure(12, curvature, shared=True)


Row = tuple[str, str]


def run(samples: int, solver: str, chosen: list[Structure]) -> dict[Row, Errors]:
    """Errors by (curvature class, class of active set).

    The interior point is compiled into every function that calls it, which takes long: it is compared through
    `Model.solve` and `sensitivity_matrix`.
    """
    host = solver != "interior-point"
    rows: dict[Row, Errors] = {}
    for structure in chosen:
        start = time.perf_counter()
        found = compare(structure, samples, solver=solver, traced=host, singles=2 if host else samples)
        worst = max(e.worst for e in found.values())
        print(f"{solver} {structure}: {worst:.1e} in {time.perf_counter() - start:.1f} s", flush=True)
        program = "LP" if structure.curvature == "linear" else "QP"
        for kind, errors in found.items():
            rows.setdefault((program, kind), Errors()).merge(errors)
        jax.clear_caches()
    return rows


def table(rows: dict[Row, Errors]) -> str:
    """The errors as a Markdown table."""
    lines = [
        "| program | active set | samples | decision | jvp | vjp | jacfwd, jacrev | sensitivity matrix | "
        "formula against differences |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (program, kind), e in rows.items():
        parts = [f"{v:.0e}" if v else "–" for v in (e.decision, e.forward, e.reverse)]
        counted = ((e.jacobian, e.jacobians), (e.sensitivity, e.matrices), (e.formula, e.differences))
        parts += [f"{v:.0e} ({count})" if count else "–" for v, count in counted]
        lines.append(f"| {program} | {kind} | {e.samples} | {' | '.join(parts)} |")
    return "\n".join(lines)


def main() -> None:
    """Compare all structures and write `derivatives.md` and `derivatives.json`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=120, help="by structure")
    parser.add_argument("--solvers", nargs="*", default=["daqp", "highs", "interior-point"])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tables")
    options = parser.parse_args()
    linear = [s for s in structures() if s.curvature == "linear"]
    quadratic = [s for s in structures() if s.curvature != "linear"]
    plans = {
        "daqp": (options.samples, quadratic),
        "highs": (options.samples, linear),
        "interior-point": (options.samples // 2, [s for s in quadratic if s.n in (3, 8)]),
    }
    results = {s: run(count, s, chosen) for s, (count, chosen) in plans.items() if s in options.solvers}
    total = sum(e.samples for rows in results.values() for e in rows.values())
    worst = max(e.worst for rows in results.values() for e in rows.values())
    legend = "\n".join(f"- **{name}**: {text}" for name, text in CLASSES.items())
    text = f"# Derivatives against the active-set formula\n\n{(__doc__ or '').strip()}\n\n"
    text += f"{total} programs, n from 1 to 60, worst error {worst:.1e} relative to max(1, |derivative|).\n\n"
    text += (
        f"{legend}\n\nMultipliers of linear programs come no nearer than 1e-8 of the largest cost: smaller "
    )
    text += "ones are ties\nto the simplex method.\n"
    for solver, rows in results.items():
        text += f"\n## Solver: {solver}\n\n{table(rows)}\n"
        if handed_on := {kind: e.handed_on for (_, kind), e in rows.items() if e.handed_on}:
            counted = ", ".join(f"{count} of {kind}" for kind, count in handed_on.items())
            text += f"\nThe solver verified no active set and handed on to its second solver: {counted}.\n"
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "derivatives.md").write_text(text, encoding="utf-8")
    listed = [
        {"solver": solver, "program": program, "active_set": kind, **vars(e)}
        for solver, rows in results.items()
        for (program, kind), e in rows.items()
    ]
    summary = {"programs": total, "worst": worst, "classes": listed}
    (options.out / "derivatives.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(f"{total} programs, worst error {worst:.1e}")


if __name__ == "__main__":
    main()
