"""Test-time training as a model of AutoGluon, and so of TabArena, whose models are AutoGluon's.

`TabularPredictor(label=…).fit(table, hyperparameters={TTTModel: {"n_context": 200}})`; the hyperparameters
are the parameters of `tttab.TTTClassifier`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tttab.errors import MissingExtra

try:
    AbstractModel: Any = import_module("autogluon.core.models").AbstractModel
except ImportError as error:
    raise MissingExtra(error.name or "autogluon.core", "autogluon") from error

if TYPE_CHECKING:
    import pandas as pd

TIME_SHARE = 0.8
"""Of AutoGluon's time limit, what training may take; the model's opening and its cache take the rest."""


class TTTModel(AbstractModel):
    """A tabular foundation model adapted to the training rows, predicting from few of them."""

    ag_key = ag_name = "TTT"
    seed_name = "random_state"

    @classmethod
    def supported_problem_types(cls) -> list[str]:
        """Return what can be predicted."""
        return ["binary", "multiclass", "regression"]

    def _fit(
        self, X: pd.DataFrame, y: pd.Series, time_limit: float | None = None, num_gpus: int = 0, **_: Any
    ) -> None:
        from tttab.api.estimator import TTTClassifier, TTTRegressor

        estimator: type[Any] = TTTRegressor if self.problem_type == "regression" else TTTClassifier
        parameters = {"device": "auto" if num_gpus else "cpu", **self._get_model_params()}
        if time_limit is not None:
            parameters.setdefault("max_seconds", TIME_SHARE * time_limit)
        self.model = estimator(**parameters).fit(self.preprocess(X, y=y), y)

    def _get_default_resources(self) -> tuple[int, int]:
        found = import_module("autogluon.common.utils.resource_utils").ResourceManager
        return found.get_cpu_count(only_physical_cores=True), min(1, found.get_gpu_count())
