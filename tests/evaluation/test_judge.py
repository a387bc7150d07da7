"""`evaluate` against a loop of solves; `compare`: pairing, baseline, methods, and what it writes."""

import json

import jax
import numpy as np
import pytest

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.evaluation.judge import Method
from decigrad.losses import MSE, LeastSquares, Regret


def model(sense: str = "minimize", curvature: float = 0.5) -> dg.Model:
    m = dg.Model("simplex")
    x = m.continuous("x", shape=3, lb=0.0, ub=1.0)
    c = m.parameter("cost", shape=3)
    curved = curvature * dg.sum(x * x) if curvature else 0.0
    m.minimize(dg.sum(c * x) + curved) if sense == "minimize" else m.maximize(dg.sum(c * x) - curved)
    m.subject_to(dg.sum(x) == 1.0)
    return m


def samples(n: int, seed: int = 0) -> dg.Dataset:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 2))
    costs = 2.0 + features @ [[0.5, -0.3, 0.1], [0.2, 0.4, -0.5]] + 0.5 * features[:, :1] ** 2 * [1, -1, 0]
    return dg.Dataset(features, {"cost": costs})


LAYER = dg.DecisionLayer(model(), solver="daqp")
TRAIN, TEST = samples(20), samples(12, seed=1)
FITTED = dg.fit(dg.Linear(), LAYER, TRAIN, LeastSquares()).predictor
QUICK = {"selection": None, "epochs": 1}


# ----------------------------------------------------------------------------------------------- evaluate


@pytest.mark.parametrize("sense", ["minimize", "maximize"])
def test_evaluate_is_a_loop_of_solves(sense):
    m = model(sense)
    sign = 1.0 if sense == "minimize" else -1.0
    found = dg.evaluate(FITTED, dg.DecisionLayer(m, solver="daqp"), TEST, name="fitted")
    weight, bias = FITTED.coefficients
    for i in range(12):
        predicted, true = found.predicted["cost"][i], TEST.targets["cost"][i]
        np.testing.assert_allclose(predicted, weight @ TEST.features[i] + bias, rtol=1e-9)
        decision, best = m.solve({"cost": predicted}), m.solve({"cost": true})
        x = decision.x["x"]
        cost = true @ x + sign * 0.5 * x @ x
        assert found.regret[i] == pytest.approx(sign * (cost - best.objective), abs=1e-9)
        assert found.optimal_value[i] == pytest.approx(best.objective, abs=1e-9)
        np.testing.assert_allclose(found.decisions["x"][i], x, atol=1e-9)
        np.testing.assert_allclose(found.optimal_decisions["x"][i], best.x["x"], atol=1e-9)
    assert found.regret.min() >= 0 and found.sense == sense and found.name == "fitted"
    expected = ((found.predicted["cost"] - TEST.targets["cost"]) ** 2).mean()
    assert found.summary()["mse"] == pytest.approx(expected)


def test_a_perfect_predictor_has_no_regret_and_all_decisions_right():
    costs = 1.0 + TEST.features @ [[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]]
    data = dg.Dataset(TEST.features, {"cost": costs})
    perfect = dg.fit(dg.Linear(), LAYER, data, LeastSquares()).predictor
    found = dg.evaluate(perfect, LAYER, data)
    assert found.mean_regret == pytest.approx(0.0, abs=1e-12) and found.equal_decisions == 1.0
    assert found.summary()["spearman"] == pytest.approx(1.0)


def test_a_smoothed_layer_is_judged_by_its_exact_decision():
    linear = model(curvature=0.0)
    smooth = dg.DecisionLayer(linear, gradient=dg.Smoothed(0.5))
    found = dg.evaluate(FITTED, smooth, TEST)
    cheapest = found.predicted["cost"].argmin(1)
    np.testing.assert_allclose(found.decisions["x"], np.eye(3)[cheapest], atol=1e-9)
    true = TEST.targets["cost"]
    np.testing.assert_allclose(found.regret, true[np.arange(12), cheapest] - true.min(1), atol=1e-9)


def test_another_cost_is_scored_when_it_is_asked_for():
    cost = dg.sum(LAYER.parameters["cost"] * LAYER.model.variables["x"])
    found = dg.evaluate(FITTED, LAYER, TEST, cost=cost)
    true = TEST.targets["cost"]
    expected = (true * (found.decisions["x"] - found.optimal_decisions["x"])).sum(1)
    np.testing.assert_allclose(found.regret, expected, atol=1e-9)
    twin = dg.evaluate(FITTED, LAYER, TEST, cost=lambda x, p: p["cost"] @ x["x"])
    np.testing.assert_allclose(found.regret, twin.regret, atol=1e-9)


