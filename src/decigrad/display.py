"""How a model is shown: as text, as LaTeX, and as a summary of its structure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from decigrad.expressions.expression import Constant, Variable
from decigrad.expressions.printing import to_latex, to_text

if TYPE_CHECKING:
    from decigrad.model import Model

_PARTS = {
    "cost": ("q", "r"),
    "curvature": ("P",),
    "equality matrix": ("A",),
    "equality right-hand side": ("b",),
    "inequality matrix": ("G",),
    "inequality right-hand side": ("h",),
    "bounds": ("lb", "ub"),
}


def text(model: Model) -> str:
    """The model in lines of Python-like text."""
    lines = [f"{model.sense} {to_text(model.objective) if model.objective is not None else '(nothing yet)'}"]
    if model.constraints:
        lines.append("subject to")
        width = max(len(c.name or "") for c in model.constraints)
        lines += [f"  {(c.name or '').ljust(width)}  {c}" for c in model.constraints]
    lines.append("variables")
    for v in model.variables.values():
        lines.append(f"  {_signature(v.name, v.shape)}  {v.kind}{_range_text(v)}")
    if model.parameters:
        lines.append("parameters")
        for p in model.parameters.values():
            marks = (["known"] if p.known else []) + (["nonneg"] if p.nonneg else [])
            state = "no value" if p.value is None else "has a value"
            lines.append(f"  {_signature(p.name, p.shape)}  {', '.join([*marks, state])}")
    return f"Model {model.name!r}\n" + "\n".join("  " + line for line in lines)


def latex(model: Model) -> str:
    """The model in LaTeX, for notebooks."""
    goal = to_latex(model.objective) if model.objective is not None else r"\text{(nothing yet)}"
    word = r"\min" if model.sense == "minimize" else r"\max"
    rows = [rf"{word} \quad & {goal}"]
    lead = r"\text{s.t.} \quad & "
    for c in model.constraints:
        rows.append(lead + c.to_latex())
        lead = " & "
    return "$$\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}$$"


def summary(model: Model) -> str:
    """Size, class, and which data of the program depend on which parameters."""
    form = model.form
    kind = {"zero": "linear program", "diagonal": "quadratic program (separable)"}.get(
        form.curvature, f"quadratic program ({form.curvature} curvature)"
    )
    if form.integer:
        kind = "mixed-integer " + kind
    me, mi = form.blocks["b"].shape[0], form.blocks["h"].shape[0]
    lines = [
        f"Model {model.name!r}: {kind}",
        f"  {form.num_user} variables ({len(form.integer)} integer), {form.n - form.num_user} auxiliary",
        f"  {me} equality rows, {mi} inequality rows",
    ]
    for label, names in _PARTS.items():
        found = form.depends(*names)
        if found:
            lines.append(f"  {label} depends on {', '.join(sorted(found))}")
    unused = set(model.parameters) - form.depends(*(n for names in _PARTS.values() for n in names))
    if unused:
        lines.append(f"  unused parameters: {', '.join(sorted(unused))}")
    return "\n".join(lines)


def _signature(name: str, shape: tuple[int, ...]) -> str:
    return name + (str(list(shape)) if shape else "")


def _range_text(v: Variable) -> str:
    ends = []
    for bound, sense in ((v.lb, ">="), (v.ub, "<=")):
        if isinstance(bound, Constant) and np.isinf(bound.value).all():
            continue
        ends.append(f"{sense} {to_text(bound)}")
    return (", " + ", ".join(ends)) if ends and v.kind != "binary" else ""
