"""The command line: projects (`decigrad new`, `diagnose`, `train`, `decide`, …), benchmarks and studies.

Commands import what they need when they run, so that `decigrad --help` answers at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decigrad.cli import deployment
from decigrad.cli.commands import register
from decigrad.cli.shell import plain_errors

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

    with plain_errors():
        matched = run(seed=seed, seeds=seeds, report=report, sizes=data_size, quick=quick)
    if not matched:
        raise typer.Exit(1)


@study.command()
def portfolio(
    seeds: Annotated[int, typer.Option(min=1, help="How often training is repeated.")] = 5,
    report: Annotated[Path | None, typer.Option(help="Where the HTML report goes; default: none.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A short version of the study.")] = False,
) -> None:
    """Weekly portfolios of S&P 500 stocks, walk-forward (needs the extra `datasets`)."""
    from decigrad.cli.study import run_portfolio

    with plain_errors():
        run_portfolio(seeds=seeds, report=report, quick=quick)


@study.command()
def battery(
    data: Annotated[Path, typer.Option(help="CSV file of hourly prices, loads and temperatures.")],
    seeds: Annotated[int, typer.Option(min=1, help="How often training is repeated.")] = 5,
    report: Annotated[Path | None, typer.Option(help="Where the HTML report goes; default: none.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A short version of the study.")] = False,
) -> None:
    """Day-ahead arbitrage with a grid battery (Donti, Amos and Kolter, 2017)."""
    from decigrad.cli.study import run_battery

    with plain_errors():
        run_battery(data, seeds=seeds, report=report, quick=quick)


@study.command()
def energy(
    data: Annotated[Path, typer.Option(help="Directory of knapsack_Data.npz (ICON / PredOpt benchmarks).")],
    seeds: Annotated[int, typer.Option(min=1, help="How often training is repeated.")] = 5,
    report: Annotated[Path | None, typer.Option(help="Where the HTML report goes; default: none.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A short version of the study.")] = False,
) -> None:
    """A knapsack of half-hours at Irish electricity prices, walk-forward."""
    from decigrad.cli.study import run_energy

    with plain_errors():
        run_energy(data, seeds=seeds, report=report, quick=quick)


@app.command()
def bench(
    problem: Annotated[str, typer.Argument(help="Name of the benchmark; or `list`, or `summary`.")],
    methods: Annotated[
        list[str] | None, typer.Option(help="Method to run; repeat for several. Default: all that apply.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How often each method is trained.")] = 5,
    cells: Annotated[str, typer.Option(help="Only settings whose label matches: 'degree 4*'.")] = "*",
    data: Annotated[Path | None, typer.Option(help="Directory of your files, where some are needed.")] = None,
    out: Annotated[Path, typer.Option(help="Directory of the results; runs in it stay.")] = Path("bench"),
    epochs: Annotated[int | None, typer.Option(min=1, help="In place of the benchmark's own.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train at the same time.")] = 1,
) -> None:
    """Every method on a benchmark problem, beside published figures; run again to resume."""
    from decigrad.cli._bench_summary import summarize
    from decigrad.cli.bench import run_bench
    from decigrad.problems.benchmarks import BENCHMARKS

    if problem == "list":
        for one in BENCHMARKS.values():
            typer.echo(f"{one.name:20}{one.title}")
        return
    with plain_errors():
        if problem == "summary":
            typer.echo(summarize(out))
            return
        run_bench(problem, methods or (), seeds, cells, data, out, epochs, workers, say=typer.echo)


register(app)
deployment.register(app)
