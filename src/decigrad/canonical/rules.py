"""Walking expressions: each operation's rule on forms.

Piecewise-linear atoms (abs, maximum, minimum, max, min) become auxiliary columns with linear constraints
(the epigraph): `Atom` remembers the column's curvature, so that its use can be checked in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from decigrad.canonical.forms import (
    Form,
    Linear,
    Product,
    Value,
    add,
    at,
    joined,
    merge,
    negate,
    plain,
    scale,
    select,
    times,
)
from decigrad.errors import UnsupportedModelError
from decigrad.expressions.expression import (
    Constant,
    Expression,
    Variable,
    as_expression,
    to_text,
    topological,
)
from decigrad.expressions.operations import OPERATIONS


@dataclass
class Atom:
    """Auxiliary columns `start … start+size` that stand for a piecewise-linear atom.

    `convex`: the columns may be pushed down only (they bound the atom from above), else up only.
    `nonneg`: every feasible value is ≥ 0, so that their squares are convex.
    """

    start: int
    size: int
    convex: bool
    nonneg: bool
    text: str


@dataclass
class Walk:
    """Turns expressions into forms; collects atoms and their epigraph (atom number, rows ≤ 0) on the way."""

    offsets: dict[str, int]
    columns: int
    atoms: list[Atom] = field(default_factory=list)
    epigraph: list[tuple[int, Form]] = field(default_factory=list)
    _known: dict[int, tuple[Expression, Form]] = field(default_factory=dict)  # a live node keeps its id

    def form(self, root: Expression) -> Form:
        """The form of an expression."""
        for node in topological(root):
            if id(node) not in self._known:
                self._known[id(node)] = (node, self._node(node))
        return self._known[id(root)][1]

    def _node(self, node: Expression) -> Form:
        if not node.has_variables:
            flat = node.value.reshape(-1) if isinstance(node, Constant) else node.reshape(-1)
            return Form(node.shape, plain(flat))
        if isinstance(node, Variable):
            span = np.arange(node.size)
            return Form(
                node.shape,
                np.zeros(node.size),
                (Linear(span, span + self.offsets[node.name], np.ones(node.size)),),
            )
        rule = _RULES.get(node.operation)
        if rule is None:
            raise UnsupportedModelError(f"the term {shortened(node)} ({node.operation} of variables)")
        return rule(self, node, *(self._known[id(a)][1] for a in node.arguments))

    def new_atom(self, node: Expression, convex: bool, nonneg: bool) -> Form:
        """Fresh auxiliary columns shaped like the node."""
        self.atoms.append(Atom(self.columns, node.size, convex, nonneg, shortened(node)))
        span = np.arange(node.size)
        form = Form(node.shape, np.zeros(node.size), (Linear(span, span + self.columns, np.ones(node.size)),))
        self.columns += node.size
        return form


def multiply(a: Form, b: Form, node: Expression) -> Form:
    """Elementwise product of two forms of the same shape; degree at most two."""
    if a.is_constant:
        return scale(b, a.constant)
    if b.is_constant:
        return scale(a, b.constant)
    if a.products or b.products:
        raise UnsupportedModelError(f"the term {shortened(node)} (of degree three or more in the variables)")
    span = np.arange(a.size)
    la = a.linear_part()
    lb = la if a is b else b.linear_part()
    cross = add(scale(la, b.constant), scale(lb, a.constant))
    constant = times(a.constant, b.constant)
    return Form(a.shape, constant, cross.linear, (Product(span, span, np.ones(a.size), la, lb),))


# ------------------------------------------------------------------------------------------ rules by name


def _aligned(node: Expression, *forms: Form) -> list[Form]:
    """The forms broadcast to the node's shape. The same form twice stays the same object."""
    done: dict[int, Form] = {}
    for form in forms:
        if id(form) not in done:
            positions = np.broadcast_to(np.arange(form.size).reshape(form.shape), node.shape)
            done[id(form)] = (
                form if form.shape == node.shape else select(form, positions.reshape(-1), node.shape)
            )
    return [done[id(f)] for f in forms]


