"""The pages in a real browser: phone, desk and paper, without a network. Skipped where no Chromium is "
"found."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import decigrad as dg
from decigrad.evaluation.aspects import Sensitivity, WeightChange
from decigrad.evaluation.comparison_report import build_comparison_report
from decigrad.evaluation.diagnosis_report import build_diagnosis_report
from decigrad.evaluation.dots import method_dots
from decigrad.evaluation.explanation import explain
from decigrad.evaluation.report import Report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
CHROMIUM = next((found for found in map(shutil.which, NAMES) if found), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the path"),
    pytest.mark.timeout(400),  # a browser beside other work
]
WIDTHS = (390, 1200)

# All pages and widths at once, as frames, measured from outside: the pages themselves have no script.
PROBE = """<!DOCTYPE html><meta charset="utf-8"><body><pre id="found"></pre>FRAMES<script>
addEventListener("load", () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, root = page.documentElement;
    const inside = (e) => e.closest(".table, .picture") !== null;
    const wide = [...page.querySelectorAll("body *")].filter(
      (e) => !inside(e) && e.getBoundingClientRect().right > root.clientWidth + 1).map((e) => e.tagName);
    const pictures = [...page.querySelectorAll("figure svg, figure img")].map((p) => {
      const box = p.getBoundingClientRect();
      return {width: box.width, height: box.height,
        name: p.alt || p.querySelector("title")?.textContent || ""};
    });
    found[frame.name] = {
      scroll: root.scrollWidth, client: root.clientWidth, wide, pictures,
      text: parseFloat(frame.contentWindow.getComputedStyle(page.body).fontSize),
      fetched: frame.contentWindow.performance.getEntriesByType("resource").map((r) => r.name),
      scrolls: [...page.querySelectorAll(".table")].every((t) =>
        frame.contentWindow.getComputedStyle(t).overflowX === "auto"),
    };
  }
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>"""


def chromium(folder: Path, *arguments: str) -> str:
    """Run it headless, with a profile of its own and no way to any host."""
    assert CHROMIUM is not None
    offline = "--host-resolver-rules=MAP * ~NOTFOUND"
    plain = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        offline,
    ]
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as profile:
        done = subprocess.run(
            [CHROMIUM, *plain, f"--user-data-dir={profile}", *arguments],
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def comparison_page(make_comparison) -> str:
    """With everything that is wide: long names, many components, many features."""
    data = make_comparison(n=40, unit="EUR")
    rng = np.random.default_rng(0)
    features = [f"a feature with quite a long name, number {j}" for j in range(30)]
    before = rng.normal(size=(30, 40))
    labels = [f"[{j}]" for j in range(40)]
    after = before + 0.1 * rng.normal(size=before.shape)
    weights = WeightChange(features, labels, before, after, True, (1.0, 1.0))
    sensitivity = Sensitivity(
        7, rng.normal(size=(40, 40)), *([f"{n}{k}" for k in labels] for n in ("x", "cost"))
    )
    explained = replace(explain(data), weights=weights, sensitivity=sensitivity, missing={})
    return build_comparison_report(data, "A comparison", date="", explanation=explained).html()


def diagnosis_page() -> str:
    m = dg.Model("simplex")
    x = m.continuous("x", shape=3, lb=0.0, ub=1.0)
    m.minimize(m.parameter("cost", shape=3) @ x)
    m.subject_to(dg.sum(x) == 1.0)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 2))
    costs = np.column_stack([features[:, 0] * features[:, 1], features]) + 0.1 * rng.normal(size=(60, 3))
    own = dg.Oracle(lambda c: np.eye(3)[c.argmin(1)])
    layer = dg.DecisionLayer(m, solver=own)
    found = dg.diagnose(layer, dg.Dataset(features, {"cost": costs}), draws=1, unit="EUR")
    return build_diagnosis_report(found, "A diagnosis", date="").html()


def bench_page() -> str:
    rng = np.random.default_rng(0)
    values = {f"method-{j}": 10.0 + rng.normal(size=5) for j in range(30)}
    values["two-stage"] = 11.0 + rng.normal(size=5)
    report = Report("A benchmark", date="").section("Results")
    report.table(["method", *(f"column {j}" for j in range(9))], [[m, *range(9)] for m in values])
    return report.figure(method_dots(values, floor=9.0, unit="%"), "All methods.").html()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def pages(make_comparison) -> dict[str, str]:
    comparison = comparison_page(make_comparison)
    return {"comparison": comparison, "diagnosis": diagnosis_page(), "bench": bench_page()}


@pytest.fixture(scope="module")
def measured(pages, folder) -> dict[str, dict]:
    """What each page looks like at each width, by "page width"."""
    frames = "".join(
        f'<iframe name="{name} {w}" width="{w}" height="900" srcdoc="{html.escape(page)}"></iframe>'
        for name, page in pages.items()
        for w in WIDTHS
    )
    probe = folder / "probe.html"
    probe.write_text(PROBE.replace("FRAMES", frames), encoding="utf-8")
    text = chromium(folder, "--dump-dom", probe.as_uri())
    found = re.search(r'<pre id="found">(.*?)</pre>', text, re.DOTALL)
    assert found is not None and found[1], "the probe did not run"
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("name", ["comparison", "diagnosis", "bench"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_fits_its_window(measured, name, width):
    found = measured[f"{name} {width}"]
    assert found["client"] <= width and found["scroll"] <= found["client"], "the page scrolls sideways"
    assert not found["wide"], f"these stick out: {found['wide'][:5]}"
    assert found["text"] >= 15 and found["scrolls"]
    assert found["pictures"] and all(p["width"] > 200 and p["height"] > 80 for p in found["pictures"])
    assert all(p["name"] for p in found["pictures"]), "a picture without alternative text"


@pytest.mark.parametrize("name", ["comparison", "diagnosis", "bench"])
def test_a_page_fetches_nothing(measured, pages, name):
    assert all(not found["fetched"] for found in (measured[f"{name} {w}"] for w in WIDTHS))
    assert not re.search(r"(?:https?:)?//[\w.]+\.[a-z]+/|@import|<script|<link", pages[name])


def test_a_page_on_paper(pages, folder):
    """Black on white, nothing cut off: as many pages as it takes, each of them filled."""
    page, paper = folder / "page.html", folder / "page.pdf"
    page.write_text(pages["comparison"], encoding="utf-8")
    chromium(folder, "--no-pdf-header-footer", f"--print-to-pdf={paper}", page.as_uri())
    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    sheets = len(re.findall(rb"/Type\s*/Page\b", content))
    assert 3 <= sheets <= 20
