"""tabpfn's own fine-tuning, as a rival: the same file, its defaults."""

from __future__ import annotations

import contextlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

from tttab.data.levels import drop_unused_categories
from tttab.models.tabpfn.predictor import Server

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd
    import torch


class FinetunedServer(Server):
    """A fine-tuned classifier that answers from all rows it was trained on; it has no cache."""

    cache_bytes = None


def finetune(
    path: Path,
    device: torch.device,
    x: pd.DataFrame,
    y: np.ndarray,
    seed: int,
    seconds: float | None,
    first: bool,
) -> Any:
    """Return the `FinetunedTabPFNClassifier` of the weights of a file; `first`: it is of TabPFN v2."""
    from tabpfn.constants import ModelVersion
    from tabpfn.finetuning import FinetunedTabPFNClassifier

    version: dict[str, Any] = {"model_version": ModelVersion.V2} if first else {}
    with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        model = FinetunedTabPFNClassifier(
            device=str(device),
            random_state=seed,
            time_limit=None if seconds is None else int(seconds),
            extra_classifier_kwargs={"model_path": path, "ignore_pretraining_limits": True},
            **version,
        )
        return model.fit(x, y)


def serve_finetuned(
    model: Any, x: pd.DataFrame, y: np.ndarray, rows: int | None, architecture: str
) -> Server:
    """Let what `finetune` returns serve from the rows it was trained on, or from the first `rows` of them.

    Those few are kept as keys and values, as tabpfn keeps any short context.
    """
    if rows is None:
        return FinetunedServer(model, x, "")
    short, x = model.finetuned_inference_classifier_, drop_unused_categories(x.iloc[:rows])
    short.fit_mode = "fit_with_cache"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Server(short.fit(x, y[:rows]), x, architecture)
