"""Predictors: least squares in closed form, units, recipes, and callables of the user's own."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decigrad as dg
from decigrad.errors import ModelError
from decigrad.predictors import initialized, least_squares, named, outputs_of, predict

RNG = np.random.default_rng(0)
FEATURES = 5.0 + RNG.normal(size=(40, 4)) * [1.0, 10.0, 0.1, 1.0]
COSTS = FEATURES @ RNG.normal(size=(4, 3)) + RNG.normal(size=(40, 3))
DATA = dg.Dataset(FEATURES, {"cost": COSTS})
OUTPUTS = (("cost", (3,)),)


def layer(matrix: bool = False) -> dg.DecisionLayer:
    m = dg.Model("toy")
    x = m.continuous("x", shape=3, lb=0.0, ub=1.0)
    c = m.parameter("cost", shape=3)
    m.minimize(dg.sum(c * x) + dg.sum(x * x))
    if matrix:
        tilt = m.parameter("tilt", shape=(2, 3))
        m.minimize(dg.sum(c * x) + dg.sum(x * x) + dg.sum(tilt @ x))
    m.subject_to(dg.sum(x) == 1.0)
    return dg.DecisionLayer(m, solver="daqp")


# --------------------------------------------------------------------------------------- closed form


@pytest.mark.parametrize("standardize", [True, False])
def test_least_squares_is_that_of_numpy(standardize):
    start = dg.Linear(standardize=standardize).init(DATA, OUTPUTS)
    weight, bias = least_squares(start, DATA).coefficients
    design = np.column_stack([FEATURES, np.ones(40)])
    expected = np.linalg.lstsq(design, COSTS, rcond=None)[0].T
    np.testing.assert_allclose(weight, expected[:, :-1], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(bias, expected[:, -1], rtol=1e-9)


def test_least_squares_without_bias_goes_through_the_origin():
    start = dg.Linear(bias=False).init(DATA, OUTPUTS)
    fitted = least_squares(start, DATA)
    expected = np.linalg.lstsq(FEATURES, COSTS, rcond=None)[0].T
    np.testing.assert_allclose(fitted.coefficients[0], expected, rtol=1e-9)
    np.testing.assert_array_equal(fitted.coefficients[1], np.zeros(3))
    np.testing.assert_array_equal(predict(fitted, np.zeros((1, 4)), OUTPUTS)["cost"], np.zeros((1, 3)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ridge", [0.1, 30.0])
def test_ridge_is_its_normal_equations_with_the_bias_free(bias, ridge):
    w = RNG.uniform(0.1, 2.0, size=40)
    data = dg.Dataset(FEATURES, {"cost": COSTS}, weights=w)
    weight, offset = least_squares(dg.Linear(bias=bias).init(data, OUTPUTS), data, ridge=ridge).coefficients
    # The bias is the weighted mean of what the centred regression leaves over.
    mean, shift = (np.average(a, axis=0, weights=w) if bias else 0.0 for a in (FEATURES, COSTS))
    phi, target = FEATURES - mean, COSTS - shift
    expected = np.linalg.solve(
        phi.T @ (w[:, None] * phi) + ridge * np.eye(4), phi.T @ (w[:, None] * target)
    ).T
    np.testing.assert_allclose(weight, expected, rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(offset, shift - expected @ mean if bias else np.zeros(3), rtol=1e-7)


def test_a_weight_is_a_repetition_and_zero_is_absence():
    counts = RNG.integers(0, 4, size=40)
    weighted = dg.Dataset(FEATURES, {"cost": COSTS}, weights=counts)
    repeated = DATA.take(np.repeat(np.arange(40), counts))
    found = [least_squares(dg.Linear().init(d, OUTPUTS), d).coefficients for d in (weighted, repeated)]
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-9)


def test_shared_least_squares_is_one_regression_over_all_items():
    features = RNG.normal(size=(20, 3, 2)) * [1.0, 50.0]
    data = dg.Dataset(features, {"cost": RNG.normal(size=(20, 3))}, weights=RNG.uniform(0.5, 2.0, size=20))
    fitted = least_squares(dg.Linear(shared=True).init(data, OUTPUTS), data)
    design = np.column_stack([features.reshape(-1, 2), np.ones(60)])
    w = np.sqrt(np.repeat(data.weights, 3))
    expected = np.linalg.lstsq(w[:, None] * design, w * data.targets["cost"].reshape(-1), rcond=None)[0]
    found = predict(fitted, features, OUTPUTS)["cost"]
    np.testing.assert_allclose(found.reshape(-1), design @ expected, rtol=1e-8, atol=1e-10)
    weight, bias = fitted.coefficients
    np.testing.assert_allclose([*weight[0], bias[0]], expected, rtol=1e-8, atol=1e-10)


ITEMS = RNG.normal(size=(20, 3, 2)) * [1.0, 50.0] + [0.0, 9.0]
BY_ITEM = dg.Dataset(ITEMS, {"cost": RNG.normal(size=(20, 3)), "price": 5.0 + RNG.normal(size=(20, 3))})
BY_ITEM_OUTPUTS = (("cost", (3,)), ("price", (3,)))


def shared_recipes():
    def apply(params, features):
        return {"price": params["v"] @ features, "cost": params["w"] @ features + params["b"]}

    params = {"w": np.array([0.3, -1.0]), "v": np.array([2.0, 0.1]), "b": 0.5 * np.ones(())}
    return [dg.Linear(shared=True), dg.MLP((4,), shared=True), dg.JAXPredictor(apply, params, shared=True)]


@pytest.mark.parametrize("recipe", shared_recipes(), ids=lambda r: type(r).__name__)
def test_shared_predictors_treat_all_items_alike_whatever_their_order_and_number(recipe):
    made = recipe.init(BY_ITEM, BY_ITEM_OUTPUTS, seed=3)
    if isinstance(recipe, dg.Linear):
        made = least_squares(made, BY_ITEM)
    found = predict(made, ITEMS, BY_ITEM_OUTPUTS)
    assert np.ptp(found["cost"]) > 0 and np.ptp(found["price"]) > 0
    mixed = predict(made, ITEMS[:, [2, 0, 1]], BY_ITEM_OUTPUTS)
    for name in found:
        np.testing.assert_allclose(mixed[name], found[name][:, [2, 0, 1]], rtol=1e-12)


def test_shared_least_squares_of_several_parameters_is_a_regression_each():
    found = predict(
        least_squares(dg.Linear(shared=True).init(BY_ITEM, BY_ITEM_OUTPUTS), BY_ITEM), ITEMS, BY_ITEM_OUTPUTS
    )
    design = np.column_stack([ITEMS.reshape(60, 2), np.ones(60)])
    for name, target in BY_ITEM.targets.items():
        expected = design @ np.linalg.lstsq(design, target.reshape(60), rcond=None)[0]
        np.testing.assert_allclose(found[name].reshape(60), expected, rtol=1e-8)


@pytest.mark.parametrize("recipe", shared_recipes(), ids=lambda r: type(r).__name__)
def test_shared_predictors_need_features_by_item(recipe):
    with pytest.raises(
        ModelError, match=rf"{type(recipe).__name__}.*features \[samples, items, p\].*\(40, 4\)"
    ):
        recipe.init(DATA, OUTPUTS)


def test_more_features_than_samples_gives_the_solution_of_minimum_norm():
    data = DATA.take([0, 1, 2])
    found = least_squares(dg.Linear(bias=False).init(data, OUTPUTS), data)
    np.testing.assert_allclose(found.coefficients[0], (np.linalg.pinv(FEATURES[:3]) @ COSTS[:3]).T, rtol=1e-8)
    np.testing.assert_allclose(predict(found, FEATURES[:3], OUTPUTS)["cost"], COSTS[:3], rtol=1e-8)


# ---------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize("bias", [True, False])
def test_coefficients_come_back_as_they_were_set(bias):
    start = dg.Linear(bias=bias).init(DATA, OUTPUTS)
    weight, offset = RNG.normal(size=(3, 4)), RNG.normal(size=3) if bias else None
    found = start.with_coefficients(weight, offset)
    np.testing.assert_allclose(found.coefficients[0], weight)
    if offset is not None:
        np.testing.assert_allclose(found.coefficients[1], offset, atol=1e-12)
    expected = FEATURES @ weight.T + (0.0 if offset is None else offset)
    np.testing.assert_allclose(predict(found, FEATURES, OUTPUTS)["cost"], expected, rtol=1e-10)


def test_a_linear_predictor_starts_at_the_mean_of_the_targets():
    found = predict(dg.Linear().init(DATA, OUTPUTS), FEATURES, OUTPUTS)["cost"]
    np.testing.assert_allclose(found, np.broadcast_to(COSTS.mean(0), (40, 3)))


@pytest.mark.parametrize("recipe", [dg.Linear(), dg.MLP((3,))])
@pytest.mark.parametrize("count", [1, 5])
def test_features_of_another_number_are_refused_not_broadcast(recipe, count):
    made = recipe.init(DATA, OUTPUTS)
    with pytest.raises(ModelError, match=f"made for 4 features, got {count}"):
        predict(made, np.ones((2, count)), OUTPUTS)


def test_linear_refuses_to_centre_without_an_intercept():
    with pytest.raises(ModelError, match="needs bias=True"):
        dg.Linear(bias=False, standardize=True).init(DATA, OUTPUTS)


def test_several_parameters_and_features_of_any_shape():
    both = layer(matrix=True)
    features = RNG.normal(size=(12, 2, 3))
    data = dg.Dataset(features, {"cost": RNG.normal(size=(12, 3)), "tilt": RNG.normal(size=(12, 2, 3))})
    for recipe in (dg.Linear(), dg.Linear(bias=False), dg.MLP((5,))):
        made = initialized(recipe, both, data, 0)
        found = predict(made, features, outputs_of(both))
        assert {name: value.shape for name, value in found.items()} == {"cost": (12, 3), "tilt": (12, 2, 3)}
    fitted = least_squares(dg.Linear().init(data, outputs_of(both)), data)
    design = np.column_stack([features.reshape(12, 6), np.ones(12)])
    expected = design @ np.linalg.lstsq(design, data.targets["tilt"].reshape(12, 6), rcond=None)[0]
    found = predict(fitted, features, outputs_of(both))["tilt"]
    np.testing.assert_allclose(found.reshape(12, 6), expected, atol=1e-10)


# ------------------------------------------------------------------------------------------------ networks


def test_a_network_is_its_formula_and_its_seed():
    made = dg.MLP((6, 5), activation="tanh").init(DATA, OUTPUTS, seed=4)
    again = dg.MLP((6, 5), activation="tanh").init(DATA, OUTPUTS, seed=4)
    other = dg.MLP((6, 5), activation="tanh").init(DATA, OUTPUTS, seed=5)
    assert [layer.weight.shape for layer in made.layers] == [(6, 4), (5, 6), (3, 5)]
    value = (FEATURES - FEATURES.mean(0)) / FEATURES.std(0)
    for i, part in enumerate(made.layers):
        value = value @ np.asarray(part.weight).T + np.asarray(part.bias)
        value = np.tanh(value) if i < 2 else value
    expected = COSTS.mean(0) + COSTS.std(0) * value
    np.testing.assert_allclose(predict(made, FEATURES, OUTPUTS)["cost"], expected, rtol=1e-9)
    np.testing.assert_array_equal(made.layers[0].weight, again.layers[0].weight)
    assert not np.array_equal(made.layers[0].weight, other.layers[0].weight)
    assert made.layers[0].weight.dtype == np.float64


def test_a_network_without_hidden_layers_is_linear():
    made = dg.MLP(()).init(DATA, OUTPUTS)
    ends = predict(made, np.stack([FEATURES[0], FEATURES[1], (FEATURES[0] + FEATURES[1]) / 2]), OUTPUTS)[
        "cost"
    ]
    np.testing.assert_allclose(ends[2], (ends[0] + ends[1]) / 2, rtol=1e-10)


def test_a_hidden_layer_without_units_is_refused():
    with pytest.raises(ModelError, match="at least one unit"):
        dg.MLP((4, 0)).init(DATA, OUTPUTS)


def test_an_unknown_activation_is_named():
    with pytest.raises(ModelError, match="no activation 'rleu'"):
        dg.MLP(activation="rleu").init(DATA, OUTPUTS)


# ------------------------------------------------------------------------------------------------- images

IMAGES = np.random.default_rng(3).uniform(0.0, 1.0, (8, 6, 9, 2))
GRID = dg.Dataset(IMAGES, {"cost": np.random.default_rng(4).uniform(1.0, 9.0, (8, 6))})
GRID_OUTPUTS = (("cost", (6,)),)


@pytest.mark.parametrize("positive", [False, True])
def test_a_convolutional_network_by_hand(positive):
    made = dg.CNN(width=4, depth=1, activation="tanh", positive=positive).init(GRID, GRID_OUTPUTS, seed=1)
    first, second, last = ((np.asarray(layer.weight), np.asarray(layer.bias)) for layer in made.layers)
    pixels = IMAGES.reshape(-1, 2)
    tiles = ((IMAGES - pixels.mean(0)) / pixels.std(0)).reshape(8, 2, 3, 3, 3, 2)  # 2 × 3 cells of 3 × 3
    value = np.tanh(np.einsum("nitjuc,kctu->nkij", tiles, first[0]) + first[1])
    padded = np.pad(value, ((0, 0), (0, 0), (1, 1), (1, 1)))
    around = sum(
        np.einsum("kc,ncij->nkij", second[0][:, :, a, b], padded[:, :, a : a + 2, b : b + 3])
        for a in range(3)
        for b in range(3)
    )
    value = np.einsum("kc,ncij->nkij", last[0][:, :, 0, 0], np.tanh(around + second[1])) + last[1]
    target = GRID.targets["cost"]
    expected = target.mean() * np.log1p(np.exp(value)) if positive else target.mean() + target.std() * value
    np.testing.assert_allclose(predict(made, IMAGES, GRID_OUTPUTS)["cost"], expected.reshape(8, 6), rtol=1e-9)


def test_a_convolutional_network_is_a_function_of_its_seed():
    made, again, other = (dg.CNN().init(GRID, GRID_OUTPUTS, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(made.layers[0].weight, again.layers[0].weight)
    assert not np.array_equal(made.layers[0].weight, other.layers[0].weight)


@pytest.mark.parametrize(
    ("cnn", "features", "targets", "message"),
    [
        (dg.CNN(activation="rleu"), IMAGES, {"cost": np.ones((8, 6))}, "no activation 'rleu'"),
        (dg.CNN(), IMAGES[..., 0], {"cost": np.ones((8, 6))}, "height, width, channels"),
        (dg.CNN(), IMAGES, {"a": np.ones((8, 6)), "b": np.ones((8, 6))}, "one predicted parameter"),
        (dg.CNN(), IMAGES, {"cost": np.ones((8, 5))}, "no grid of 5 square cells"),
        (dg.CNN(), IMAGES, {"cost": np.ones((8, 3, 2))}, r"\(2, 3\) cells, 'cost' has shape \(3, 2\)"),
        (dg.CNN(positive=True), IMAGES, {"cost": -np.ones((8, 6))}, "positive mean, got -1"),
    ],
)
def test_images_that_do_not_fit_are_refused(cnn, features, targets, message):
    outputs = tuple((name, a.shape[1:]) for name, a in targets.items())
    with pytest.raises(ModelError, match=message):
        cnn.init(dg.Dataset(features, targets), outputs)


# --------------------------------------------------------------------------------------------- of the user


class Affine(eqx.Module):
    """A user's own predictor: a bare array for the one parameter."""

    weight: jax.Array

    def __call__(self, features):
        return self.weight @ features


