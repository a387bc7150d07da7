"""Judging decisions: `evaluate`, `compare`, metrics, statistics, figures and the report."""

from decigrad.evaluation.comparison import ComparisonData as ComparisonData
from decigrad.evaluation.comparison import Run as Run
from decigrad.evaluation.diagnosis import diagnose as diagnose
from decigrad.evaluation.findings import Diagnosis as Diagnosis
from decigrad.evaluation.judge import Comparison as Comparison
from decigrad.evaluation.judge import compare as compare
from decigrad.evaluation.judge import evaluate as evaluate
from decigrad.evaluation.metrics import Evaluation as Evaluation
from decigrad.registry import Method as Method
