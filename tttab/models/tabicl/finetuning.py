"""tabicl's own fine-tuning, as a rival: the same file, its defaults.

What does not belong here: test-time training.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from tttab.errors import MissingExtra
from tttab.models.tabicl.predictor import Server

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tttab.models.tabicl.session import TabICLSession


def finetune(
    session: TabICLSession, x: pd.DataFrame, y: np.ndarray, seed: int, seconds: float | None
) -> Server:
    """Return what `FinetunedTabICLClassifier` makes of the session's weights.

    Raises:
        MissingExtra: transformers is not installed.
    """
    try:
        from tabicl import FinetunedTabICLClassifier
    except ImportError as error:
        raise MissingExtra("transformers", "transformer") from error
    with tempfile.TemporaryDirectory() as folder:
        session.save(Path(folder) / "model.ckpt")
        model = FinetunedTabICLClassifier(
            model_path=Path(folder) / "model.ckpt",
            device=session.device,
            random_state=seed,
            time_limit=seconds,
            n_estimators_inference=session.members,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(x, y)
    return Server(model, session.members)
