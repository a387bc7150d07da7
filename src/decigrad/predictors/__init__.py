"""Predictors: from features to a dict of parameters.

`Linear`, `MLP`, `CNN` and the rest are recipes; `fit` initializes them for the data at hand. Any callable
pytree works in their place (an Equinox module, say): it maps the features of *one* sample to a dict of arrays
named like the predicted parameters, or to one array when one parameter is predicted.
"""

from decigrad.predictors.adapters import CallablePredictor as CallablePredictor
from decigrad.predictors.adapters import FlaxPredictor as FlaxPredictor
from decigrad.predictors.adapters import JAXPredictor as JAXPredictor
from decigrad.predictors.linear import Linear as Linear
from decigrad.predictors.linear import LinearPredictor as LinearPredictor
from decigrad.predictors.linear import least_squares as least_squares
from decigrad.predictors.networks import CNN as CNN
from decigrad.predictors.networks import MLP as MLP
from decigrad.predictors.networks import CNNPredictor as CNNPredictor
from decigrad.predictors.networks import MLPPredictor as MLPPredictor
from decigrad.predictors.protocol import OnHost as OnHost
from decigrad.predictors.protocol import Outputs as Outputs
from decigrad.predictors.protocol import Recipe as Recipe
from decigrad.predictors.protocol import Scaled as Scaled
from decigrad.predictors.protocol import initialized as initialized
from decigrad.predictors.protocol import named as named
from decigrad.predictors.protocol import outputs_of as outputs_of
from decigrad.predictors.protocol import predict as predict
from decigrad.predictors.protocol import size_of as size_of
