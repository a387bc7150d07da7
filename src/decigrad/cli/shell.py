"""What every command shares: plain errors, exit codes, and output for people or for programs.

Exit codes: 0 done; 1 it ran, and something failed; 2 what was asked for is wrong.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

FAILED, WRONG = 1, 2

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no remarks; errors only.")]


@contextmanager
def plain_errors() -> Iterator[None]:
    """Errors of the user's making end the command with their message instead of a traceback."""
    from decigrad.errors import ModelError, SolveError

    try:
        yield
    except (ImportError, OSError, ModelError) as error:
        typer.echo(f"decigrad: {_in_words(error)}", err=True)
        raise typer.Exit(WRONG) from error
    except SolveError as error:
        typer.echo(f"decigrad: {error}", err=True)
        for note in getattr(error, "__notes__", []):
            typer.echo(f"  {note}", err=True)
        raise typer.Exit(FAILED) from error


def _in_words(error: Exception) -> str:
    """The message; of a file that cannot be used, its name and the reason."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


@dataclass(frozen=True)
class Output:
    """Where a command's words go: remarks to people, one JSON object to programs."""

    json: bool = False
    quiet: bool = False

    @property
    def silent(self) -> bool:
        """Whether nobody reads along."""
        return self.json or self.quiet

    @property
    def progress(self) -> bool | None:
        """What `fit` and others take: no bar for nobody, else one where the terminal shows it."""
        return False if self.silent else None

    def say(self, what: Any) -> None:
        """A text, or a table of Rich's, for people."""
        if self.silent:
            return
        if isinstance(what, str):
            typer.echo(what)
            return
        from rich.console import Console

        Console(width=None).print(what)

    def fail(self, what: str) -> None:
        """Why the command ends with `FAILED`, for everybody."""
        typer.echo(f"decigrad: {what}", err=True)

    def result(self, content: Mapping[str, Any]) -> None:
        """The outcome for programs."""
        if self.json:
            from decigrad.evaluation.metrics import plain

            typer.echo(json.dumps(plain(content), allow_nan=False, default=str))

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Show what the package logs: remarks to people who read along, warnings to everybody else."""
        logger = logging.getLogger("decigrad")
        handler, level, propagate = logging.StreamHandler(), logger.level, logger.propagate
        handler.setFormatter(logging.Formatter("decigrad: %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING if self.silent else logging.INFO)
        logger.propagate = False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
