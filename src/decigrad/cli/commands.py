"""The commands of a project: `new`, `diagnose`, `train`, `compare`, `evaluate`, `report`, `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from decigrad.cli.shell import FAILED, Json, Output, Quiet, plain_errors

Configuration = Annotated[Path, typer.Argument(help="The project's config.toml, or its folder.")]
Restart = Annotated[bool, typer.Option("--restart", help="Begin anew, whatever an interrupted run has left.")]


def new(
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist, or is empty.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a commented starter project that trains as it is."""
    from decigrad.cli.new import write_project

    output = Output(json, quiet)
    with plain_errors():
        written = write_project(folder)
    output.say(f"A project is in {folder}; its README.md says what to replace. Try it as it is:")
    output.say(f"  decigrad diagnose {folder / 'config.toml'}")
    output.say(f"  decigrad train {folder / 'config.toml'}")
    output.result({"written": [str(path) for path in written]})


def diagnose(
    config: Configuration,
    report: Annotated[Path | None, typer.Option(help="Where the HTML page goes; default: none.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Whether training for decisions may help on these data, before anything is trained for them."""
    from decigrad.cli.training import run_diagnose

    with plain_errors():
        run_diagnose(config, report, Output(json, quiet))


def train(
    config: Configuration,
    restart: Restart = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train, judge on data that were held out, keep the policy. An interrupted run goes on."""
    from decigrad.cli.training import run_train

    with plain_errors():
        finished = run_train(config, restart, Output(json, quiet))
    if not finished:
        raise typer.Exit(FAILED)


def compare(
    config: Configuration, restart: Restart = False, json: Json = False, quiet: Quiet = False
) -> None:
    """Train several methods with several seeds and say which decides better. An interrupted run goes on."""
    from decigrad.cli.training import run_compare

    with plain_errors():
        run_compare(config, restart, Output(json, quiet))


def evaluate(
    policy: Annotated[Path, typer.Argument(help="The policy that `train` has kept.")],
    table: Annotated[Path, typer.Argument(help="A table with features and true values.")],
    max_regret: Annotated[
        float | None, typer.Option(help="Exit with 1 where the mean regret is larger.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge a policy by its decisions on a table. Exits with 1 where a row has no decision."""
    from decigrad.cli.training import run_evaluate

    with plain_errors():
        passed = run_evaluate(policy, table, max_regret, Output(json, quiet))
    if not passed:
        raise typer.Exit(FAILED)


def report(
    source: Annotated[
        Path, typer.Argument(help="A config.toml (its newest results), or a file of results (.json).")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page; default: report.html beside the results.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The results of `train` or `compare` as one HTML page that needs no network."""
    from decigrad.cli.training import run_report

    with plain_errors():
        run_report(source, out, Output(json, quiet))


def methods(json: Json = False, quiet: Quiet = False) -> None:
    """The methods of training by name, with what each needs."""
    from decigrad.registry import methods as known

    output, table = Output(json, quiet), known()
    output.say(str(table))
    told = ("name", "family", "needs", "solves", "decides_on", "source")
    output.result({"methods": [{key: getattr(entry, key) for key in told} for entry in table]})


def doctor(json: Json = False, quiet: Quiet = False) -> None:
    """What is installed, on what it computes, and whether every solver solves. Exits with 1 if not."""
    from decigrad.cli.doctor import examine

    if not examine(Output(json, quiet)):
        raise typer.Exit(FAILED)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    for command in (new, diagnose, train, compare, evaluate, report, methods, doctor):
        app.command()(command)
