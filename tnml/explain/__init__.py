"""Exact answers of tensor networks: which features an output is due to, and what would change it."""

from tnml.explain.counterfactual import Counterfactual, counterfactual
from tnml.explain.dependence import accumulated_effects, individual_dependence, partial_dependence
from tnml.explain.explanation import Explanation
from tnml.explain.interactions import Interactions, interactions
from tnml.explain.laws import IndependentInputs, MarkovInputs
from tnml.explain.moments import Moments, moments, squared_gradients
from tnml.explain.shapley import banzhaf, shapley
from tnml.explain.sobol import Sobol, sobol

__all__ = [
    "Counterfactual",
    "Explanation",
    "IndependentInputs",
    "Interactions",
    "MarkovInputs",
    "Moments",
    "Sobol",
    "accumulated_effects",
    "banzhaf",
    "counterfactual",
    "individual_dependence",
    "interactions",
    "moments",
    "partial_dependence",
    "shapley",
    "sobol",
    "squared_gradients",
]
