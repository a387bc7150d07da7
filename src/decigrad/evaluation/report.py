"""Reports: one self-contained HTML file with text, tables and pictures, written atomically.

A `Report` is filled block by block and written once. Everything it is given is text and is escaped; the file
refers to nothing outside itself, reads well on a phone, on paper, and in light and dark.
"""

from __future__ import annotations

import base64
import datetime
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decigrad.evaluation._style import INK, PALETTE, PAPER
from decigrad.evaluation.statistics import format_number
from decigrad.files import write_atomically

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

# A picture whose SVG is larger than this many characters goes in as a PNG.
SVG_LIMIT = 700_000
_PNG_DPI = 170
# Figures wider than this many inches take the whole width of the page.
_WIDE = 6.6

# Colours too dark for a dark page; its style sheet has lighter ones.
_PAGE_COLOURS = {"blue": PALETTE[0], "green": PALETTE[2]}

_VERDICTS = {"gain": "Gain.", "loss": "Loss.", "tie": "No clear difference."}


@dataclass(frozen=True)
class Cell:
    """A table cell that is shown as `text` and compared by `value`."""

    text: str
    value: float = float("nan")


class Report:
    """Builds a report block by block; every method but `html` and `write` returns the report, for chaining.

    Arguments:
        title: of the page.
        subtitle: one line below it.
        date: shown in the footer; default today, "" for none (files that must not change from run to run).

    >>> report = Report("Allocation", date="").section("Result").text("All *well*.")
    >>> "<em>well</em>" in report.html()
    True
    """

    def __init__(self, title: str, *, subtitle: str = "", date: str | None = None) -> None:
        self.title = title
        self.subtitle = subtitle
        self.date = datetime.date.today().isoformat() if date is None else date
        self._blocks: list[dict[str, Any]] = []
        self._figures = 0

    def section(self, title: str) -> Report:
        """Start a section; sections are linked from the top of the page."""
        number = 1 + sum(b["kind"] == "section" for b in self._blocks)
        self._blocks.append({"kind": "section", "title": title, "id": f"section-{number}"})
        return self

    def text(self, text: str) -> Report:
        """Add paragraphs.

        Blank lines part paragraphs, lines that start with "- " form a list; `**bold**`, `*emphasis*` and
        `` `code` `` are known. Everything else is shown as it stands, HTML included.
        """
        self._blocks.append({"kind": "text", "html": _paragraphs(text)})
        return self

    def verdict(self, text: str, kind: str = "tie", word: str = "") -> Report:
        """Add a highlighted conclusion.

        Arguments:
            text: a sentence; inline marks as in `text`.
            kind: "gain", "loss" or "tie"; shown as a word beside the colour.
            word: in place of the kind's own.
        Raises:
            ValueError: another kind.
        """
        if kind not in _VERDICTS:
            raise ValueError(f"the kind of a verdict is one of {sorted(_VERDICTS)}, got {kind!r}")
        block = {"kind": "verdict", "verdict": kind, "word": word or _VERDICTS[kind], "html": _inline(text)}
        self._blocks.append(block)
        return self

    def table(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[Any]],
        *,
        caption: str = "",
        best: Mapping[str, str] | None = None,
    ) -> Report:
        """Add a table; the first column heads its row.

        Arguments:
            headers: one a column.
            rows: of strings, numbers (shown in four digits), or `Cell`s.
            best: for each header named, "min" or "max": the column's best value is marked (all that tie for
                it, as long as not every row does).
        Raises:
            ValueError: a row has another length than the headers, or `best` names no header.
        """
        for row in rows:
            if len(row) != len(headers):
                raise ValueError(f"a row has {len(row)} cells for {len(headers)} headers: {row}")
        marks: set[tuple[int, int]] = set()
        for header, direction in (best or {}).items():
            if header not in headers or direction not in ("min", "max"):
                raise ValueError(f'best maps a header to "min" or "max", got {header!r}: {direction!r}')
            column = list(headers).index(header)
            values = np.array([_value(row[column]) for row in rows], dtype=float)
            if np.isfinite(values).any():
                target = np.nanmin(values) if direction == "min" else np.nanmax(values)
                ties = np.flatnonzero(values == target)
                if len(ties) < len(rows):
                    marks |= {(int(i), column) for i in ties}
        cells = [
            [
                {"text": _shown(c), "number": np.isfinite(_value(c)), "best": (i, j) in marks}
                for j, c in enumerate(row)
            ]
            for i, row in enumerate(rows)
        ]
        numeric = [any(row[j]["number"] for row in cells) for j in range(len(headers))]
        for row in cells:
            for j, cell in enumerate(row):
                # A missing number stays in line with its column.
                cell["number"] = numeric[j] and (cell["number"] or len(cell["text"]) <= 1)
        heads = [{"text": h, "number": numeric[j] and j > 0} for j, h in enumerate(headers)]
        block = {"kind": "table", "headers": heads, "rows": cells, "caption": caption}
        block["id"] = f"table-{1 + sum(b['kind'] == 'table' for b in self._blocks)}"
        self._blocks.append(block)
        return self

    def figure(self, figure: Figure, caption: str = "", alt: str = "") -> Report:
        """Add a picture; consecutive ones stand side by side where the page is wide enough.

        Arguments:
            figure: a matplotlib figure, drawn now (later changes do not show).
            caption: shown below.
            alt: what a reader who cannot see it should know; default the caption.
        """
        from markupsafe import Markup

        self._figures += 1
        alt = alt or caption or f"Figure {self._figures}"
        svg = figure_svg(figure, alt=alt, prefix=f"figure-{self._figures}")
        html = svg if len(svg) <= SVG_LIMIT else _png(figure, alt)
        entry = {
            "html": Markup(html),
            "caption": caption,
            "alt": alt,
            "wide": float(figure.get_figwidth()) > _WIDE,
        }
        if self._blocks and self._blocks[-1]["kind"] == "figures":
            self._blocks[-1]["figures"].append(entry)
        else:
            self._blocks.append({"kind": "figures", "figures": [entry]})
        return self

    def html(self) -> str:
        """The page as text."""
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("decigrad.evaluation", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        footer = f"Written by decigrad {package_version('decigrad')}" + (
            f" on {self.date}." if self.date else "."
        )
        template = environment.get_template("report.html.j2")
        return template.render(title=self.title, subtitle=self.subtitle, blocks=self._blocks, footer=footer)

    def write(self, path: str | Path) -> Path:
        """Write the page; a reader sees the old file or the whole new one, never a part.

        Parent folders are created.

        Returns:
            The path written.
        Raises:
            OSError: the path cannot be written (no permission, a folder, no space left); the old file stays.
        """
        write_atomically(path, self.html(), what="the report")
        return Path(path)


# ----------------------------------------------------------------------------------------------- pictures


def figure_svg(figure: Figure, *, alt: str, prefix: str) -> str:
    """A matplotlib figure as an inline `<svg>` element.

    Its ids start with `prefix` and are numbered in order of appearance, so that several pictures share a page
    and the same picture always gives the same text. It scales with its frame, carries `alt` as its title, and
    takes text and background colours from the page (`currentColor`) where it was drawn in `INK` on `PAPER`.
    """
    from markupsafe import escape

    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    names: dict[str, str] = {}
    for name in re.findall(r'\sid="([^"]+)"', text):
        names.setdefault(name, f"{prefix}-{len(names) + 1}")
    text = re.sub(r'(\s)id="([^"]+)"', lambda m: f'{m[1]}id="{names[m[2]]}"', text)
    text = re.sub(r"url\(#([^)]+)\)", lambda m: f"url(#{names.get(m[1], m[1])})", text)
    text = re.sub(r'href="#([^"]+)"', lambda m: f'href="#{names.get(m[1], m[1])}"', text)
    # HTML needs no namespaces, and the page then names no address at all; `href` replaces `xlink:href`.
    text = text.replace("xlink:href", "href")
    text = re.sub(r"<style[^>]*>\s*\*\{([^}]*)\}\s*</style>", "", text)
    text = text.replace(INK, "currentColor").replace(PAPER, "none")
    for name, colour in _PAGE_COLOURS.items():
        text = text.replace(colour, f"var(--{name}, {colour})")
    box = re.search(r'viewBox="([^"]+)"', text)
    size = re.search(r'<svg[^>]*?\swidth="([\d.]+)pt"', text)
    end = text.index(">") + 1
    # What matplotlib's own style sheet says of every element; inline, because a sheet would reach the page.
    style = "stroke-linejoin: round; stroke-linecap: butt"
    limit = f' style="max-width: {float(size[1]) / 72:.2f}in; {style}"' if size else ""
    title = f"{prefix}-title"
    opening = f'<svg viewBox="{box[1]}"{limit} role="img" aria-labelledby="{title}">' if box else text[:end]
    return f'{opening}<title id="{title}">{escape(alt)}</title>{text[end:]}'.strip()


def _png(figure: Figure, alt: str) -> str:
    from markupsafe import escape

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_PNG_DPI)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    width = f"max-width: {figure.get_figwidth():.2f}in"
    return f'<img alt="{escape(alt)}" style="{width}" src="data:image/png;base64,{data}">'