def test_a_bare_array_is_the_one_parameter():
    made = initialized(Affine(jnp.ones((3, 4))), layer(), DATA, 0)
    np.testing.assert_allclose(
        predict(made, FEATURES, OUTPUTS)["cost"], FEATURES.sum(1, keepdims=True).repeat(3, 1), rtol=1e-6
    )
    with pytest.raises(ModelError, match="must return a dict"):
        named(jnp.ones(3), (("cost", (3,)), ("tilt", (2, 3))))


@pytest.mark.parametrize(
    ("predictor", "message"),
    [
        (3.0, "must be Linear, MLP, CNN or a callable, got float"),
    ],
)
def test_predictors_that_do_not_fit_are_refused(predictor, message):
    with pytest.raises(ModelError, match=message):
        initialized(predictor, layer(), DATA, 0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: x, r"array of shape \(4,\) for 'cost' \(3,\)"),
        (lambda x: {"price": x[:3]}, r"returns \['price'\], but not the parameter 'cost'"),
        (lambda x: {"cost": x[:3, None]}, r"'cost' of shape \(3, 1\), expected \(3,\)"),
    ],
)
def test_functions_that_do_not_fit_are_refused_by_every_adapter(answer, message):
    for predictor in (answer, dg.JAXPredictor(lambda params, x: answer(x * params), jnp.ones(()))):
        with pytest.raises(ModelError, match=message):
            initialized(predictor, layer(), DATA, 0)