def test_failed_samples_are_counted_and_left_out_of_the_mean():
    m = dg.Model("demand")
    x = m.continuous("x", lb=0.0, ub=1.0)
    m.minimize(x * x)
    m.subject_to(x >= m.parameter("demand"))
    layer = dg.DecisionLayer(m, solver="daqp")
    data = dg.Dataset([[0.2], [2.0], [0.6]], {"demand": np.array([0.2, 0.5, 0.4])})
    with jax.enable_x64(True):
        start = dg.Linear(bias=False).init(data, (("demand", ()),)).with_coefficients(np.ones((1, 1)))
    found = dg.evaluate(start, layer, data, cost=lambda x, p: x["x"])
    assert found.failed.tolist() == [1] and np.isnan(found.regret[1])
    assert found.mean_regret == pytest.approx(0.1)
    assert "1 of 3 FAILED" in str(found)


def test_one_sample_is_a_test_set_too():
    alone, all_of_them = (dg.evaluate(FITTED, LAYER, data) for data in (TEST.take([4]), TEST))
    assert alone.regret.shape == (1,) and alone.regret[0] == pytest.approx(all_of_them.regret[4], abs=1e-12)


def test_evaluate_refuses_data_that_do_not_fit():
    with pytest.raises(ModelError, match="predicts 'cost'"):
        dg.evaluate(FITTED, LAYER, dg.Dataset(TEST.features, {"price": TEST.targets["cost"]}))


# ------------------------------------------------------------------------------------------------ compare


@pytest.fixture(scope="module")
def comparison() -> dg.evaluation.judge.Comparison:
    return dg.compare(
        LAYER, TRAIN, TEST, methods=["two-stage", "mse", "regret"], seeds=2, unit="USD", **QUICK
    )


def test_compare_pairs_methods_on_the_same_instances(comparison):
    data = comparison.data
    assert data.methods == ["two-stage", "mse", "regret"] and data.seeds == [0, 1] and data.shared_test
    for method in data.methods:
        for run, result in zip(data.runs[method], comparison.results[method], strict=True):
            np.testing.assert_allclose(
                run.evaluation.regret, dg.evaluate(result.predictor, LAYER, TEST).regret, atol=1e-12
            )
            np.testing.assert_array_equal(
                run.evaluation.optimal_value, data.runs["two-stage"][0].evaluation.optimal_value
            )
    first, second = (run.evaluation.regret for run in data.runs["two-stage"])
    np.testing.assert_array_equal(first, second)  # closed form: a seed has nothing to draw


def test_options_reach_every_fit(comparison):
    for method in ("mse", "regret"):
        for result in comparison.results[method]:
            assert result.chosen == {"proximal_weight": 0.0} and len(result.history["loss"]) == 1
    assert comparison.data.settings["epochs"] == "1"
    assert comparison.data.settings["training samples"] == 20


def test_a_seed_shuffles_and_is_repeatable(comparison):
    again = dg.compare(LAYER, TRAIN, TEST, ["regret"], seeds=[1], **QUICK)
    assert again.data.methods == ["two-stage", "regret"]  # the baseline is added
    np.testing.assert_array_equal(
        again.data.runs["regret"][0].evaluation.regret, comparison.data.runs["regret"][1].evaluation.regret
    )


