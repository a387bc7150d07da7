"""Figures hold what they should, and render without warnings (warnings are errors)."""

import io
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest

from decigrad.evaluation import figures
from decigrad.evaluation.statistics import Interval

RNG = np.random.default_rng(0)


def render(figure):
    before = dict(mpl.rcParams)
    for kind in ("svg", "png"):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind)
        assert buffer.tell() > 1000
    assert dict(mpl.rcParams) == before
    return figure.axes


def legend(axes):
    return [t.get_text() for t in axes.get_legend().get_texts()]


def test_regret_distribution():
    regrets = {"two-stage": RNG.exponential(size=200), "spo+": [0.5, 0.7, np.nan, 40.0]}
    (axes,) = render(figures.regret_distribution(regrets, unit="EUR", bins=20))
    assert axes.get_xlabel().startswith("regret [EUR]") and axes.get_ylabel() == "share of instances [%]"
    assert legend(axes)[1] == "spo+, mean 13.7, 1 failed"
    assert len(axes.lines) == 2  # the means
    # What lies beyond the last bin is counted in it: every method sums to 100 %.
    total = np.histogram(np.minimum(regrets["two-stage"], axes.get_xlim()[1]), bins=20)[0].sum()
    assert total == 200


def test_regret_distribution_without_spread_or_data():
    render(figures.regret_distribution({"two-stage": np.zeros(4)}))
    with pytest.raises(ValueError, match="no finite regret"):
        figures.regret_distribution({"two-stage": [np.nan]})


def test_regret_scatter_counts_above_and_below():
    base, ours = np.array([1.0, 2.0, 3.0, 0.0, np.nan]), np.array([0.5, 2.5, 1.0, 0.0, 1.0])
    (axes,) = render(figures.regret_scatter(base, ours, method="spo+"))
    texts = [t.get_text() for t in axes.texts]
    assert texts == ["spo+ worse: 1", "spo+ better: 2"] and "(1 equal)" in axes.get_title()
    assert len(axes.collections[0].get_offsets()) == 4
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), axes.lines[0].get_ydata())
    assert axes.get_xlim() == axes.get_ylim()
    with pytest.raises(ValueError, match="one length"):
        figures.regret_scatter([1.0], [1.0, 2.0], method="spo+")
    with pytest.raises(ValueError, match="no pair"):
        figures.regret_scatter([np.nan], [1.0], method="spo+")


def test_large_scatter_is_drawn_as_pixels():
    figure = figures.regret_scatter(RNG.random(3000), RNG.random(3000), method="m")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    assert len(buffer.getvalue()) < 300_000


def test_training_curves_show_every_seed_and_the_mean():
    histories = {
        "two-stage": [{}, {}],
        "spo+": [
            {"loss": [3, 2, 1], "validation_regret": [2, 1, 1]},
            {"loss": [3, 2], "validation_regret": [4, 3]},
        ],
        "pfyl": [{"loss": [1.0]}],
    }
    panels = [a for a in render(figures.training_curves(histories)) if a.get_visible()]
    assert [a.get_title() for a in panels] == [
        "Validation regret",
        "Training loss of spo+",
        "Training loss of pfyl",
    ]
    thin, other, mean = panels[0].lines
    assert mean.get_linewidth() > thin.get_linewidth() and len(other.get_xdata()) == 2
    np.testing.assert_array_equal(mean.get_ydata(), [3.0, 2.0])
    assert legend(panels[0]) == ["spo+, mean of 2"]
    assert panels[0].get_xlabel() == "epoch"
    with pytest.raises(ValueError, match="no training curves"):
        figures.training_curves({"two-stage": [{}]})


@pytest.mark.parametrize(("instances", "n"), [(1, 3), (3, 4), (2, 30)])
def test_decision_bars(instances, n):
    before, after, optimal = RNG.random((3, instances, n))
    figure = figures.decision_bars(before, after, optimal, titles=[f"t{k}" for k in range(instances)])
    panels = render(figure)
    assert [a.get_title() for a in panels] == [f"t{k}" for k in range(instances)]
    assert all(len(a.patches) == 3 * n for a in panels)
    assert [t.get_text() for t in figure.legends[0].get_texts()] == [
        "two-stage",
        "decision-focused",
        "optimal",
    ]
    heights = [p.get_height() for p in panels[0].patches]
    np.testing.assert_allclose(heights, np.concatenate([before[0], after[0], optimal[0]]))


