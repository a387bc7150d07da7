"""The bridge to PyTorch: values and gradients by finite differences, closed forms and JAX's own path."""

import copy
import gc
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

import decigrad as dg
from decigrad.errors import InfeasibleError, ModelError

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'decigrad[torch]'")
import decigrad.torch as dt  # noqa: E402 - after the skip

RNG = np.random.default_rng(0)


def allocation(throw: bool = True, gradient=None) -> dg.DecisionLayer:
    """min cᵀx + curve ‖x‖² over the simplex with a budget; every parameter is one of the layer."""
    m = dg.Model("allocation")
    x = m.continuous("x", shape=3, lb=0.0, ub=1.0)
    c, curve = m.parameter("cost", shape=3), m.parameter("curve", value=1.0, known=True)
    budget = m.parameter("budget", value=1.0, known=True)
    m.minimize(c @ x + curve * dg.sum(x * x))
    m.subject_to(dg.sum(x) == budget)
    return dg.DecisionLayer(m, gradient=gradient, throw=throw, solver="daqp")


def assignment(gradient=None) -> dg.DecisionLayer:
    """min cᵀx over the simplex: a linear program."""
    m = dg.Model("choice")
    x, c = m.continuous("x", shape=3, lb=0.0), m.parameter("cost", shape=3)
    m.minimize(c @ x)
    m.subject_to(dg.sum(x) == 1.0)
    return dg.DecisionLayer(m, gradient=gradient)


LAYER = allocation()
COSTS = torch.tensor(RNG.uniform(0.8, 1.2, (4, 3)))


def leaf(values, dtype=torch.float64):
    return torch.as_tensor(values, dtype=dtype).clone().requires_grad_()


# ------------------------------------------------------------------------------------------------- layers


def test_gradcheck_through_every_parameter_and_broadcast_axes():
    module = dt.Layer(LAYER)
    costs, curve, budget = leaf(COSTS), leaf(RNG.uniform(1.0, 2.0, 4)), leaf(1.1)

    def decide(*values):
        return module(dict(zip(("cost", "curve", "budget"), values, strict=True)))["x"]

    # the budget has no batch axis: its gradient is the sum over the batch
    assert torch.autograd.gradcheck(decide, (costs, curve, budget), eps=1e-6, atol=1e-6)
    assert torch.autograd.gradcheck(lambda c: module(c)["x"], (leaf(COSTS[0]),), eps=1e-6, atol=1e-6)
    assert module(COSTS.reshape(2, 2, 3))["x"].shape == (2, 2, 3)


def test_decisions_in_closed_form():
    x = dt.Layer(LAYER)(COSTS)["x"]
    np.testing.assert_allclose(x, 1 / 3 + (COSTS.mean(1, keepdim=True) - COSTS) / 2, atol=1e-10)


def test_two_calls_before_backward_keep_their_own_residuals():
    module = dt.Layer(LAYER)
    first, second = leaf(COSTS), leaf(np.roll(COSTS, 1) * [1.0, 9.0, 1.0])  # another active set
    weight = torch.tensor([1.0, -2.0, 0.5])
    total = (module(first)["x"] @ weight.double()).sum() + 3.0 * (module(second)["x"] @ weight.double()).sum()
    total.backward()
    for given, factor in ((first, 1.0), (second, 3.0)):
        with jax.enable_x64(True):
            pulled = jax.vjp(lambda c: LAYER({"cost": c})["x"], given.detach().numpy())[1]
            (expected,) = pulled(np.tile(factor * weight.double().numpy(), (4, 1)))
        np.testing.assert_allclose(given.grad, expected, atol=1e-10)
    assert not torch.allclose(first.grad, second.grad / 3.0)


def test_float32_in_and_out_but_solved_in_float64():
    module = dt.Layer(LAYER)
    single, double = leaf(COSTS, torch.float32), leaf(COSTS.float().double())
    found = [module(c)["x"] for c in (single, double)]
    assert found[0].dtype == torch.float32 and found[1].dtype == torch.float64
    torch.testing.assert_close(found[0], found[1].float(), rtol=0, atol=0)
    for x in found:
        (x[:, 0] ** 2).sum().backward()
    assert single.grad.dtype == torch.float32
    torch.testing.assert_close(single.grad, double.grad.float(), rtol=1e-6, atol=1e-6)
    assert not jax.config.jax_enable_x64