def _add(walk: Walk, node: Expression, a: Form, b: Form) -> Form:
    return add(*_aligned(node, a, b))


def _negative(walk: Walk, node: Expression, a: Form) -> Form:
    return negate(a)


def _multiply(walk: Walk, node: Expression, a: Form, b: Form) -> Form:
    first, second = _aligned(node, a, b)
    return multiply(first, second, node)


def _divide(walk: Walk, node: Expression, a: Form, b: Form) -> Form:
    if not b.is_constant:
        raise UnsupportedModelError(f"the term {shortened(node)} (division by a variable)")
    a, b = _aligned(node, a, b)
    return scale(a, 1.0 / b.constant)


def _power(walk: Walk, node: Expression, a: Form) -> Form:
    if node.attribute == 1:
        return a
    if node.attribute == 2:
        return multiply(a, a, node)
    if node.attribute == 0:
        return Form(node.shape, np.ones(node.size))
    raise UnsupportedModelError(f"the term {shortened(node)} (power {node.attribute} of variables)")


def _matmul(walk: Walk, node: Expression, a: Form, b: Form) -> Form:
    left = np.arange(a.size).reshape(a.shape if len(a.shape) == 2 else (1, -1))
    right = np.arange(b.size).reshape(b.shape if len(b.shape) == 2 else (-1, 1))
    if a.is_constant != b.is_constant:
        return _constant_matmul(node.shape, a, b, left, right)
    m, k = left.shape
    p = right.shape[1]
    left_index = np.broadcast_to(left[:, None, :], (m, p, k)).reshape(-1)
    right_index = np.broadcast_to(right.T[None, :, :], (m, p, k)).reshape(-1)
    flat = (m * p * k,)
    first = select(a, left_index, flat)
    second = first if a is b and np.array_equal(left_index, right_index) else select(b, right_index, flat)
    return merge(multiply(first, second, node), np.repeat(np.arange(m * p), k), node.shape)


def _constant_matmul(shape: tuple[int, ...], a: Form, b: Form, left: np.ndarray, right: np.ndarray) -> Form:
    """M @ f or f @ M with a parameter-only M: entry (i, j) sums M[i, k] f[k, j]; zeros of M are skipped."""
    if b.is_constant:  # (f M)[i, j] = (Mᵀ fᵀ)[j, i]
        turned = (right.shape[1], left.shape[0])
        flipped = _constant_matmul(
            turned,
            Form(right.T.shape, at(b.constant, right.T.reshape(-1))),
            select(a, left.T.reshape(-1), left.T.shape),
            np.arange(right.size).reshape(right.T.shape),
            np.arange(left.size).reshape(left.T.shape),
        )
        return select(flipped, np.arange(flipped.size).reshape(turned).T.reshape(-1), shape)
    m, k = left.shape
    p = right.shape[1]
    if isinstance(a.constant, np.ndarray):
        out, inner = np.nonzero(a.constant.reshape(m, k))
    else:
        out, inner = np.divmod(np.arange(m * k), k)
    source = (inner[:, None] * p + np.arange(p)).reshape(-1)
    moving = Form(b.shape, np.zeros(b.size), b.linear, b.products)
    factor = at(a.constant, np.repeat(out * k + inner, p))
    target = (out[:, None] * p + np.arange(p)).reshape(-1)
    product = merge(scale(select(moving, source, (source.size,)), factor), target, shape)
    constant: Value = np.zeros(m * p)
    if not isinstance(b.constant, np.ndarray) or b.constant.any():
        matrix = as_expression(a.constant).reshape(m, k) @ as_expression(b.constant).reshape(k, p)
        constant = plain(matrix.reshape(-1))
    return Form(shape, constant, product.linear, product.products)


