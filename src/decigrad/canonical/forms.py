"""Quadratic forms of the variables with parameter-dependent coefficients.

Walking an expression once turns it into a `Form`: for each of its m entries a polynomial of degree two,

    form_i(x) = constant_i + Σ_(linear entries at row i) value · x_col
                           + Σ_(products at row i) value · a_s(x) · b_s(x)        (s: the entry's slot)

The *pattern* (rows, columns, slots) is known on the host; the *values* are arrays, or expressions in the
parameters alone. So any parameter may enter anywhere, nonlinearly, and nothing dense is ever formed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from decigrad.expressions.expression import Constant, Expression
from decigrad.expressions.functions import concatenate

Value: TypeAlias = Any  # numpy array [k], or an Expression [k] in parameters alone


@dataclass(frozen=True)
class Linear:
    """Entries value[k] · x[cols[k]] at row rows[k]."""

    rows: np.ndarray
    cols: np.ndarray
    value: Value


@dataclass(frozen=True)
class Product:
    """Entries value[k] · a[slots[k]] · b[slots[k]] at row rows[k], where a and b are linear forms."""

    rows: np.ndarray
    slots: np.ndarray
    value: Value
    a: Form
    b: Form


@dataclass(frozen=True)
class Form:
    """A vector of m quadratic polynomials. `shape` is the expression's shape, m its size."""

    shape: tuple[int, ...]
    constant: Value
    linear: tuple[Linear, ...] = ()
    products: tuple[Product, ...] = ()

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=int))

    @property
    def is_constant(self) -> bool:
        return not self.linear and not self.products

    def linear_part(self) -> Form:
        """Without the constants (and only for forms without products)."""
        return Form(self.shape, np.zeros(self.size), self.linear)

    def entries(self) -> tuple[np.ndarray, np.ndarray, Value]:
        """All linear entries as one (rows, cols, value)."""
        if not self.linear:
            return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
        if len(self.linear) == 1:
            return self.linear[0].rows, self.linear[0].cols, self.linear[0].value
        rows = np.concatenate([t.rows for t in self.linear])
        cols = np.concatenate([t.cols for t in self.linear])
        return rows, cols, joined([t.value for t in self.linear])


# ------------------------------------------------------------------------------------------ small algebra


def joined(values: list[Value]) -> Value:
    """Values one after the other."""
    if all(isinstance(v, np.ndarray) for v in values):
        return np.concatenate(values)
    return concatenate(values)


def _is_one(value: Value) -> bool:
    return isinstance(value, np.ndarray) and bool((value == 1.0).all())


def times(a: Value, b: Value) -> Value:
    """Elementwise product; a factor of ones costs nothing."""
    if _is_one(a):
        return b
    if _is_one(b):
        return a
    return plain(a * b)


def plain(value: Value) -> Value:
    """A constant expression as its array."""
    return value.value if isinstance(value, Constant) else value


def plus(a: Value, b: Value) -> Value:
    """Elementwise sum; a summand of zeros costs nothing."""
    if isinstance(a, np.ndarray) and not a.any():
        return b
    if isinstance(b, np.ndarray) and not b.any():
        return a
    return a + b


def at(value: Value, index: np.ndarray) -> Value:
    """value[index], without a copy where it selects everything."""
    if (
        isinstance(value, Expression)
        and index.size == value.size
        and np.array_equal(index, np.arange(index.size))
    ):
        return value
    return value[index]


def positions(source: np.ndarray, rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For output rows that read input rows `source`: which entries each takes, and its new row.

    Returns (entry, row): output entry j is input entry entry[j], at output row row[j].
    """
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows, minlength=size)
    starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
    repeat = counts[source]
    row = np.repeat(np.arange(source.size), repeat)
    within = np.arange(row.size) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    return order[np.repeat(starts[source], repeat) + within], row


def select(form: Form, source: np.ndarray, shape: tuple[int, ...]) -> Form:
    """The form whose entry i is entry source[i] of `form`."""
    if source.size == form.size and np.array_equal(source, np.arange(source.size)):
        return Form(shape, form.constant, form.linear, form.products)
    linear, products = [], []
    for t in form.linear:
        entry, row = positions(source, t.rows, form.size)
        linear.append(Linear(row, t.cols[entry], at(t.value, entry)))
    for p in form.products:
        entry, row = positions(source, p.rows, form.size)
        products.append(Product(row, p.slots[entry], at(p.value, entry), p.a, p.b))
    return Form(shape, at(form.constant, source), tuple(linear), tuple(products))


def merge(form: Form, target: np.ndarray, shape: tuple[int, ...]) -> Form:
    """The form whose entry j is the sum of the entries i with target[i] = j."""
    size = int(np.prod(shape, dtype=int))
    linear = tuple(Linear(target[t.rows], t.cols, t.value) for t in form.linear)
    products = tuple(Product(target[p.rows], p.slots, p.value, p.a, p.b) for p in form.products)
    if isinstance(form.constant, np.ndarray):
        constant: Value = np.bincount(target, form.constant, size) if size else np.zeros(0)
    else:
        order = np.argsort(target, kind="stable")
        grouped = form.constant[order].reshape(size, -1)
        constant = grouped.sum(1)
    return Form(shape, constant, linear, products)


def scale(form: Form, factor: Value) -> Form:
    """Row i times factor[i], a value without variables."""
    linear = tuple(Linear(t.rows, t.cols, times(t.value, at(factor, t.rows))) for t in form.linear)
    products = tuple(
        Product(p.rows, p.slots, times(p.value, at(factor, p.rows)), p.a, p.b) for p in form.products
    )
    return Form(form.shape, times(form.constant, factor), linear, products)


def add(a: Form, b: Form) -> Form:
    """Sum of two forms of the same shape."""
    return Form(a.shape, plus(a.constant, b.constant), a.linear + b.linear, a.products + b.products)


def negate(form: Form) -> Form:
    """Minus the form."""
    return scale(form, -np.ones(form.size))
