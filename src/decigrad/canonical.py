"""From a model's expressions to the waist: coefficients are extracted structurally, once, on the host.

`canonicalize` fixes the sparse pattern of every block of the program and which entries depend on which
parameters; `CanonicalForm.assemble` fills the values in, as NumPy arrays or as a traceable JAX function of
the parameters. What does not depend on a parameter is a constant, shared by every batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from decigrad.errors import ModelError, NonConvexError, UnsupportedModelError
from decigrad.expressions.constraint import Constraint
from decigrad.expressions.expression import Constant, Expression, Parameter, Variable, evaluate, parameters_of
from decigrad.expressions.signs import sign
from decigrad.forms import Form, Linear, Walk, merge, negate, scale
from decigrad.program import Dense, Diagonal, LowRank, Operator, QuadraticProgram

CONVEXITY_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Block:
    """An array filled by scattering: constant `base` plus, for each piece, base[index[k]] += value[k]."""

    shape: tuple[int, ...]
    base: np.ndarray
    pieces: tuple[tuple[np.ndarray, Expression], ...] = ()

    @property
    def depends(self) -> frozenset[str]:
        """Names of the parameters that enter."""
        return frozenset(parameters_of(*(value for _, value in self.pieces)))

    def fill(self, values: list[Any], xp: Any) -> Any:
        """The array, given the values of the pieces."""
        if not self.pieces:
            return self.base.reshape(self.shape)
        flat = self.base
        for (index, _), value in zip(self.pieces, values, strict=True):
            flat = _scatter_add(flat, index, value.reshape(-1), xp)
        return flat.reshape(self.shape)


def _scatter_add(flat: Any, index: np.ndarray, value: Any, xp: Any) -> Any:
    size = flat.shape[0]
    if index.size == size and np.array_equal(index, np.arange(size)):
        return flat + value
    if xp is np:
        return flat + np.bincount(index, value, size)
    if np.unique(index).size == index.size:  # a gather is faster than a scatter, and so is its transpose
        source = np.zeros(size, int)
        source[index] = np.arange(index.size)
        hit = np.zeros(size, bool)
        hit[index] = True
        return flat + xp.where(hit, value[source], 0.0)
    return xp.asarray(flat).at[index].add(value)


def _block(shape: tuple[int, ...], *entries: tuple[np.ndarray, Any]) -> Block:
    size = int(np.prod(shape, dtype=int))
    base = np.zeros(size)
    pieces = []
    for index, value in entries:
        if isinstance(value, np.ndarray):
            base += np.bincount(index, value, size) if index.size else 0.0
        else:
            pieces.append((index, value))
    return Block(shape, base, tuple(pieces))


@dataclass(frozen=True)
class Factor:
    """Adds Fᵀdiag(v)H + Hᵀdiag(v)F to P, with F, H [k, n]; H is F for sums of squares (then Fᵀdiag(2v)F)."""

    left: Block
    right: Block | None
    weight: Block


@dataclass(frozen=True)
class RowGroup:
    """Where the multipliers of one named constraint lie: kind and position of each of its rows.

    Kinds: 0 equality row, 1 inequality row, 2 upper bound, 3 lower bound (with `scale`, the row's
    coefficient). Parts are summed: the two sides of `abs(x) <= 1` share one name.
    """

    name: str
    shape: tuple[int, ...]
    parts: tuple[tuple[np.ndarray, np.ndarray, np.ndarray], ...]
    text: str


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
        """A row of the program ("equality", "inequality", "lower bound", "upper bound") in the user's words."""
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


