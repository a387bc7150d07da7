"""A progress bar that is there when somebody looks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any


class Progress:
    """Shows epochs, the latest figures and the time left; silent unless wanted.

    Args:
        wanted: show it; None: where standard error is a terminal.
    """

    def __init__(self, wanted: bool | None = None) -> None:
        self.wanted = sys.stderr.isatty() if wanted is None else wanted
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self.wanted:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def track(self, steps: Iterable[Any], label: str) -> Iterator[Any]:
        """Iterate over steps under a label."""
        if self._bar is None:
            yield from steps
            return
        listed = list(steps)
        self._task = self._bar.add_task(label, total=len(listed), figures="")
        for step in listed:
            yield step
            self._bar.advance(self._task)
        self._bar.remove_task(self._task)

    def show(self, **figures: float) -> None:
        """The latest figures, beside the bar."""
        if self._bar is not None:
            text = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
            self._bar.update(self._task, figures=text)
