"""The command line: `decigrad tutorial`, `decigrad study portfolio`, `decigrad study battery`.

Commands import what they need when they run, so that `decigrad --help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="decigrad",
    help="Decision-focused learning: predictors trained by the quality of the decisions they lead to.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
study = typer.Typer(help="Studies on real data.", no_args_is_help=True)
app.add_typer(study, name="study")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"decigrad {version('decigrad')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Decision-focused learning: predictors trained by the quality of the decisions they lead to."""


@app.command()
def tutorial(
    seed: Annotated[int, typer.Option(help="Seed of the draws; 42 gives the published figures.")] = 42,
    seeds: Annotated[int, typer.Option(min=2, help="How many seeds the repeated comparison takes.")] = 30,
    report: Annotated[Path, typer.Option(help="Where the HTML report goes.")] = Path("tutorial.html"),
    data_size: Annotated[
        list[int] | None,
        typer.Option(min=10, help="Training samples in the learning curve; repeat for several sizes."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer seeds and smaller data: seconds.")] = False,
) -> None:
    """Recompute the tutorial's figures, then show what one seed and its score leave out."""
    from decigrad.cli.tutorial import run

    run(seed=seed, seeds=seeds, report=report, sizes=data_size, quick=quick)
