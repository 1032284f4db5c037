"""tabicl's own fine-tuning, as a rival: the same file, its defaults."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from tttab.errors import MissingExtra
from tttab.models.tabicl.predictor import Server

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd
    import torch


def finetune(
    path: Path,
    device: torch.device,
    x: pd.DataFrame,
    y: np.ndarray,
    seed: int,
    seconds: float | None,
    members: int,
) -> Any:
    """Return the `FinetunedTabICLClassifier` of the weights of a file; so many members serve.

    Raises:
        MissingExtra: transformers is not installed.
    """
    try:
        from tabicl import FinetunedTabICLClassifier
    except ImportError as error:
        raise MissingExtra("transformers", "transformer") from error
    model = FinetunedTabICLClassifier(
        model_path=path,
        device=device,
        random_state=seed,
        time_limit=seconds,
        n_estimators_inference=members,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(x, y)


def serve_finetuned(model: Any, x: pd.DataFrame, y: np.ndarray, rows: int | None, members: int) -> Server:
    """Let what `finetune` returns serve from the rows it was trained on, or from the first `rows` of them."""
    if rows is not None:
        model._final_estimator_.kv_cache = True
        model._final_estimator_._load_model = lambda: None  # the fine-tuned network is there already
        model._final_estimator_.fit(model._transform_X_for_inference(x.iloc[:rows]), y[:rows])
    return Server(model, members)
