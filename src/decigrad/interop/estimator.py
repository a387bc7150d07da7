"""The scikit-learn estimator: a thin shell over `fit` and `Policy`."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

try:
    from sklearn.base import BaseEstimator, RegressorMixin
    from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise ImportError(
        "DecisionFocusedRegressor needs scikit-learn 1.6 or later: pip install 'decigrad[sklearn]'"
    ) from None

from decigrad.compiled import float64
from decigrad.data import Dataset
from decigrad.errors import ModelError
from decigrad.evaluation import evaluate
from decigrad.layer import DecisionLayer
from decigrad.model import Model
from decigrad.policy import Policy
from decigrad.predictors import Linear, Outputs, outputs_of, size_of
from decigrad.registry import named
from decigrad.regressors import Regressor, is_regressor
from decigrad.training import fit


def records(parameters: Mapping[str, Any]) -> np.ndarray:
    """Parameters by name, each [N, *shape], as one structured array [N].

    `GridSearchCV` and the like split arrays by sample and pass dicts on as they are; so this is how several
    predicted parameters, or known ones, are handed to them.

    >>> records({"price": [1.0, 2.0], "load": [[3.0, 4.0], [5.0, 6.0]]})["load"].shape
    (2, 2)
    """
    arrays = {name: np.asarray(value, np.float64) for name, value in parameters.items()}
    if len({array.shape[:1] for array in arrays.values()}) != 1:
        shown = ", ".join(f"{name!r} {array.shape}" for name, array in arrays.items())
        raise ModelError(f"records needs arrays of one length, got {shown or 'none'}")
    count = len(next(iter(arrays.values())))
    found = np.empty(count, [(name, np.float64, array.shape[1:]) for name, array in arrays.items()])
    for name, array in arrays.items():
        found[name] = array
    return found


class DecisionFocusedRegressor(RegressorMixin, BaseEstimator):
    """A regressor that is trained by the decisions its predictions lead to, as scikit-learn knows estimators.

        est = dg.DecisionFocusedRegressor(model, loss="spo+").fit(X, costs)
        est.predict(X)             # parameters [N, *shape], or a dict where several are predicted
        est.decide(X)              # decisions [N, *shape], or a dict where the model has several variables
        est.score(X, costs)        # minus the mean regret

    Args:
        model: a `Model`, or a `DecisionLayer` where solver, gradient or predicted parameters are chosen.
        predictor: any predictor of `fit`, `Linear()` by default; with loss="two-stage" also a regressor of
            scikit-learn.
        loss: as in `fit`: a loss, the name of a method, or "auto"; `Regret()` by default.
        selection, epochs, batch_size, learning_rate, proximal_weight, warm_start: as in `fit`; a regressor of
            scikit-learn is one that training can start from. Unlike scikit-learn's own `warm_start`, it does
            not go on from the last call of `fit`.
        random_state: seed; None or a `RandomState` draws one. The same seed gives the same bits.
        options: further arguments of `fit`, a dict.

    Attributes:
        policy_: the trained rule, a `Policy`, which can be saved and served.
        result_: what `fit` returned, with the two-stage predictor and what was chosen.
        n_features_in_, feature_names_in_: as in scikit-learn.
    """

    def __init__(
        self,
        model: Model | DecisionLayer,
        *,
        predictor: Any = None,
        loss: Any = None,
        selection: Any = "default",
        epochs: int = 40,
        batch_size: int = 32,
        learning_rate: float = 0.01,
        proximal_weight: float = 0.0,
        warm_start: Any = True,
        random_state: Any = 0,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.predictor = predictor
        self.loss = loss
        self.selection = selection
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.proximal_weight = proximal_weight
        self.warm_start = warm_start
        self.random_state = random_state
        self.options = options

    def fit(self, X: Any, y: Any, sample_weight: Any = None, known: Any = None) -> DecisionFocusedRegressor:
        """Train.

        Args:
            X: features [N, p], or [N, ...] for predictors of images or items; a pandas or polars frame.
            y: true parameters: [N], [N, *shape], or [N, m] with all predicted parameters flattened in a row;
                or by name (a dict, a structured array of `records`, a frame with a column for each scalar).
            sample_weight: [N], nonnegative.
            known: values of the known parameters, by name as for y.

        Raises:
            ModelError: data that do not fit the model; it is a `ValueError`.
        """
        layer = self._layer()
        features = self._features(X, reset=True)
        data = _dataset(features, y, layer, known, sample_weight)
        predictor = Linear() if self.predictor is None else self.predictor
        if is_regressor(predictor):
            predictor = Regressor(predictor)
        self.result_ = fit(
            predictor,
            layer,
            data,
            self.loss,
            seed=self._seed(),
            selection=self.selection,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            proximal_weight=self.proximal_weight,
            warm_start=self.warm_start,
            **{"progress": False, **(self.options or {})},
        )
        self.policy_ = Policy(
            self.result_.predictor,
            layer,
            feature_names=getattr(self, "feature_names_in_", None),
            feature_shape=features.shape[1:],
        )
        return self

    def predict(self, X: Any) -> Any:
        """Predicted parameters: [N, *shape], or a dict by name where several are predicted."""
        check_is_fitted(self, "policy_")
        return self._shown(self.policy_.predict(self._features(X)), X)

    def decide(self, X: Any, known: Any = None) -> Any:
        """Decisions: [N, *shape], or a dict by name where the model has several variables.

        Args:
            X: features, as in `fit`.
            known: values of the known parameters by name, as in `fit`; those without one must be given.

        Raises:
            SolveError: a row has no decision; `policy_.decide` takes a fallback and a time limit.
        """
        check_is_fitted(self, "policy_")
        given = _by_name(known, self.policy_.layer.parameters)
        return self._shown(self.policy_.decide(self._features(X), given).x, X)

    def score(self, X: Any, y: Any, sample_weight: Any = None, known: Any = None) -> float:
        """Minus the mean regret of the decisions, so that more is better and 0 is best.

        Regret is that of the loss (`losses.Regret(cost)` brings its own cost), else that of the model's
        objective. A sample without a decision counts as the worst of the others.
        """
        check_is_fitted(self, "policy_")
        layer = self.policy_.layer
        data = _dataset(self._features(X), y, layer, known, sample_weight)
        loss = named(self.loss).loss if isinstance(self.loss, str) and self.loss != "auto" else self.loss
        found = evaluate(self.policy_.predictor, layer, data, cost=getattr(loss, "cost", None))
        regret = found.regret
        if len(found.failed):
            logging.getLogger("decigrad").warning(
                "%d of %d samples have no decision, the first is %d: each counts as the worst of the others",
                len(found.failed), len(data), found.failed[0],
            )  # fmt: skip
            good = np.isfinite(regret)
            regret = np.where(good, regret, regret[good].max() if good.any() else np.nan)
        return -float(np.average(regret, weights=data.weights))

    def set_output(self, *, predict: str | None = None) -> DecisionFocusedRegressor:
        """Let `predict` and `decide` return frames: "pandas", "polars", or "default" (arrays).

        A column holds one entry, as "cost[0]"; a pandas frame keeps the index of X. It is a setting of this
        estimator, which `clone` keeps; scikit-learn's `transform_output` is about transformers alone, and
        leaves it as it is.
        """
        if predict not in (None, "default", "pandas", "polars"):
            raise ValueError(f"set_output: predict must be 'default', 'pandas' or 'polars', got {predict!r}")
        if predict is not None:
            self._sklearn_output_config = {"predict": predict}
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        if isinstance(self.model, Model | DecisionLayer):
            tags.target_tags.multi_output = size_of(outputs_of(self._layer())) != 1
        tags.regressor_tags.poor_score = True  # 0 is the best there is
        return tags

    def __getstate__(self) -> Any:
        return {"float64": pickle.dumps(super().__getstate__())}

    def __setstate__(self, state: Any) -> None:
        with float64():  # outside, JAX would round the arrays of a pickle to float32
            super().__setstate__(pickle.loads(state["float64"]))

    def _layer(self) -> DecisionLayer:
        if isinstance(self.model, DecisionLayer):
            return self.model
        if not isinstance(self.model, Model):
            raise ModelError(f"model must be a Model or a DecisionLayer, got {type(self.model).__name__}")
        return DecisionLayer(self.model)

    def _features(self, X: Any, reset: bool = False) -> np.ndarray:
        return validate_data(self, X, reset=reset, dtype=np.float64, order="C", allow_nd=True)

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _shown(self, values: dict[str, np.ndarray], X: Any) -> Any:
        kind = getattr(self, "_sklearn_output_config", {}).get("predict", "default")
        if kind == "default":
            return next(iter(values.values())) if len(values) == 1 else values
        columns = {
            f"{name}[{','.join(map(str, entry))}]" if entry else name: value[(slice(None), *entry)]
            for name, value in values.items()
            for entry in np.ndindex(value.shape[1:])
        }
        if kind == "polars":
            import polars

            return polars.DataFrame(columns)
        import pandas

        return pandas.DataFrame(columns, index=getattr(X, "index", None))


def _dataset(features: np.ndarray, y: Any, layer: DecisionLayer, known: Any, sample_weight: Any) -> Dataset:
    if y is None:
        raise ModelError("DecisionFocusedRegressor requires y to be passed, but the target y is None")
    if sample_weight is not None:
        sample_weight = _numbers("sample_weight", sample_weight)
        if sample_weight.ndim != 1:
            raise ModelError(f"sample weights must be 1D, got shape {sample_weight.shape}")
        check_consistent_length(features, sample_weight)
    targets = _targets(y, outputs_of(layer))
    check_consistent_length(features, *targets.values())
    return Dataset(features, targets, _by_name(known, layer.parameters), sample_weight)


def _targets(y: Any, outputs: Outputs) -> dict[str, np.ndarray]:
    """True parameters by name, [N, *shape]."""
    found = _by_name(y, [name for name, _ in outputs], strict=False)
    if found is not None:
        return found
    array = check_array(y, ensure_2d=False, allow_nd=True, dtype=np.float64, input_name="y")
    if size_of(outputs) == 1 and array.ndim == 2 and outputs[0][1] == ():
        array = column_or_1d(array, warn=True)
    if len(outputs) == 1 and array.shape[1:] == outputs[0][1]:
        return {outputs[0][0]: array}
    if array[0].size != size_of(outputs):
        raise ModelError(
            f"y has {array[0].size} numbers for each sample, but the model predicts "
            f"{', '.join(f'{name!r} {shape}' for name, shape in outputs)}: {size_of(outputs)} numbers"
        )
    cuts = np.cumsum([size_of((part,)) for part in outputs])[:-1]
    parts = np.split(array.reshape(len(array), -1), cuts, axis=1)
    return {n: part.reshape(len(array), *shape) for (n, shape), part in zip(outputs, parts, strict=True)}


def _by_name(value: Any, names: Any, strict: bool = True) -> dict[str, np.ndarray] | None:
    """Parameters by name out of a dict, a structured array, or a frame with these columns."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        return {str(name): _numbers(name, part) for name, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.names:
        return {name: _numbers(name, value[name]) for name in value.dtype.names}
    if hasattr(value, "columns") and (strict or all(name in value.columns for name in names)):
        return {str(name): _numbers(name, value[name]) for name in (value.columns if strict else names)}
    if strict:
        raise ModelError(
            f"known must be by name: a dict, records(...) or a frame, got {type(value).__name__}"
        )
    return None


def _numbers(name: Any, value: Any) -> np.ndarray:
    return check_array(value, ensure_2d=False, allow_nd=True, dtype=np.float64, input_name=str(name))
