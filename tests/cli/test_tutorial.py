"""The tutorial three ways: its own lines, an independent closed form, and the command."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import reference_allocation as reference
from typer.testing import CliRunner

import decigrad.modeling as dm
from decigrad import differentiable_solve_l3
from decigrad.cli import app

ROOT = Path(__file__).parents[2]
EXPECTED = (Path(__file__).parent / "expected_tutorial.txt").read_text(encoding="utf-8").splitlines()


def load_example():
    spec = importlib.util.spec_from_file_location(
        "allocation_tutorial", ROOT / "examples" / "allocation_tutorial.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def figures():
    return reference.figures(42)


# ------------------------------------------------------------------------------------ the published lines


def test_example_prints_the_published_lines(capsys, tmp_path):
    picture = tmp_path / "pictures.png"
    load_example().main(["--pictures", str(picture)])
    printed = capsys.readouterr().out.splitlines()
    wrong = [(a, b) for a, b in zip(printed, EXPECTED, strict=False) if a != b]
    assert not wrong, f"first line that differs: {wrong[0]}"
    assert len(printed) == len(EXPECTED)
    assert picture.stat().st_size > 10_000


def test_closed_form_gives_the_published_numbers(figures):
    f = figures
    reduction = 100 * (1 - f["regret_trained"] / f["regret_two_stage"])
    before, after = f["portfolio_regret_two_stage"], f["portfolio_regret_trained"]
    lines = [
        f"  Train MSE: {f['train_mse']:.4f}",
        f"  Test MSE:  {f['test_mse']:.4f}",
        f"{'Prediction MSE':<25s} {f['test_mse']:>12.4f} {f['test_mse_trained']:>12.4f}",
        f"{'Avg regret':<25s} {f['regret_two_stage']:>12.4f} {f['regret_trained']:>12.4f}",
        f"Final DFL loss: {f['final_loss']:.4f}",
        f"Regret reduction: {reduction:.1f}%",
        f"Relative weight change (DFL vs MSE): {f['weight_change']:.3f}",
        f"{'Avg regret':<25s} {before:>12.4f} {after:>12.4f}",
        f"  Epoch 10/10: loss = {f['portfolio_final_loss']:.4f}  (L3 ok: 30/30)",
        f"Regret reduction: {100 * (1 - after / before):.1f}%",
    ]
    assert [line for line in lines if line not in EXPECTED] == []


def test_closed_form_knows_what_the_tutorial_leaves_out(figures):
    assert (figures["solves_with_active_bound"], figures["vertices"]) == (123, 12)
    assert figures["negative_regrets_two_stage"] == 4
    assert f"{figures['full_regret_two_stage']:.4f}" == "0.0785"
    assert f"{figures['full_regret_trained']:.4f}" == "0.0715"
    assert f"{figures['test_mse_intercept']:.3f}" == "0.123"


def test_closed_form_by_two_roads():
    rng = np.random.default_rng(0)
    for epsilon in (0.1, 1.0, 3.0):
        for score in rng.normal(size=(50, 4)):
            x, _ = reference.solve(score, epsilon)
            np.testing.assert_allclose(x, reference.solve_by_bisection(score, epsilon), atol=1e-12)


# ------------------------------------------------------------------------------- the tutorial's spelling


def tutorial_model(value):
    """Stated as the tutorial states it, anew for every solve."""
    m = dm.Model("allocation")
    x = m.continuous("x", shape=(3,), lb=0.0, ub=1.0)
    c = m.parameter("cost", value=np.asarray(value, dtype=np.float64))
    m.minimize(dm.sum(c * x) + 1.0 * dm.sum(x * x))
    m.subject_to(dm.sum(x) == 1.0)
    return m, c


def test_spelling_agrees_with_the_closed_form():
    """Interior, one active bound, two, and a vertex at which all three are."""
    for value in ([0.8, 1.0, 1.2], [0.1, 1.0, 2.4], [0.0, 3.0, 3.1], [-2.0, 2.0, 2.5]):
        m, c = tutorial_model(value)
        result = differentiable_solve_l3(m)
        x, jacobian = reference.solve(np.array(value), 1.0)
        np.testing.assert_allclose([result.x["x"][i] for i in range(3)], x, atol=1e-12)
        assert result._l3_failed is False
        matrix = result.sensitivity_matrix()
        assert isinstance(matrix, np.ndarray)
        assert matrix.shape == (3, 3)
        np.testing.assert_allclose(matrix, jacobian, atol=1e-12)
        np.testing.assert_allclose(result.gradient(c), x, atol=1e-12)
        np.testing.assert_allclose(result.implicit_gradient(c), x, atol=1e-12)


def test_value_may_be_set_between_solves():
    m, c = tutorial_model(np.ones(3))
    for value in np.random.default_rng(1).normal(size=(5, 3)):
        c.value = value
        result = differentiable_solve_l3(m)
        np.testing.assert_allclose(result.x["x"], reference.solve(value, 1.0)[0], atol=1e-12)


# ------------------------------------------------------------------------------------------- the commands


def test_library_reproduces_every_published_figure():
    from decigrad.cli import _published, _reproduction

    first, second = _reproduction.Reproduction().run(42)
    assert _reproduction.allocation_figures(first) == _published.ALLOCATION
    assert _reproduction.portfolio_figures(second) == _published.PORTFOLIO


def test_training_agrees_with_the_closed_form_to_rounding():
    from decigrad.cli import _reproduction

    first, second = _reproduction.Reproduction().run(7)
    np.random.seed(7)  # noqa: NPY002 - the tutorial's own stream
    for ours, part in ((first, reference.ALLOCATION), (second, reference.PORTFOLIO)):
        theirs = reference.run(part)
        np.testing.assert_allclose(ours.weights["trained"], theirs.trained, rtol=0, atol=1e-10)
        assert (ours.regret("trained", full=True) >= -1e-12).all()


def test_training_solves_are_not_all_in_the_interior():
    from decigrad.cli import _reproduction

    first, again = (_reproduction.Reproduction().run(42)[0] for _ in range(2))
    x = first.descent.x
    free = np.sum((x > 1e-9) & (x < 1 - 1e-9), axis=1)
    assert (len(x), (free < 3).sum(), (free == 0).sum()) == (300, 123, 12)
    np.testing.assert_array_equal(first.weights["trained"], again.weights["trained"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quick_tutorial_ends_with_its_report(tmp_path):
    report = tmp_path / "deep" / "tutorial.html"
    result = CliRunner().invoke(app, ["tutorial", "--quick", "--seeds", "2", "--report", str(report)])
    assert result.exit_code == 0, result.output
    assert "figures agree to the last printed digit" in " ".join(result.output.split())
    assert "0.0785" in result.output
    page = report.read_text(encoding="utf-8")
    for title in ("The score, in full", "An intercept", "Gradients at active bounds", "jax.grad end to end"):
        assert title in page
    assert page.count("<svg") >= 5
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_version_and_help():
    from decigrad import __version__

    assert CliRunner().invoke(app, ["--version"]).output == f"decigrad {__version__}\n"
    output = CliRunner().invoke(app, ["--help"]).output
    assert "tutorial" in output
    assert "study" in output


def test_help_does_not_wait_for_the_heavy_imports():
    heavy = ["equinox", "optax", "matplotlib", "decigrad.cli.tutorial"]
    code = f"import sys, decigrad.cli; print(*[m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_errors_of_the_users_making_are_one_line(tmp_path):
    missing = str(tmp_path / "no.csv")
    result = CliRunner().invoke(app, ["study", "battery", "--data", missing])
    assert result.exit_code == 2
    assert "no battery data at" in result.output
    assert "Traceback" not in result.output
