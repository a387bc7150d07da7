"""Losses: of the decision (`Regret`), surrogates of regret, of the prediction (`LeastSquares`, `MSE`)."""

from decigrad.losses.contrastive import MAP as MAP
from decigrad.losses.contrastive import NCE as NCE
from decigrad.losses.contrastive import ListwiseRank as ListwiseRank
from decigrad.losses.contrastive import PairwiseRank as PairwiseRank
from decigrad.losses.contrastive import PointwiseRank as PointwiseRank
from decigrad.losses.decision import Regret as Regret
from decigrad.losses.fenchel_young import FenchelYoung as FenchelYoung
from decigrad.losses.geometric import AdjacentVertices as AdjacentVertices
from decigrad.losses.geometric import CaVE as CaVE
from decigrad.losses.imitation import Imitation as Imitation
from decigrad.losses.margin import StructuredHinge as StructuredHinge
from decigrad.losses.perturbed import PerturbedFenchelYoung as PerturbedFenchelYoung
from decigrad.losses.perturbed import ScoreFunction as ScoreFunction
from decigrad.losses.prediction import MSE as MSE
from decigrad.losses.prediction import LeastSquares as LeastSquares
from decigrad.losses.prediction import Quantile as Quantile
from decigrad.losses.protocol import Batch as Batch
from decigrad.losses.protocol import Loss as Loss
from decigrad.losses.surrogate import CILO as CILO
from decigrad.losses.surrogate import PerturbationGradient as PerturbationGradient
from decigrad.losses.surrogate import SPOPlus as SPOPlus
