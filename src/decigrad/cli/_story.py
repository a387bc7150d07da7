"""One text for two readers: every block goes to the terminal and into the HTML report."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decigrad.evaluation.report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.progress import Progress

_STYLES = {"gain": "green", "loss": "red", "tie": "yellow"}


class Story:
    """Blocks as in `Report`, shown on the console as they are added; pictures go to the report alone."""

    def __init__(self, title: str, subtitle: str = "", console: Console | None = None) -> None:
        from rich.console import Console

        self.report = Report(title, subtitle=subtitle)
        self.console = Console(highlight=False) if console is None else console
        self.console.print(f"[bold]{title}[/bold]" + (f"\n{subtitle}" if subtitle else ""))
        self._sections = 0

    def section(self, title: str) -> None:
        """Start a numbered section."""
        self._sections += 1
        self.console.print()
        self.console.rule(f"[bold]{self._sections}. {title}", align="left")
        self.report.section(title)

    def text(self, text: str) -> None:
        """Paragraphs, with `**bold**`, `*emphasis*` and backquoted code."""
        for paragraph in re.split(r"\n\s*\n", text.strip()):
            self.console.print(_markup(" ".join(paragraph.split())))
        self.report.text(text)

    def verdict(self, text: str, kind: str) -> None:
        """A highlighted conclusion: "gain", "loss" or "tie"."""
        self.console.print(_markup(text), style=_STYLES[kind])
        self.report.verdict(text, kind)

    def table(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        caption: str = "",
        best: Mapping[str, str] | None = None,
    ) -> None:
        """A table of strings (or `Cell`s); see `Report.table`."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for i, header in enumerate(headers):
            table.add_column(header, justify="left" if i == 0 else "right", overflow="fold")
        for row in rows:
            table.add_row(*(_escape(getattr(cell, "text", cell)) for cell in row))
        self.console.print(table)
        if caption:
            self.console.print(_markup(caption), style="dim")
        self.report.table(headers, rows, caption=caption, best=best)

    def figure(self, figure: Figure, caption: str, alt: str = "") -> None:
        """A picture, for the report."""
        self.report.figure(figure, caption, alt)

    def progress(self) -> Progress:
        """A progress bar that vanishes when done."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        return Progress(*columns, console=self.console, transient=True)

    def write(self, path: Path) -> None:
        """Write the report and say where it is."""
        written = self.report.write(path)
        self.console.print(f"\nThe report is in [bold]{_escape(str(written))}[/bold].")


def _escape(text: Any) -> str:
    from rich.markup import escape

    return escape(str(text))


def _markup(text: str) -> str:
    """The report's inline marks as the console's."""
    text = _escape(text)
    text = re.sub(r"`([^`]+)`", r"[cyan]\1[/cyan]", text)
    text = re.sub(r"\*\*(\S(?:.*?\S)?)\*\*", r"[bold]\1[/bold]", text)
    return re.sub(r"(?<![\w*])\*(\S(?:[^*]*?\S)?)\*(?![\w*])", r"[italic]\1[/italic]", text)
