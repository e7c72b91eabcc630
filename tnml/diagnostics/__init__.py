"""Measurements of models that change nothing: spectra, complexity, memorisation, susceptibility."""

from tnml.diagnostics.activations import activation_sparsity, layer_conditioning
from tnml.diagnostics.alignment import Alignment, ridge_head, spectral_alignment
from tnml.diagnostics.callbacks import CALLBACKS, RunFacts
from tnml.diagnostics.closure import Moments, class_moments, gaussian_moments
from tnml.diagnostics.complexity import geometric_complexity, mps_geometric_complexity
from tnml.diagnostics.curvature import (
    BatchCurve,
    HessianExtremes,
    batch_hessian_curve,
    hessian_extremes,
    scale_lr,
)
from tnml.diagnostics.discovery import Significance, ams
from tnml.diagnostics.input_moments import FeatureMoments, feature_moments
from tnml.diagnostics.isolation import undisturbed
from tnml.diagnostics.localisation import inverse_participation
from tnml.diagnostics.memorisation import memorised
from tnml.diagnostics.parameters import ParameterCounts, count_parameters, gauge_free_parameters
from tnml.diagnostics.random_matrix import Bulk, PorterThomas, marchenko_pastur, porter_thomas, rmt_filter
from tnml.diagnostics.spectra import Schmidt, matrices, schmidt, singular_values
from tnml.diagnostics.susceptibility import Susceptibility, select_models
from tnml.diagnostics.tracker import Tracker

__all__ = [
    "CALLBACKS",
    "Alignment",
    "BatchCurve",
    "Bulk",
    "FeatureMoments",
    "HessianExtremes",
    "Moments",
    "ParameterCounts",
    "PorterThomas",
    "RunFacts",
    "Schmidt",
    "Significance",
    "Susceptibility",
    "Tracker",
    "activation_sparsity",
    "ams",
    "batch_hessian_curve",
    "class_moments",
    "count_parameters",
    "feature_moments",
    "gauge_free_parameters",
    "gaussian_moments",
    "geometric_complexity",
    "hessian_extremes",
    "inverse_participation",
    "layer_conditioning",
    "marchenko_pastur",
    "matrices",
    "memorised",
    "mps_geometric_complexity",
    "porter_thomas",
    "ridge_head",
    "rmt_filter",
    "scale_lr",
    "schmidt",
    "select_models",
    "singular_values",
    "spectral_alignment",
    "undisturbed",
]
