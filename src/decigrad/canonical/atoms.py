"""Whether auxiliary columns of piecewise-linear terms are used in the direction in which they are exact."""

from __future__ import annotations

from typing import Any

import numpy as np

from decigrad.canonical.forms import Form, Linear
from decigrad.canonical.rules import Walk
from decigrad.errors import UnsupportedModelError
from decigrad.expressions.expression import parameters_of
from decigrad.expressions.signs import sign


def check_atoms(walk: Walk, form: Form, place: str, equality: bool = False, own: int | None = None) -> None:
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