# --------------------------------------------------------------------------------------------------- text


def _inline(text: str) -> Markup:
    """One run of text: escaped first, so that only our own marks become elements."""
    from markupsafe import Markup, escape

    pieces = re.split(r"(`[^`\n]+`)", text)
    out = []
    for piece in pieces:
        if len(piece) > 2 and piece.startswith("`") and piece.endswith("`"):
            out.append(f"<code>{escape(piece[1:-1])}</code>")
            continue
        safe = str(escape(piece))
        safe = re.sub(r"\*\*(\S(?:.*?\S)?)\*\*", r"<strong>\1</strong>", safe, flags=re.DOTALL)
        # A star inside a word or formula (x*, c*x) is a star.
        safe = re.sub(r"(?<![\w*])\*(\S(?:[^*]*?\S)?)\*(?![\w*])", r"<em>\1</em>", safe)
        out.append(safe)
    return Markup("".join(out))


def _paragraphs(text: str) -> Markup:
    from markupsafe import Markup

    out = []
    for part in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in part.splitlines()]
        prose: list[str] = []
        items: list[str] = []
        for line in lines:
            if line.startswith("- "):
                items.append(line[2:])
            elif items:
                items[-1] += " " + line
            else:
                prose.append(line)
        if prose:
            out.append(f"<p>{_inline(' '.join(prose))}</p>")
        if items:
            out.append("<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>")
    return Markup("\n".join(out))


def _value(cell: Any) -> float:
    if isinstance(cell, Cell):
        return float(cell.value)
    if isinstance(cell, bool | np.bool_) or not isinstance(cell, int | float | np.number):
        return float("nan")
    return float(cell)


def _shown(cell: Any) -> str:
    if isinstance(cell, Cell):
        return cell.text
    if isinstance(cell, bool | np.bool_):
        return "yes" if cell else "no"
    if isinstance(cell, int | np.integer):
        return f"{int(cell):,}".replace(",", "\u202f").replace("-", "−")
    if isinstance(cell, float | np.floating):
        return format_number(float(cell))
    return "–" if cell is None else str(cell)


def package_version(package: str) -> str:
    """The installed version of a package, for the record of what was run."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