def _sum(walk: Walk, node: Expression, a: Form) -> Form:
    axis = node.attribute
    if axis is None:
        target = np.zeros(a.size, int)
    else:
        target = np.broadcast_to(
            np.expand_dims(np.arange(node.size).reshape(node.shape), axis), a.shape
        ).reshape(-1)
    return merge(a, target, node.shape)


def _gather(walk: Walk, node: Expression, *forms: Form) -> Form:
    how = node.attribute
    if len(forms) == 1:
        return select(forms[0], how.flat, how.shape)
    total: Form | None = None
    offset, size = 0, sum(f.size for f in forms)
    for form in forms:
        rows = np.arange(form.size) + offset
        part = merge(Form((form.size,), np.zeros(form.size), form.linear, form.products), rows, (size,))
        total = part if total is None else add(total, part)
        offset += form.size
    assert total is not None
    constant = joined([f.constant for f in forms])
    return select(Form((size,), constant, total.linear, total.products), how.flat, how.shape)


def _affine(forms: tuple[Form, ...], node: Expression) -> None:
    if any(f.products for f in forms):
        raise UnsupportedModelError(f"the term {shortened(node)} ({node.operation} of a quadratic term)")


def _bounded_by(walk: Walk, node: Expression, parts: list[Form], convex: bool, nonneg: bool) -> Form:
    """An atom t with t ≥ part (convex) or t ≤ part (concave) for every part."""
    _affine(tuple(parts), node)
    number, t = len(walk.atoms), walk.new_atom(node, convex, nonneg)
    for part in parts:
        gap = add(part, negate(t)) if convex else add(t, negate(part))
        walk.epigraph.append((number, gap))
    return t


def _abs(walk: Walk, node: Expression, a: Form) -> Form:
    return _bounded_by(walk, node, [a, negate(a)], True, True)


def _maximum(walk: Walk, node: Expression, a: Form, b: Form) -> Form:
    parts = _aligned(node, a, b)
    return _bounded_by(walk, node, parts, True, any(_known_nonneg(walk, p) for p in parts))


def _minimum(walk: Walk, node: Expression, a: Form, b: Form) -> Form:
    return _bounded_by(walk, node, _aligned(node, a, b), False, False)


def _extreme(convex: bool) -> Callable[..., Form]:
    def rule(walk: Walk, node: Expression, a: Form) -> Form:
        axis = node.attribute
        index = np.arange(a.size).reshape(a.shape)
        slices = list(index.reshape(-1, 1)) if axis is None else list(np.moveaxis(index, axis, 0))
        parts = [select(a, s.reshape(-1), node.shape) for s in slices]
        return _bounded_by(walk, node, parts, convex, convex and any(_known_nonneg(walk, p) for p in parts))

    return rule


def _known_nonneg(walk: Walk, form: Form) -> bool:
    """A constant ≥ 0, or nonnegative atoms with weights ≥ 0 plus a constant ≥ 0."""
    if not isinstance(form.constant, np.ndarray) or (form.constant < 0).any() or form.products:
        return False
    safe = {c for atom in walk.atoms if atom.nonneg for c in range(atom.start, atom.start + atom.size)}
    return all(
        isinstance(t.value, np.ndarray) and (t.value >= 0).all() and safe.issuperset(t.cols.tolist())
        for t in form.linear
    )


_RULES: dict[str, Callable[..., Form]] = {
    "add": _add,
    "negative": _negative,
    "multiply": _multiply,
    "divide": _divide,
    "power": _power,
    "matmul": _matmul,
    "sum": _sum,
    "gather": _gather,
    "abs": _abs,
    "maximum": _maximum,
    "minimum": _minimum,
    "max": _extreme(True),
    "min": _extreme(False),
}
assert set(_RULES) <= set(OPERATIONS)


def shortened(node: Expression, limit: int = 70) -> str:
    """The expression as text, cut to a length."""
    text = to_text(node)
    return text if len(text) <= limit else text[: limit - 1] + "…"
