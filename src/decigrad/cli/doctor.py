"""`decigrad doctor`: what is installed, on what it computes, and a known answer from every solver."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

import numpy as np

import decigrad as dg
from decigrad import native
from decigrad.cli.shell import Output
from decigrad.errors import ModelError, SolveError

INTERNAL = {"dev", "bench", "docs"}


@dataclass(frozen=True)
class Finding:
    """One line of the examination. `good` is None where nothing depends on it."""

    group: str
    name: str
    detail: str
    good: bool | None = None


def examine(output: Output) -> bool:
    """Show what was found; whether all that is needed works."""
    found = [*_packages(), *_devices(), *_solvers()]
    healthy = all(f.good is not False for f in found)
    if not output.silent:
        output.say(_table(found))
    output.say("all is well" if healthy else "something that is needed does not work: see above")
    output.result({"healthy": healthy, "findings": [vars(f) for f in found]})
    return healthy


def _packages() -> Iterator[Finding]:
    yield Finding("system", "Python", f"{platform.python_version()} on {platform.platform()}")
    yield Finding("system", "decigrad", version("decigrad"))
    for line in requires("decigrad") or []:
        asked = re.match(r"([A-Za-z0-9._-]+)(.*?)(?:;.*extra\s*==\s*['\"]([\w-]+)['\"].*)?$", line)
        if asked is None or asked[3] in INTERNAL:
            continue
        name, extra = asked[1], asked[3]
        try:
            installed = version(name)
        except PackageNotFoundError:
            detail = "missing" if extra is None else f"not installed: pip install 'decigrad[{extra}]'"
            yield Finding("optional" if extra else "needed", name, detail, False if extra is None else None)
        else:
            yield Finding("optional" if extra else "needed", name, installed, None if extra else True)


def _devices() -> Iterator[Finding]:
    import jax

    for device in jax.devices():
        yield Finding("devices", str(device), device.device_kind)
    with jax.enable_x64(True):
        third = float(jax.numpy.asarray(1.0) / 3.0)
    yield Finding("devices", "double precision", f"1/3 = {third!r}", third == 1 / 3)


def _solvers() -> Iterator[Finding]:
    """Every solver on a problem whose answer is known, and one derivative."""
    quadratic, linear, integer = _quadratic(), _linear(False), _linear(True)
    cost = np.array([0.8, 1.0, 1.2])
    split, cheapest = np.array([13.0, 10.0, 7.0]) / 30, np.array([1.0, 0.0, 0.0])
    if reason := native.missing():
        yield Finding("solvers", "active-set", reason)
    else:
        yield Finding("solvers", "compiled core", f"uses {native.instructions()} instructions", True)
    compiled = ("active-set", lambda: quadratic.solve({"cost": cost}, solver="active-set").x["x"], split)
    checks: list[tuple[str, Callable[[], Any], Any]] = [
        *([] if reason else [compiled]),
        ("daqp", lambda: quadratic.solve({"cost": cost}, solver="daqp").x["x"], split),
        ("interior-point", lambda: quadratic.solve({"cost": cost}, solver="interior-point").x["x"], split),
        ("highs, linear", lambda: linear.solve({"cost": cost}, solver="highs").x["x"], cheapest),
        ("highs, integer", lambda: integer.solve({"cost": cost}, solver="highs").x["x"], cheapest),
        (
            "derivative",
            lambda: quadratic.solve({"cost": cost}).sensitivity_matrix("cost"),
            np.full((3, 3), 1 / 6) - np.eye(3) / 2,
        ),
    ]
    for name, solve, expected in checks:
        try:
            error = float(np.abs(solve() - expected).max())
        except (SolveError, ModelError, ImportError) as failure:
            yield Finding("solvers", name, f"failed: {failure}", False)
        else:
            yield Finding("solvers", name, f"error {error:.0e}", error < 1e-8)


def _quadratic() -> dg.Model:
    """min cᵀx + xᵀx on the simplex: inside it, x = 1/n + (mean c − c)/2."""
    model = dg.Model("quadratic check")
    x, c = model.continuous("x", shape=3, lb=0.0), model.parameter("cost", shape=3)
    model.minimize(dg.sum(c * x) + dg.sum(x * x))
    model.subject_to(dg.sum(x) == 1.0)
    return model


def _linear(integer: bool) -> dg.Model:
    """min cᵀx on the simplex, or its corners: the cheapest corner."""
    model = dg.Model("linear check")
    x = model.binary("x", shape=3) if integer else model.continuous("x", shape=3, lb=0.0)
    model.minimize(dg.sum(model.parameter("cost", shape=3) * x))
    model.subject_to(dg.sum(x) == 1.0)
    return model


def _table(found: list[Finding]) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "", "", show_header=False, box=None)
    group = ""
    marks = {True: "[green]✓[/]", False: "[bold red]✗[/]", None: " "}
    for f in found:
        if f.group != group:
            table.add_row("", f"[bold]{f.group}[/]", "")
            group = f.group
        table.add_row(marks[f.good], escape(f.name), escape(f.detail))
    return table