def test_learning_curve():
    curves = {"two-stage": RNG.random((5, 3)), "MLP": RNG.random(3)}
    (axes,) = render(figures.learning_curve([30, 100, 1000], curves, unit="EUR"))
    assert axes.get_xscale() == "log" and axes.get_ylabel() == "mean regret [EUR]"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["30", "100", "1\u202f000"]
    np.testing.assert_allclose(
        axes.containers[0][0].get_ydata().astype(float), curves["two-stage"].mean(axis=0)
    )
    with pytest.raises(ValueError, match="3 points for 2"):
        figures.learning_curve([1, 2], curves)


def test_gain_by_seed():
    intervals = {
        "spo+": Interval(2.0, 1.0, 3.0, 0.95, 3, "t"),
        "pfyl": Interval(1.0, np.nan, np.nan, 0.95, 1, ""),
    }
    (axes,) = render(figures.gain_by_seed({"two-stage": [0.0], "spo+": [1, 2, 3], "pfyl": [1.0]}, intervals))
    assert [t.get_text() for t in axes.get_yticklabels()] == ["spo+", "pfyl"]
    assert "95 % interval" in axes.get_title()
    assert [len(c.get_offsets()) for c in axes.collections] == [3, 1]
    assert any(list(line.get_xdata()) == [1.0, 3.0] for line in axes.lines)
    with pytest.raises(ValueError, match="no method beside"):
        figures.gain_by_seed({"two-stage": [0.0]})


def test_heat_maps_are_symmetric_about_zero():
    a, b = RNG.normal(size=(2, 4, 3))
    axes, bar = render(figures.weight_difference(a, b, columns=["A", "B", "C"]))
    mesh = axes.collections[0]
    np.testing.assert_allclose(mesh.get_array(), b - a)
    assert mesh.get_clim()[0] == -mesh.get_clim()[1]
    assert len(axes.texts) == 12 and bar.get_ylabel() == "difference"
    assert [t.get_text() for t in axes.get_xticklabels()] == ["A", "B", "C"]
    with pytest.raises(ValueError, match="one shape"):
        figures.weight_difference(a, b[:2])
    with pytest.raises(ValueError, match="labels"):
        figures.weight_difference(a, b, columns=["A"])


def test_sensitivity_heatmap():
    matrix = np.full((3, 3), 1 / 6) - np.eye(3) / 2
    axes = render(figures.sensitivity_heatmap(matrix, variables=["x0", "x1", "x2"]))[0]
    assert axes.texts[0].get_text() == "−0.33" and axes.texts[1].get_text() == "0.17"
    assert axes.get_ylabel() == "variable" and axes.get_xlabel() == "parameter"
    render(figures.sensitivity_heatmap(np.zeros((2, 2))))
    render(figures.sensitivity_heatmap([[np.nan, 1.0]]))
    assert not render(figures.sensitivity_heatmap(RNG.normal(size=(50, 60))))[0].texts


def test_baseline_is_grey_and_colours_differ():
    tones = figures.colours(["two-stage", "a", "b", "c"])
    assert tones["two-stage"] == figures.BASELINE_COLOUR and len(set(tones.values())) == 4


def test_drawing_needs_no_pyplot_and_importing_no_matplotlib(tmp_path):
    code = (
        "import sys, decigrad.evaluation.report, decigrad.evaluation.comparison_report\n"
        "assert not {'matplotlib', 'jinja2', 'rich', 'scipy.stats'} & set(sys.modules)\n"
        "from decigrad.evaluation import figures\n"
        "figures.sensitivity_heatmap([[1.0]]).savefig(sys.argv[1])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "f.svg")], check=True, timeout=60)
