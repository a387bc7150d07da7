"""Progress bars that are there when somebody looks: the callback that every `fit` has, and one for loops."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from decigrad.callbacks import Event


def tracked(items: Sequence[Any], title: str, wanted: bool | None = None) -> Iterable[Any]:
    """The items, with a bar of how many are done; silent unless wanted, None: where somebody looks."""
    if not (sys.stderr.isatty() if wanted is None else wanted):
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, title, console=Console(stderr=True), transient=True)


class Progress:
    """Shows epochs, the latest figures and the time left; silent unless wanted.

    Args:
        wanted: show it; None: where standard error is a terminal.
    """

    def __init__(self, wanted: bool | None = None) -> None:
        self.wanted = sys.stderr.isatty() if wanted is None else wanted
        self._bar: Any = None
        self._task: Any = None
        self._title = ""

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
            self._task, self._title = self._bar.add_task("starting", total=None, figures=""), ""
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, event: Event) -> None:
        """Show it."""
        if self._bar is None:
            return
        if event.title != self._title:
            self._bar.remove_task(self._task)
            self._task = self._bar.add_task(event.title, total=event.epochs, figures="")
            self._title = event.title
        figures = "  ".join(f"{name} {value:.4g}" for name, value in event.figures.items())
        self._bar.update(self._task, completed=event.epoch, figures=figures)