def test_compare_writes_a_page_and_json(comparison, tmp_path):
    path = comparison.to_html(tmp_path / "deep" / "report.html")
    page = path.read_text(encoding="utf-8")
    assert comparison.data.verdict("regret").text.split(":")[0] in page and "<script src" not in page
    text = comparison.to_json(tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert found == json.loads(text) and found["baseline"] == "two-stage" and found["seeds"] == [0, 1]
    estimate = comparison.data.estimate("regret", "mean_regret")
    assert found["methods"]["regret"]["mean_regret"]["mean"] == pytest.approx(estimate.mean)
    assert found["methods"]["regret"]["verdict"]["text"] == comparison.data.verdict("regret").text
    assert comparison.data.verdict("mse").text[:20] in str(comparison)


def test_one_seed_gives_valid_json(tmp_path):
    found = dg.compare(LAYER, TRAIN, TEST, ["two-stage"], seeds=1)
    content = json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert content["methods"]["two-stage"]["mean_regret"]["standard_error"] is None


def test_methods_are_names_losses_or_recipes():
    methods = {
        "two-stage": LeastSquares(ridge=3.0),
        "plain": "regret",
        "network": Method(MSE(), predictor=dg.MLP((3,)), options=(("epochs", 2),)),
        "linear cost": Regret(cost=dg.sum(LAYER.parameters["cost"] * LAYER.model.variables["x"])),
    }
    found = dg.compare(LAYER, TRAIN, TEST, methods, seeds=1, **QUICK)
    assert found.data.methods == list(methods)
    assert len(found.results["network"][0].history["loss"]) == 2
    assert type(found.results["network"][0].predictor).__name__ == "MLPPredictor"


def test_data_may_be_drawn_by_seed():
    found = dg.compare(
        LAYER, lambda seed: (samples(20, seed), samples(8, seed + 50)), seeds=2, methods=["mse"], **QUICK
    )
    assert not found.data.shared_test and found.data.challengers == ["mse"]
    assert [run.evaluation.num_instances for run in found.data.runs["mse"]] == [8, 8]


def test_a_comparison_that_is_broken_off_goes_on_and_repeats_no_fit(tmp_path):
    options = {"methods": ["two-stage", "mse", "regret"], "seeds": 2, "selection": None, "epochs": 3}
    whole: list = []
    expected = dg.compare(LAYER, TRAIN, TEST, callbacks=[whole.append], **options)
    begun, seen = [], []

    def stop(event):
        begun.append(event)
        if len(begun) == 5:  # the second epoch of regret, after all three of mse
            raise RuntimeError("the machine is switched off")

    with pytest.raises(RuntimeError, match="switched off"):
        dg.compare(LAYER, TRAIN, TEST, callbacks=[stop], checkpoint=tmp_path / "fits", **options)
    assert {path.name for path in (tmp_path / "fits").iterdir()} == {
        "two-stage-0.ckpt", "mse-0.ckpt", "regret-0.ckpt",
    }  # fmt: skip
    found = dg.compare(LAYER, TRAIN, TEST, callbacks=[seen.append], checkpoint=tmp_path / "fits", **options)
    told = [[(e.phase, e.epoch, e.loss) for e in events] for events in (whole, begun, seen)]
    assert len(whole) == 12 and told[1] == told[0][:5] and told[2] == told[0][4:]
    for method in options["methods"]:
        for a, b in zip(found.results[method], expected.results[method], strict=True):
            leaves = zip(*(jax.tree_util.tree_leaves(r.predictor) for r in (a, b)), strict=True)
            assert all(np.array_equal(x, y) for x, y in leaves)
            assert (a.history, a.chosen) == (b.history, b.chosen)
        for a, b in zip(found.data.runs[method], expected.data.runs[method], strict=True):
            np.testing.assert_array_equal(a.evaluation.regret, b.evaluation.regret)
    assert found.data.settings == expected.data.settings
    with pytest.raises(ModelError, match=r"two-stage-0.ckpt' belongs to another fit: it differs in epochs\."):
        dg.compare(LAYER, TRAIN, TEST, checkpoint=tmp_path / "fits", **{**options, "epochs": 4})


def test_ctrl_c_ends_a_comparison_with_a_file_for_every_label(tmp_path):
    def interrupt(event):
        if event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dg.compare(
            LAYER, TRAIN, TEST, {"two-stage": "two-stage", "a/b: ü": "mse"}, 1, callbacks=[interrupt],
            checkpoint=tmp_path / "deep" / "fits", selection=None, epochs=2,
        )  # fmt: skip
    names = {path.name for path in (tmp_path / "deep" / "fits").iterdir()}
    assert names == {"two-stage-0.ckpt", "a%2Fb%3A %C3%BC-0.ckpt"}
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="must be a folder"):
        dg.compare(LAYER, TRAIN, TEST, ["two-stage"], 1, checkpoint=tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["regrett"]}, "knows no method 'regrett'; it knows two-stage, mse"),
        ({"methods": {"mine": "spo"}}, "knows no method 'spo'"),
        ({"baseline": "ols"}, "baseline 'ols' is not among the methods"),
        ({"seeds": 0}, "at least one seed"),
        ({"seeds": []}, "at least one seed"),
        ({"test": None}, "train and test data, or one function"),
        ({"train": lambda seed: (TRAIN, TEST)}, "train and test data, or one function"),
    ],
)
def test_misuse_is_named(change, message):
    arguments = {"train": TRAIN, "test": TEST, "methods": ["two-stage"], "seeds": 1, **change}
    with pytest.raises(ModelError, match=message):
        dg.compare(LAYER, **arguments)