# ------------------------------------------------------------------------------------------ other libraries


def affine(params, features):
    return features @ params["slope"] + params["shift"]


PARAMS = {"slope": RNG.normal(size=(4, 3)), "shift": RNG.normal(size=3), "note": "not an array"}


def test_a_function_with_parameters_predicts_as_it_stands_or_in_standardized_units():
    plain = initialized(dg.JAXPredictor(affine, PARAMS, standardize=False), layer(), DATA, 0)
    expected = FEATURES @ PARAMS["slope"] + PARAMS["shift"]
    np.testing.assert_allclose(predict(plain, FEATURES, OUTPUTS)["cost"], expected, rtol=1e-12)
    batched = initialized(dg.JAXPredictor(affine, PARAMS, False, batched=True), layer(), DATA, 0)
    np.testing.assert_allclose(predict(batched, FEATURES, OUTPUTS)["cost"], expected, rtol=1e-12)
    scaled = initialized(dg.JAXPredictor(affine, PARAMS), layer(), DATA, 0)
    z = (FEATURES - FEATURES.mean(0)) / FEATURES.std(0)
    expected = COSTS.mean(0) + COSTS.std(0) * (z @ PARAMS["slope"] + PARAMS["shift"])
    np.testing.assert_allclose(predict(scaled, FEATURES, OUTPUTS)["cost"], expected, rtol=1e-12)


