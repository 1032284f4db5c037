"""tabicl's own fine-tuning, as a rival: the same file, its defaults.

What does not belong here: test-time training.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

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
) -> Server:
    """Return what `FinetunedTabICLClassifier` makes of the weights of a file; so many members serve.

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
        model.fit(x, y)
    return Server(model, members)
