"""Bridges to other libraries: the scikit-learn estimator."""

from decigrad.interop.estimator import DecisionFocusedRegressor as DecisionFocusedRegressor
from decigrad.interop.estimator import records as records
