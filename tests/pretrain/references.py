"""Write the reference predictions of the bundled models: `python -m tests.pretrain.references`.

Run it when a bundled file has been replaced on purpose, and look at the difference.
"""

from __future__ import annotations

import json
from pathlib import Path

from tttab.models.catalog import KNOWN
from tttab.pretrain.bundle import reference_predictions
from tttab.system.files import sha256_of, write_text_atomically

WEIGHTS = Path(__file__).parents[2] / "tttab" / "models" / "weights"
STORED = Path(__file__).with_name("references.json")
MODELS = {model.file: model.task for model in KNOWN if model.bundled}
"""The bundled files and their tasks."""


def main() -> None:
    """Predict with every bundled model and store what came out."""
    stored = {
        name: {
            "sha256": sha256_of(WEIGHTS / name),
            "predictions": reference_predictions(WEIGHTS / name, task).round(6).tolist(),
        }
        for name, task in MODELS.items()
    }
    write_text_atomically(STORED, json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
