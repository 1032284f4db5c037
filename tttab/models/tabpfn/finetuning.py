"""tabpfn's own fine-tuning, as a rival: the same file, its defaults.

What does not belong here: test-time training.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tttab.models.tabpfn.predictor import Server
from tttab.models.tabpfn.shared_context import ARCHITECTURE

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tttab.models.tabpfn.session import OpenedModel


class FinetunedServer(Server):
    """A fine-tuned classifier that answers from all rows it was trained on; it has no cache."""

    cache_bytes = None


def finetune(
    session: OpenedModel, x: pd.DataFrame, y: np.ndarray, seed: int, seconds: float | None
) -> FinetunedServer:
    """Return what `FinetunedTabPFNClassifier` makes of the session's weights."""
    from tabpfn.constants import ModelVersion
    from tabpfn.finetuning import FinetunedTabPFNClassifier

    version = {"model_version": ModelVersion.V2} if session.architecture == ARCHITECTURE else {}
    with tempfile.TemporaryDirectory() as folder:
        session.save(Path(folder) / "model.safetensors")
        settings: dict[str, Any] = {
            "model_path": Path(folder) / "model.safetensors",
            "ignore_pretraining_limits": True,
        }
        with warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            model = FinetunedTabPFNClassifier(
                device=str(session.device),
                random_state=seed,
                time_limit=None if seconds is None else int(seconds),
                extra_classifier_kwargs=settings,
                **version,
            )
            model.fit(x, y)
    return FinetunedServer(model, x, "")