def test_a_function_of_the_users_trains_to_least_squares():
    start = {"slope": np.zeros((4, 3)), "shift": np.zeros(3), "note": "not an array"}
    found = dg.fit(
        dg.JAXPredictor(affine, start), layer(), DATA, dg.losses.MSE(), selection=None, epochs=300,
        batch_size=40, learning_rate=0.1, progress=False,
    ).predictor  # fmt: skip
    expected = predict(least_squares(dg.Linear().init(DATA, OUTPUTS), DATA), FEATURES, OUTPUTS)["cost"]
    np.testing.assert_allclose(predict(found, FEATURES, OUTPUTS)["cost"], expected, atol=1e-5)
    assert not start["slope"].any()


def test_what_cannot_be_compiled_is_named():
    class Unhashable:
        __hash__ = None

        def __call__(self, params, features):
            return features

    with pytest.raises(ModelError, match="cannot be hashed"):
        dg.JAXPredictor(Unhashable(), {}).init(DATA, OUTPUTS)


def test_flax_modules_predict_as_by_themselves_and_train():
    pytest.importorskip("flax")
    from flax import linen, nnx

    class Net(linen.Module):
        widths: tuple[int, ...]

        @linen.compact
        def __call__(self, x):
            assert x.ndim == 2  # wants a batch
            x = linen.BatchNorm(use_running_average=True)(x)
            for width in self.widths:
                x = linen.tanh(linen.Dense(width)(x))
            return {"cost": linen.Dense(3)(x)}

    class Small(nnx.Module):
        def __init__(self, rngs):
            self.first, self.norm = nnx.Linear(4, 6, rngs=rngs), nnx.BatchNorm(6, rngs=rngs)
            self.last = nnx.Linear(6, 3, rngs=rngs)

        def __call__(self, x):
            return self.last(nnx.tanh(self.norm(self.first(x), use_running_average=True)))

    small = Small(nnx.Rngs(1))
    variables = Net((6,)).init(jax.random.key(1), jnp.ones((1, 4)))
    z = (FEATURES - FEATURES.mean(0)) / FEATURES.std(0)
    cases = [
        (dg.FlaxPredictor(small), small(z)),
        (dg.FlaxPredictor(Net((6,)), variables, batched=True), Net((6,)).apply(variables, z)["cost"]),
    ]
    for recipe, expected in cases:
        made = initialized(recipe, layer(), DATA, 0)
        got = (predict(made, FEATURES, OUTPUTS)["cost"] - COSTS.mean(0)) / COSTS.std(0)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)  # Flax computes in float32 here
        fixed = jax.tree_util.tree_leaves(made.fixed)
        assert len(fixed) == 2 and all(isinstance(leaf, np.ndarray) for leaf in fixed)
        trained = dg.fit(
            recipe, layer(), DATA, "mse", epochs=40, learning_rate=0.02, progress=False
        ).predictor
        errors = [((predict(p, FEATURES, OUTPUTS)["cost"] - COSTS) ** 2).mean() for p in (made, trained)]
        assert errors[1] < 0.3 * errors[0]
        np.testing.assert_array_equal(jax.tree_util.tree_leaves(trained.fixed)[0], fixed[0])
    one, same, other = (
        predict(dg.FlaxPredictor(Net((6,)), batched=True).init(DATA, OUTPUTS, s), FEATURES, OUTPUTS)["cost"]
        for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)
    with pytest.raises(ModelError, match=r"pass FlaxPredictor\(module\)"):
        initialized(small, layer(), DATA, 0)
    with pytest.raises(ModelError, match="holds its variables itself"):
        dg.FlaxPredictor(small, variables).init(DATA, OUTPUTS)
    with pytest.raises(ModelError, match="cannot be hashed"):
        dg.FlaxPredictor(Net([6]), batched=True).init(DATA, OUTPUTS)
    with pytest.raises(ModelError, match=r"a flax.linen or flax.nnx module, got Linear"):
        dg.FlaxPredictor(dg.Linear()).init(DATA, OUTPUTS)
