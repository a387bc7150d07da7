"""The modelling language: `import decigrad.modeling as dm`."""

from decigrad.expressions.constraint import Constraint as Constraint
from decigrad.expressions.expression import Expression as Expression
from decigrad.expressions.expression import Parameter as Parameter
from decigrad.expressions.expression import Variable as Variable
from decigrad.expressions.functions import *  # noqa: F403
from decigrad.model import Model as Model