# ------------------------------------------------------------------------------------------- construction


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
    goal = _placed(walk, objective, "the objective")
    rows = _Rows(walk, _bound_blocks(variables, total))
    for constraint in constraints:
        rows.add(constraint)
    rows.add_epigraph()
    _check_atoms(walk, goal, "the objective")
    n = walk.columns
    q_rows, q_cols, q_value = goal.entries()
    pairs, factors, curvature = _quadratic(walk, goal, n)
    blocks = {
        "q": _block((n,), *[(t.cols, t.value) for t in goal.linear]),
        "r": _block((), (np.zeros(1, int), goal.constant)),
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


def check_convex(P: Operator) -> None:
    """Raise `NonConvexError` with the offending eigenvalue unless P (single) is positive semidefinite."""
    if isinstance(P, Diagonal):
        values, vectors = P.diagonal, np.eye(P.shape[0])
    else:
        if isinstance(P, LowRank) and (P.diagonal >= 0).all() and (P.weight >= 0).all():
            return
        matrix = P.dense()
        try:
            np.linalg.cholesky(matrix)
            return
        except np.linalg.LinAlgError:
            values, vectors = np.linalg.eigh(matrix)
    worst = int(np.argmin(values)) if values.size else 0
    if values.size and values[worst] < -CONVEXITY_TOLERANCE * np.abs(values).max():
        raise NonConvexError(
            f"the quadratic objective is not convex: its matrix has the eigenvalue {values[worst]:.6g} "
            f"(minimization form); check the sign of the quadratic terms",
            float(values[worst]),
            vectors[:, worst],
        )


def _placed(walk: Walk, expression: Expression, place: str) -> Form:
    try:
        return walk.form(expression)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(
            f"{error} in {place} is outside convex quadratic and mixed-integer linear programs, "
            f"which is what the solvers of this version take"
        ) from None


def _bound_blocks(variables: dict[str, Variable], total: int) -> dict[str, Block]:
    entries: dict[str, list[tuple[np.ndarray, Any]]] = {"lb": [], "ub": []}
    start = 0
    for variable in variables.values():
        span = np.arange(start, start + variable.size)
        for side, bound in (("lb", variable.lb), ("ub", variable.ub)):
            positions = np.broadcast_to(np.arange(bound.size).reshape(bound.shape), variable.shape).reshape(
                -1
            )
            flat = bound.value.reshape(-1) if isinstance(bound, Constant) else bound.reshape(-1)
            entries[side].append((span, flat[positions]))
        start += variable.size
    return {side: _bound_block(total, entries[side]) for side in entries}


def _bound_block(total: int, entries: list[tuple[np.ndarray, Any]]) -> Block:
    base = np.zeros(total)
    for index, value in entries:
        if isinstance(value, np.ndarray):
            base[index] = value
    return Block((total,), base, tuple((i, v) for i, v in entries if not isinstance(v, np.ndarray)))


class _Rows:
    """Collects equality and inequality rows; a row with one constant coefficient becomes a bound if free."""

    def __init__(self, walk: Walk, bounds: dict[str, Block]) -> None:
        self.walk = walk
        self.bounds = bounds
        self.equalities: list[Form] = []
        self.inequalities: list[Form] = []
        self.groups: list[RowGroup] = []
        moving = {side: np.zeros(b.shape, bool) for side, b in bounds.items()}
        for side, block in bounds.items():
            for index, _ in block.pieces:
                moving[side][index] = True
        self.open = np.stack(
            [(bounds["lb"].base == -np.inf) & ~moving["lb"], (bounds["ub"].base == np.inf) & ~moving["ub"]]
        )
        self.declared = ~self.open

    def add(self, constraint: Constraint) -> None:
        place = f"constraint {constraint.name!r} ({_shortened(str(constraint))})"
        parts = []
        for left, right, sense in _pieces(constraint):
            form = _placed(self.walk, left - right, place)
            if form.products:
                raise UnsupportedModelError(
                    f"{place} is quadratic in the variables; quadratic terms are supported in the objective"
                )
            if form.is_constant:
                raise ModelError(f"{place} has no decision variable")
            form = scale(form, np.ones(form.size)) if sense != ">=" else negate(form)
            _check_atoms(self.walk, form, place, equality=sense == "==")
            parts.append(self._equality(form) if sense == "==" else self._inequality(form))
        shape = constraint.shape
        self.groups.append(RowGroup(constraint.name or "", shape, tuple(parts), str(constraint)))

    def add_epigraph(self) -> None:
        done = 0
        while done < len(self.walk.epigraph):  # a nested atom adds rows while we go
            own, form = self.walk.epigraph[done]
            _check_atoms(self.walk, form, f"the term {self.walk.atoms[own].text}", own=own)
            self._inequality(form, bounds=False)
            done += 1

    def _equality(self, form: Form) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        start = sum(f.size for f in self.equalities)
        self.equalities.append(form)
        return np.zeros(form.size, int), np.arange(start, start + form.size), np.ones(form.size)

    def _inequality(self, form: Form, bounds: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        kind, position, factor = np.ones(form.size, int), np.zeros(form.size, int), np.ones(form.size)
        as_bound = np.zeros(form.size, bool)
        rows, cols, value = form.entries()
        if bounds and isinstance(value, np.ndarray):
            count = np.bincount(rows, value != 0, form.size)
            for entry in np.flatnonzero((count[rows] == 1) & (value != 0) & (cols < self.open.shape[1])):
                row, col, side = rows[entry], cols[entry], int(value[entry] > 0)
                if self.open[side, col]:
                    self.open[side, col] = False
                    as_bound[row] = True
                    kind[row], position[row], factor[row] = 3 - side, col, abs(value[entry])
            self._set_bounds(form, rows, cols, value, as_bound)
        kept = np.flatnonzero(~as_bound)
        if kept.size:
            from decigrad.forms import select

            start = sum(f.size for f in self.inequalities)
            self.inequalities.append(select(form, kept, (kept.size,)))
            position[kept] = np.arange(start, start + kept.size)
        return kind, position, factor

    def _set_bounds(
        self, form: Form, rows: np.ndarray, cols: np.ndarray, value: np.ndarray, as_bound: np.ndarray
    ) -> None:
        """value·x + constant ≤ 0 at the marked rows, as bounds: x ≤ or ≥ −constant/value."""
        for side, positive in (("ub", True), ("lb", False)):
            take = np.flatnonzero(as_bound[rows] & (value != 0) & ((value > 0) == positive))
            if not take.size:
                continue
            limit = form.constant[rows[take]] * (-1.0 / value[take])
            block = self.bounds[side]
            base = block.base.copy()
            if isinstance(limit, np.ndarray):
                base[cols[take]] = limit
                self.bounds[side] = replace(block, base=base)
            else:
                base[cols[take]] = 0.0
                self.bounds[side] = replace(block, base=base, pieces=(*block.pieces, (cols[take], limit)))

    def blocks(self, n: int) -> dict[str, Block]:
        """A, b, G, h and the bounds, padded for auxiliary columns."""
        found: dict[str, Block] = {}
        for matrix, side, forms in (("A", "b", self.equalities), ("G", "h", self.inequalities)):
            total = sum(f.size for f in forms)
            entries, constants, start = [], [], 0
            for form in forms:
                entries += [((t.rows + start) * n + t.cols, t.value) for t in form.linear]
                constants.append((np.arange(start, start + form.size), form.constant * np.float64(-1.0)))
                start += form.size
            found[matrix] = _block((total, n), *entries)
            found[side] = _block((total,), *constants)
        for side, fill in (("lb", -np.inf), ("ub", np.inf)):
            block = self.bounds[side]
            base = np.concatenate([block.base, np.full(n - block.base.size, fill)])
            found[side] = Block((n,), base, block.pieces)
        return found


def _pieces(constraint: Constraint) -> list[tuple[Expression, Expression, str]]:
    """max-type terms alone on their side split into plain rows: abs(a) ≤ r is a ≤ r and −a ≤ r."""
    left, right, sense = constraint.left, constraint.right, constraint.sense
    if sense == "==":
        return [(left, right, sense)]
    small, large = (left, right) if sense == "<=" else (right, left)
    if small.operation == "abs" and small.shape == constraint.shape:
        parts = [small.arguments[0], -small.arguments[0]]
    elif small.operation == "maximum" and all(a.shape == constraint.shape for a in small.arguments):
        parts = list(small.arguments)
    elif large.operation == "minimum" and all(a.shape == constraint.shape for a in large.arguments):
        return [(small, part, "<=") for part in large.arguments]
    else:
        return [(left, right, sense)]
    if not all(p.has_variables for p in parts):
        return [(left, right, sense)]
    return [(part, large, "<=") for part in parts]


def _shortened(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _check_atoms(walk: Walk, form: Form, place: str, equality: bool = False, own: int | None = None) -> None:
    """Every auxiliary column may be used only in the direction in which its epigraph is tight.

    `own` is the atom whose epigraph the form belongs to: there it stands on the other side.
    """
    if not walk.atoms:
        return
    owner = np.full(walk.columns, -1)
    for number, atom in enumerate(walk.atoms):
        if number == own:
            continue
        owner[atom.start : atom.start + atom.size] = number
    for term in form.linear:
        _check_linear(walk, term, owner, place, equality)
    for product in form.products:
        used = np.concatenate([owner[t.cols] for part in (product.a, product.b) for t in part.linear])
        if (used >= 0).any() and not _square_of_nonneg(walk, product, owner):
            atom = walk.atoms[int(used[used >= 0][0])]
            raise UnsupportedModelError(
                f"the product with {atom.text} in {place} is not convex: only squares of terms that are "
                f"never negative, with a weight ≥ 0, are"
            )


def _check_linear(walk: Walk, term: Linear, owner: np.ndarray, place: str, equality: bool) -> None:
    atoms = owner[term.cols]
    hit = np.flatnonzero(atoms >= 0)
    if isinstance(term.value, np.ndarray):
        hit = hit[term.value[hit] != 0]
    if not hit.size:
        return
    first = walk.atoms[int(atoms[hit[0]])]
    if equality:
        raise UnsupportedModelError(
            f"{first.text} in {place}: a piecewise-linear term in an equality is not convex"
        )
    direction = np.array([1.0 if walk.atoms[int(a)].convex else -1.0 for a in atoms[hit]])
    if isinstance(term.value, np.ndarray):
        wrong = np.flatnonzero(term.value[hit] * direction < 0)
        if wrong.size:
            atom = walk.atoms[int(atoms[hit[wrong[0]]])]
            kind = "convex" if atom.convex else "concave"
            raise UnsupportedModelError(
                f"{atom.text} is {kind}, but in {place} it enters with the other sign"
            )
        return
    known = sign(term.value)
    if known is None or (known * direction < 0).any():
        names = ", ".join(parameters_of(term.value))
        raise UnsupportedModelError(
            f"{first.text} in {place} has a coefficient of unknown or wrong sign (parameters {names}); "
            f"declare the parameter with nonneg=True"
        )


def _square_of_nonneg(walk: Walk, product: Any, owner: np.ndarray) -> bool:
    if product.a is not product.b:
        return False
    weight = product.value
    positive = (weight >= 0).all() if isinstance(weight, np.ndarray) else sign(weight) == 1
    return bool(positive) and all(
        isinstance(t.value, np.ndarray)
        and (t.value >= 0).all()
        and all(a >= 0 and walk.atoms[int(a)].nonneg for a in owner[t.cols])
        for t in product.a.linear
    )


# --------------------------------------------------------------------------------------------- curvature


def _quadratic(walk: Walk, goal: Form, n: int) -> tuple[Block, tuple[Factor, ...], str]:
    """P's pattern: the entries (or the diagonal) as a block, sums of squares of dense rows as factors."""
    pairs: list[tuple[np.ndarray, np.ndarray, Any]] = []
    factors: list[Factor] = []
    for product in goal.products:
        counts = [
            np.bincount(part.entries()[0], minlength=part.size)[product.slots]
            for part in (product.a, product.b)
        ]
        rows = int(product.slots.size)
        expanded = int((counts[0] * counts[1]).sum())
        if (
            expanded <= max(2 * n, 64)
            or min(int(c.max(initial=0)) for c in counts) <= 1
            or expanded <= n * rows // 2
        ):
            pairs.append(_expanded(product))
        else:
            factors.append(_factor(product, n))
    if not pairs and not factors:
        return _block((n,)), (), "zero"
    diagonal = all((i == j).all() for i, j, _ in pairs)
    squares = all(f.right is None for f in factors)
    rank = sum(f.weight.shape[0] for f in factors)
    if diagonal and not factors:
        return _block((n,), *[(i, _twice(v)) for i, _, v in pairs]), (), "diagonal"
    if diagonal and squares and rank <= n // 3:
        return _block((n,), *[(i, _twice(v)) for i, _, v in pairs]), (_merged(factors, n),), "low-rank"
    entries = [(i * n + j, v) for i, j, v in pairs] + [(j * n + i, v) for i, j, v in pairs]
    return _block((n, n), *entries), tuple(factors), "dense"


def _twice(value: Any) -> Any:
    return value * np.float64(2.0)


def _expanded(product: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """Entries (i, j, v) with Σ v xᵢ xⱼ = the product."""
    from decigrad.forms import _at, _positions, _times

    ra, ca, va = product.a.entries()
    rb, cb, vb = product.b.entries()
    entry_a, item = _positions(product.slots, ra, product.a.size)
    entry_b, back = _positions(product.slots[item], rb, product.b.size)
    value = _times(_times(_at(va, entry_a[back]), _at(vb, entry_b)), _at(product.value, item[back]))
    return ca[entry_a[back]], cb[entry_b], value


def _factor(product: Any, n: int) -> Factor:
    slots, inverse = np.unique(product.slots, return_inverse=True)
    place = np.full(product.a.size, -1)
    place[slots] = np.arange(slots.size)

    def rows_of(form: Form) -> Block:
        entries = []
        for t in form.linear:
            used = place[t.rows] >= 0
            entries.append((place[t.rows[used]] * n + t.cols[used], t.value[used]))
        return _block((slots.size, n), *entries)

    same = product.a is product.b
    weight = _block((slots.size,), (inverse.reshape(-1), product.value))
    return Factor(rows_of(product.a), None if same else rows_of(product.b), weight)


def _merged(factors: list[Factor], n: int) -> Factor:
    if len(factors) == 1:
        return factors[0]

    def stacked(blocks: list[Block], width: int) -> Block:
        rows = [b.shape[0] for b in blocks]
        base = np.concatenate([b.base for b in blocks])
        offsets = np.cumsum([0, *rows]) * width
        pieces = [(index + o, v) for b, o in zip(blocks, offsets, strict=False) for index, v in b.pieces]
        shape = (sum(rows), width) if len(blocks[0].shape) == 2 else (sum(rows),)
        return Block(shape, base, tuple(pieces))

    return Factor(stacked([f.left for f in factors], n), None, stacked([f.weight for f in factors], 1))


__all__ = ["CanonicalForm", "canonicalize", "check_convex", "merge"]
