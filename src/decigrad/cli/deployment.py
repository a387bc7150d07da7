"""The commands of deployment: `decide` for tables, `serve` over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decigrad.cli.shell import Json, Output, Quiet, plain_errors

Fallback = Annotated[Path | None, typer.Option(help="JSON file: a decision by variable, for rows that fail.")]


def decide(
    policy: Annotated[Path, typer.Argument(help="A saved policy.")],
    table: Annotated[Path, typer.Argument(help="Features: a Parquet or CSV file; it may exceed memory.")],
    out: Annotated[Path, typer.Option(help="Where the decisions go: a Parquet or CSV file.")],
    keep: Annotated[
        list[str] | None, typer.Option(help="Column to copy in front of the decisions; repeat for several.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Rows at a time.")] = 8192,
    time_limit: Annotated[float | None, typer.Option(min=0, help="Seconds for each batch.")] = None,
    fallback: Fallback = None,
    allow_failures: Annotated[
        bool, typer.Option("--allow-failures", help="Leave rows without a decision empty.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decisions for a table of features, by a saved policy."""
    from decigrad.cli.decide import run

    output = Output(json, quiet)
    with plain_errors():
        done = run(
            policy, table, out, batch=batch, keep=keep or [], time_limit=time_limit, fallback=fallback,
            allow_failures=allow_failures, quiet=output.silent,
        )  # fmt: skip
    output.say(
        f"{done['rows']} decisions in {done['target']} ({done['seconds']:.1f} s): {done['failed']} failed, "
        f"{done['fallback']} of them have the fallback"
    )
    output.result(done)


def serve(
    policy: Annotated[Path, typer.Argument(help="A saved policy.")],
    host: Annotated[
        str, typer.Option(help="Address; by default only this machine can reach it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    time_limit: Annotated[float, typer.Option(min=0, help="Seconds for one request.")] = 10.0,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows of one request.")] = 1000,
    max_bytes: Annotated[int, typer.Option(min=1, help="Bytes of one request.")] = 10_000_000,
    fallback: Fallback = None,
    quiet: Quiet = False,
) -> None:
    """Answer feature rows with decisions over HTTP (needs the extra `serve`)."""
    from decigrad.cli.decide import read_policy
    from decigrad.cli.serve import run

    output = Output(quiet=quiet)
    with plain_errors():
        run(
            read_policy(policy, fallback), host=host, port=port, time_limit=time_limit, max_rows=max_rows,
            max_bytes=max_bytes, say=output.say, warn=lambda text: typer.echo(f"decigrad: {text}", err=True),
        )  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (decide, serve):
        app.command()(command)