def test_outputs_and_inputs_may_be_changed_in_place_but_not_silently():
    module, costs = dt.Layer(LAYER), leaf(COSTS)
    x = module(costs)["x"]
    expected = torch.autograd.grad(x.sum(0)[0], costs, retain_graph=True)[0]
    with torch.no_grad():
        x.mul_(0.0)
    torch.testing.assert_close(torch.autograd.grad(x.sum(0)[0], costs, retain_graph=True)[0], expected)
    with torch.no_grad():
        costs.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()


def test_without_gradients_nothing_is_kept():
    module, costs = dt.Layer(LAYER), leaf(COSTS)
    with torch.no_grad():
        assert not module(costs)["x"].requires_grad
    assert not module(COSTS)["x"].requires_grad
    x = module(costs)["x"]
    x.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        x.sum().backward()
    x = module(costs)["x"]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        (slope,) = torch.autograd.grad((x**2).sum(), costs, create_graph=True)
        slope.sum().backward()


def test_failed_samples_are_handled_as_in_the_layer():
    budgets = torch.tensor([1.0, 7.0, 1.0, 1.0])  # x ≤ 1 leaves no room for 7
    with pytest.raises(InfeasibleError, match="sample 1"):
        dt.Layer(LAYER)({"cost": COSTS, "budget": budgets})
    costs = leaf(COSTS)
    x = dt.Layer(allocation(throw=False))({"cost": costs, "budget": budgets})["x"]
    assert torch.isnan(x[1]).all() and torch.isfinite(x[[0, 2, 3]]).all()
    (x**2)[:, 0].sum().backward()
    whole = leaf(COSTS)
    (dt.Layer(LAYER)(whole)["x"] ** 2)[:, 0].sum().backward()
    assert not costs.grad[1].any()
    torch.testing.assert_close(costs.grad[[0, 2, 3]], whole.grad[[0, 2, 3]])


def test_modules_have_no_state_and_copies_share_the_layer():
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), dt.Layer(LAYER)).to(torch.float64)
    assert list(module.state_dict()) == ["0.weight", "0.bias"]
    twin = copy.deepcopy(module)
    twin.load_state_dict(module.state_dict())
    assert twin[1].layer is LAYER and "allocation" in repr(module)
    features = torch.tensor(RNG.normal(size=(4, 2)))
    torch.testing.assert_close(twin.eval()(features)["x"], module(features)["x"])
    criterion = copy.deepcopy(dt.Loss("spo+", LAYER))
    assert criterion.layer is LAYER and not criterion.state_dict()


def test_estimators_draw_from_torch_in_training_and_the_same_in_evaluation():
    module = dt.Layer(assignment(dg.Perturbed(0.5, samples=4)))
    torch.manual_seed(3)
    first, other = (module(COSTS)["x"] for _ in range(2))
    torch.manual_seed(3)
    again = module(COSTS)["x"]
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    module.eval()
    torch.testing.assert_close(module(COSTS)["x"], module(COSTS)["x"], rtol=0, atol=0)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ModelError, match=r"'cost' has shape \(3,\) .* got \(4, 2\)"):
        dt.Layer(LAYER)(COSTS[:, :2])
    with pytest.raises(ModelError, match="at least one parameter"):
        dt.Layer(LAYER)({})
    with pytest.raises(ModelError, match="no parameter 'costs'"):
        dt.Layer(LAYER)({"costs": COSTS})
    oracle = dg.oracles.Simplex(3)
    m = dg.Model("size")
    x, b = m.continuous("x", shape=3, lb=0.0), m.parameter("b", value=1.0, known=True)
    m.minimize(m.parameter("cost", shape=3) @ x)
    m.subject_to(dg.sum(x) == b)
    module = dt.Layer(dg.DecisionLayer(m, solver=oracle, gradient=dg.KKT()))
    with pytest.raises(ModelError, match="without multipliers"):
        module({"cost": COSTS, "b": leaf(1.0)})


# ------------------------------------------------------------------------------------------------- losses

TRUE = torch.tensor(RNG.uniform(0.8, 1.2, (4, 3)))


