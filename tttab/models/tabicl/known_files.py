"""The files that TabICL's authors publish: names, licence, what the weights have seen.

File names and repository are those of tabicl 2.2 (`_sklearn/classifier.py` and `regressor.py`), the licence
is the package's own, and what the weights have seen is its prior; it states no hashes and no sizes.
"""

from __future__ import annotations

from tttab.core import SYNTHETIC, KnownModel, Release, Task

REPOSITORY = "jingang/TabICL"
LICENCE = "BSD 3-Clause, the package's"
_FILES: tuple[tuple[str, str, Task, str], ...] = (
    ("tabicl", "v2", "classification", "tabicl-classifier-v2-20260212.ckpt"),
    ("tabicl-v1.1", "v1.1", "classification", "tabicl-classifier-v1.1-20250506.ckpt"),
    ("tabicl-v1", "v1", "classification", "tabicl-classifier-v1-20250208.ckpt"),
    ("tabicl", "v2", "regression", "tabicl-regressor-v2-20260212.ckpt"),
)


def official_models() -> tuple[KnownModel, ...]:
    """Return the published files; the newest of a task is called `tabicl` alone."""
    page = f"https://huggingface.co/{REPOSITORY}"
    return tuple(
        KnownModel(
            name, task, file, SYNTHETIC, release=Release(version, LICENCE, page, False), repository=REPOSITORY
        )
        for name, version, task, file in _FILES
    )
