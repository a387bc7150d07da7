"""Reports: valid, self-contained, escaped, written whole or not at all."""

import errno
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from decigrad.evaluation import _style, figures, report
from decigrad.evaluation.comparison_report import build_comparison_report, comparison_report
from decigrad.evaluation.report import Cell, Report

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks nesting; collects ids, references and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "aria-labelledby", "xlink:href"):
                self.references.append("#" + value if name == "aria-labelledby" else value)
            self.references += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def check(text: str) -> Page:
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    for reference in page.references:
        assert reference.startswith(("#", "data:image/png;base64,")), reference
        if reference.startswith("#"):
            assert reference[1:] in page.ids, reference
    assert "http:" not in text and "https:" not in text and "@import" not in text
    assert "script" not in page.tags
    return page


def small_figure(rotation: float = 0.0) -> Figure:
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1], [0, 1 + rotation])
    return figure


def test_blocks():
    r = Report("Title & more", subtitle="sub", date="2024-05-06").section("One").section("Two")
    r.text("First **bold** and *soft* `a < b`.\n\nSecond: c*x + x* stay.\n- item one\n  goes on\n- item two")
    r.verdict("It *won*.", "gain").table(["name", "value"], [["a", 1.5], ["b", None]], caption="A table")
    page = check(r.html())
    assert "Title & more" in page.text and "2024-05-06" in page.text
    assert {"strong", "em", "code", "ul", "nav"} <= set(page.tags) and page.tags.count("li") == 2
    assert "c*x + x* stay." in page.text and "item one goes on" in page.text and "a < b" in page.text
    assert "Gain. It won ." in page.text
    assert "1.500" in page.text and "–" in page.text


def test_everything_is_escaped():
    evil = "<script>alert('x')</script>"
    r = Report(evil, subtitle=evil).section(evil).text(evil).text(f"`{evil}`").verdict(evil, "loss")
    r.table([evil], [[evil]], caption=evil).figure(small_figure(), evil, evil)
    text = r.html()
    assert "<script" not in text and text.count("&lt;script&gt;") >= 9
    check(text)


def test_best_cells_are_marked():
    rows = [["a", 2.0, 1, Cell("x", 3.0)], ["b", 1.0, 5, Cell("y", 3.0)], ["c", np.nan, 5, Cell("z", 3.0)]]
    text = (
        Report("t")
        .table(["m", "low", "high", "same"], rows, best={"low": "min", "high": "max", "same": "min"})
        .html()
    )
    assert re.findall(r'class="number best">([^<]*)<', text) == ["1.000", "5", "5"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.table(["a"], [[1, 2]]), "2 cells for 1 headers"),
        (lambda r: r.table(["a"], [[1]], best={"b": "min"}), "best maps"),
        (lambda r: r.table(["a"], [[1]], best={"a": "low"}), "best maps"),
        (lambda r: r.verdict("x", "win"), "one of"),
    ],
)
def test_misuse(call, message):
    with pytest.raises(ValueError, match=message):
        call(Report("t"))


def test_figures_do_not_share_ids():
    r = Report("t")
    for k in range(3):
        r.figure(small_figure(k), f"caption {k}", f"alternative {k}")
    page = check(r.html())
    assert page.tags.count("svg") == 3 and "alternative 2" in page.text and "caption 2" in page.text
    assert page.tags.count("style") == 1  # matplotlib's own sheet would reach the whole page


def test_figures_follow_the_page_and_repeat_exactly():
    def draw() -> str:
        return report.figure_svg(
            figures.regret_scatter([1.0, 2.0], [2.0, 1.0], method="m"), alt="a", prefix="f"
        )

    svg = draw()
    assert draw() == svg
    assert "currentColor" in svg and _style.INK not in svg and _style.PAPER not in svg
    assert 'role="img"' in svg and "viewBox" in svg


def test_a_large_picture_becomes_a_png(monkeypatch):
    monkeypatch.setattr(report, "SVG_LIMIT", 10)
    page = check(Report("t").figure(small_figure(), "c", 'a "quoted" text').html())
    assert "img" in page.tags and "svg" not in page.tags


def test_write_creates_folders_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "r.html"
    assert Report("first").write(path) == path
    Report("second").write(path)
    assert "second" in path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["r.html"]
    link = tmp_path / "link.html"
    link.symlink_to(path)
    Report("third").write(link)
    assert link.is_symlink() and "third" in path.read_text(encoding="utf-8")


def test_write_says_why_it_cannot(tmp_path):
    with pytest.raises(IsADirectoryError, match="cannot write the report: it is a folder"):
        Report("t").write(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="a parent of the path is a file"):
        Report("t").write(tmp_path / "file" / "r.html")
    with pytest.raises(OSError, match="shorter name"):
        Report("t").write(tmp_path / ("x" * 300))


@pytest.mark.parametrize(("code", "kind"), [(errno.ENOSPC, OSError), (errno.EACCES, PermissionError)])
def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch, code, kind):
    path = tmp_path / "r.html"
    path.write_text("old")

    def fail(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind, match="cannot write the report") as caught:
        Report("t").write(path)
    assert caught.value.errno == code and caught.value.filename == str(path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


# ---------------------------------------------------------------------------------------- whole comparisons


def test_comparison_report(make_comparison, tmp_path):
    data = make_comparison(unit="EUR", notes=["Costs are drawn anew for every seed."])
    path = comparison_report(data, tmp_path / "r.html", "Allocation", date="")
    page = check(path.read_text(encoding="utf-8"))
    for word in ("Verdict", "Results", "Pictures", "Why they differ", "What was run", "Definitions"):
        assert word in page.text
    assert data.verdict("regret").text.replace("\xa0", " ") in page.text.replace("\xa0", " ")
    assert "regret has the smallest mean regret of the 2 methods tried" in re.sub(r" +", " ", page.text)
    assert (
        "Costs are drawn anew" in page.text and "training samples" in page.text and "regret, EUR" in page.text
    )
    # Gain, distribution, two scatters, training; sorted gains, errors, calibration, decisions.
    assert page.tags.count("svg") == 9
    assert build_comparison_report(data, "Allocation", date="").html() == path.read_text(encoding="utf-8")


def test_a_loss_is_reported_as_such(make_comparison):
    data = make_comparison({"two-stage": 0.2, "regret": 0.9}, seeds=5)
    text = check(build_comparison_report(data, "t").html()).text
    assert (
        "Loss. regret loses to two-stage" in text
        and "Decision-focused training lost here: use two-stage." in text
    )


def test_failures_stand_out(make_comparison):
    text = check(build_comparison_report(make_comparison(failed=2), "t").html()).text
    assert "Failed instances" in text and "regret: 6, spo+: 6" in text and "failed" in text


@pytest.mark.parametrize(
    "arguments",
    [
        {"seeds": 1},
        {"seeds": 1, "instances": 1},
        {"noise": {"two-stage": 0.5}},
        {"noise": {"two-stage": 0.5, "regret": 0.5}},
        {"failed": 40},
        {"n": 1},
        {"n": 60, "noise": {"two-stage": 0.5, "<script>": 0.4}, "shared": True, "block": 5},
    ],
    ids=str,
)
def test_edges(make_comparison, arguments):
    check(build_comparison_report(make_comparison(**arguments), "t").html())
