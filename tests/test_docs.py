"""The Python of README.md and docs/ runs: every ```python block, in order, one namespace per page.

A block that cannot run here stands below a comment that says why: `<!-- skip: needs a GPU -->`. A block in a
comment (`<!-- setup`, the fence, `-->`) runs and is not shown: data that the page takes as given. A page
about an optional package says so, `<!-- needs: torch -->`, and is skipped where that is not installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if path.exists())
FENCE = re.compile(r"^```python[^\n]*\n(?P<code>.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"<!-- needs: (\w+) -->")
SKIP = re.compile(r"<!-- skip: \S.*-->\s*\Z")


@dataclass
class Page:
    """The blocks of one page, those that ran, and the names they left behind."""

    path: Path
    blocks: list[tuple[int, str]]
    needs: list[str]
    ran: int = 0
    wide: bool = False  # whether the page has switched JAX to double precision
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__docs__"})

    def run_through(self, number: int) -> None:
        """Run what has not run yet up to a block, so that a block can also be tested alone."""
        while self.ran <= number:
            line, code = self.blocks[self.ran]
            self.ran += 1  # a block that fails is not tried again by the blocks below it
            # Blank lines in front make a traceback name the line of the page.
            source = "\n" * (line - 1) + code
            # Not this file's `annotations` of the future: a reader's module has none.
            jax.config.update("jax_enable_x64", self.wide)
            try:
                exec(compile(source, str(self.path), "exec", dont_inherit=True), self.names)
            finally:
                self.wide = jax.config.jax_enable_x64
                jax.config.update("jax_enable_x64", False)


def read(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    blocks = [
        (text.count("\n", 0, found.start("code")) + 1, found["code"])
        for found in FENCE.finditer(text)
        if not SKIP.search(text, 0, found.start())
    ]
    return Page(path, blocks, NEEDS.findall(text))


def cases() -> list[Any]:
    result = []
    for path in PAGES:
        page, name = read(path), path.relative_to(ROOT).as_posix()
        result += [pytest.param(page, i, id=f"{name}:{line}") for i, (line, _) in enumerate(page.blocks)]
    return result


@pytest.mark.parametrize(("page", "number"), cases())
def test_block_runs(page: Page, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in page.needs:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)  # a page may write report.html
    page.run_through(number)


def test_notebooks_are_executed() -> None:
    """A page with code cells names its kernel: without, the cells would be shown and never run."""
    pages = {p: p.read_text(encoding="utf-8") for p in PAGES}
    cells = {p for p, text in pages.items() if re.search(r"^```+\{code-cell\}", text, re.MULTILINE)}
    kernels = {
        p for p, text in pages.items() if re.match(r"---\n(?:.*\n)*?kernelspec:\n  name: python3\n", text)
    }
    assert cells == kernels
    assert any(p.parent.name == "tutorials" for p in cells)
    conf = (ROOT / "docs" / "conf.py").read_text(encoding="utf-8")
    assert "nb_execution_raise_on_error = True" in conf


def test_every_skip_gives_a_reason() -> None:
    bare = [p.name for p in PAGES if re.search(r"<!--\s*skip\s*:?\s*-->", p.read_text(encoding="utf-8"))]
    assert not bare, f"a skipped block without a reason in {bare}"
