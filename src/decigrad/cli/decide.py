"""`decigrad decide`: a table of features in, a table of decisions out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from decigrad.errors import ModelError
from decigrad.policy import Policy


def run(
    policy: Path,
    table: Path,
    out: Path,
    *,
    batch: int,
    keep: list[str],
    time_limit: float | None,
    fallback: Path | None,
    allow_failures: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Decide a table; returns what is printed."""
    rule = read_policy(policy, fallback)
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.completed} rows"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("decide", total=None)
        found = rule.decide_file(
            table,
            out,
            batch=batch,
            keep=keep,
            time_limit=time_limit,
            throw=not allow_failures,
            progress=lambda rows: bar.update(task, completed=rows),
        )
    return {
        "target": str(found.target),
        "rows": found.rows,
        "failed": found.failed,
        "fallback": found.fallback,
        "seconds": found.seconds,
    }


def read_policy(path: Path, fallback: Path | None) -> Policy:
    """A saved policy, with the fallback decision of a JSON file: {"variable": number or nested lists}."""
    policy = Policy.load(path)
    if fallback is None:
        return policy
    try:
        given = json.loads(fallback.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{fallback} is not JSON: {error}") from None
    return policy.with_fallback(given)
