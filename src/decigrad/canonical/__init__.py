"""From a model's expressions to the waist: structure on the host, values as a traceable function."""

from decigrad.canonical.curvature import check_convex as check_convex
from decigrad.canonical.form import CanonicalForm as CanonicalForm
from decigrad.canonical.form import canonicalize as canonicalize
