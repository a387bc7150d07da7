"""Losses: of the decision (`Regret`), of the prediction (`LeastSquares`, `MSE`)."""

from decigrad.losses.decision import Regret as Regret
from decigrad.losses.prediction import MSE as MSE
from decigrad.losses.prediction import LeastSquares as LeastSquares
from decigrad.losses.protocol import Batch as Batch
from decigrad.losses.protocol import Loss as Loss