def test_regret_is_its_definition_and_passes_gradcheck():
    criterion = dt.Loss(dg.losses.Regret(), LAYER, reduction="none")

    def cost(x):
        return (TRUE * x).sum(1) + (x * x).sum(1)

    module = dt.Layer(LAYER)
    expected = cost(module(COSTS)["x"]) - cost(module(TRUE)["x"])
    torch.testing.assert_close(criterion(COSTS, TRUE), expected)
    assert torch.autograd.gradcheck(lambda c: criterion(c, TRUE), (leaf(COSTS),), eps=1e-6, atol=1e-6)
    mean, total = (dt.Loss(dg.losses.Regret(), LAYER, r)(COSTS, TRUE) for r in ("mean", "sum"))
    torch.testing.assert_close(torch.stack([mean, total]), torch.stack([expected.mean(), expected.sum()]))


def test_spo_plus_has_its_published_subgradient():
    layer, predicted = assignment(), leaf(COSTS)
    dt.Loss("spo+", layer, "sum")(predicted, TRUE).backward()
    best, at = (np.eye(3)[c.argmin(1)] for c in (TRUE.numpy(), (2 * COSTS - TRUE).numpy()))
    np.testing.assert_allclose(predicted.grad, 2.0 * (best - at), atol=1e-9)
    double = dt.Loss("spo+", layer)(COSTS, TRUE)
    single = dt.Loss("spo+", layer)(COSTS.float(), TRUE.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["mse", "pfyl", "nce", "pairwise", "cave", "nid", "sfge", "qptl"])
def test_every_family_trains_and_labels_are_those_of_the_batch(name):
    layer = assignment()
    criterion = dt.Loss(name, layer).eval()
    labels = criterion.labels({"cost": TRUE})
    half = torch.tensor([2, 0])
    one = criterion(COSTS[half], labels=labels[half])
    if name not in ("nce", "pairwise", "sfge", "pfyl"):  # those see the pool and the spread of all data
        torch.testing.assert_close(one, criterion(COSTS[half], TRUE[half]))
    predicted = leaf(COSTS)
    criterion(predicted, labels=labels).backward()
    assert torch.isfinite(predicted.grad).all() and predicted.grad.any()


def test_known_parameters_and_failures():
    criterion = dt.Loss(dg.losses.Regret(), allocation(throw=False))
    known = {"budget": torch.tensor([1.0, 7.0, 0.5, 1.0]), "curve": torch.ones(4)}
    predicted = leaf(COSTS)
    loss = criterion(predicted, TRUE, known)
    loss.backward()
    kept = [0, 2, 3]
    good = {name: value[kept] for name, value in known.items()}
    torch.testing.assert_close(loss, criterion(COSTS[kept], TRUE[kept], good))
    assert not predicted.grad[1].any() and predicted.grad[kept].any()
    assert torch.isnan(criterion(COSTS[1:2], TRUE[1:2], {"budget": known["budget"][1:2]}))
    with pytest.raises(InfeasibleError, match="sample 1"):
        dt.Loss(dg.losses.Regret(), LAYER)(COSTS, TRUE, known)


def test_losses_that_cannot_be_are_refused():
    criterion = dt.Loss("regret", LAYER)
    for call, message in (
        (lambda: dt.Loss("auto", LAYER), "a choice that fit makes"),
        (lambda: dt.Loss("spo", LAYER), "no method 'spo'"),
        (lambda: dt.Loss("spo+", LAYER, "average"), "reduction must be"),
        (lambda: criterion(COSTS), "either the true parameters or labels"),
        (lambda: criterion(COSTS[:2], TRUE), r"has shape \(2, 3\), expected \(4, 3\)"),
        (lambda: criterion(COSTS[0], TRUE[0]), "needs a leading axis of samples"),
        (lambda: criterion({"curve": torch.ones(4)}, TRUE), "prediction of 'cost' is missing"),
        (lambda: criterion.labels(TRUE)[0], "index labels with a slice"),
    ):
        with pytest.raises(ModelError, match=message):
            call()


def test_nothing_leaks_from_call_to_call():
    module, costs = dt.Layer(LAYER), leaf(COSTS)
    module(costs)["x"].sum().backward()
    gc.collect()
    before = sum(type(o).__name__ == "Solutions" for o in gc.get_objects())
    for _ in range(3):
        module(costs)["x"].sum().backward()
    gc.collect()
    assert sum(type(o).__name__ == "Solutions" for o in gc.get_objects()) <= before


def test_the_training_loop_of_the_examples_beats_its_twin_on_the_squared_error():
    path = Path(__file__).parents[2] / "examples" / "torch_training.py"
    spec = importlib.util.spec_from_file_location("torch_training", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    found = example.main()
    assert 0.0 < found["spo+"] < 0.7 * found["mse"]
