"""Results to look at: scores by class and figures. Nothing here trains or loads anything."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tnml.report.explanation_figures import (
        beeswarm_figure,
        contribution_figure,
        dependence_figure,
        importance_figure,
        pixel_figure,
    )
    from tnml.report.explanation_html import explanation_page
    from tnml.report.figures import (
        bond_figure,
        compression_figure,
        confusion_figure,
        entanglement_figure,
        figure_format,
        prediction_figure,
        save_figure,
    )
    from tnml.report.pde_figures import cost_figure, solution_figure
    from tnml.report.scores import (
        ClassScores,
        RegressionScores,
        class_scores,
        confusion_counts,
        regression_scores,
    )
    from tnml.report.study_charts import study_figures
    from tnml.report.study_html import study_page

__all__ = [
    "ClassScores",
    "RegressionScores",
    "beeswarm_figure",
    "bond_figure",
    "class_scores",
    "compression_figure",
    "confusion_counts",
    "confusion_figure",
    "contribution_figure",
    "cost_figure",
    "dependence_figure",
    "entanglement_figure",
    "explanation_page",
    "figure_format",
    "importance_figure",
    "pixel_figure",
    "prediction_figure",
    "regression_scores",
    "save_figure",
    "solution_figure",
    "study_figures",
    "study_page",
]

_FIGURES = (
    "bond_figure",
    "compression_figure",
    "confusion_figure",
    "entanglement_figure",
    "figure_format",
    "prediction_figure",
    "save_figure",
)
_EXPLANATIONS = (
    "beeswarm_figure",
    "contribution_figure",
    "dependence_figure",
    "importance_figure",
    "pixel_figure",
)
_SCORES = ("ClassScores", "RegressionScores", "class_scores", "confusion_counts", "regression_scores")
_HOMES = {  # these load matplotlib, scikit-learn, or what studies need
    **dict.fromkeys(_FIGURES, "figures"),
    **dict.fromkeys(_SCORES, "scores"),
    **dict.fromkeys(_EXPLANATIONS, "explanation_figures"),
    "explanation_page": "explanation_html",
    "cost_figure": "pde_figures",
    "solution_figure": "pde_figures",
    "study_figures": "study_charts",
    "study_page": "study_html",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tnml.report' has no attribute {name!r}")
    return getattr(import_module(f"tnml.report.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
