"""What to know before believing a figure, one sentence each."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tttab.core import REAL
from tttab.text import shown

if TYPE_CHECKING:
    from tttab.evaluation.trial import Trial
    from tttab.training.result import Adapted


MOST_NAMED = 10
"""Classes with few context rows that are named; of more only the number is stated."""


def caveats(trial: Trial) -> list[str]:
    """Return the remarks on a table, its split and the model."""
    from tttab.data.checks import duplicates_between, thin_classes

    table, split = trial.table, trial.split
    found = []
    duplicates = duplicates_between(table.x, split.context, split.test)
    if duplicates:
        same = "have the same feature values as a context row (possible leakage)"
        found.append(f"{duplicates} of {len(split.test)} test rows {same}")
    rare = thin_classes(table, split.context)
    if len(rare) > MOST_NAMED:
        few = f"{len(rare)} of {len(table.classes)} classes have few context rows, some only"
        found.append(f"{few} {min(rare.values())}: a larger --n would help")
    else:
        found += [
            f"only {count} context rows for class {name!r}: a larger --n would help"
            for name, count in rare.items()
        ]
    info = trial.model.info
    if info.provenance == REAL and table.source != "file":
        found.append(
            f"{info.file} was further trained on real tables, perhaps on {table.name} itself: "
            "use --model tabpfn-v2 for a fair figure"
        )
    if "non-commercial" in info.license:
        found.append(f"the licence of {info.name} forbids production use: {info.license}")
    return found


def early_stop(adapted: Adapted | None) -> list[str]:
    """Return a remark where training ended early."""
    return [f"training stopped early: {adapted.stopped}"] if adapted is not None and adapted.stopped else []


def refusal(stopped: str, vetoed: Sequence[int]) -> str:
    """Say why no trained weights were kept, where it was not for their held-out loss alone."""
    if stopped:
        return f"training stopped because {stopped}"
    if vetoed:
        return f"{len(vetoed)} steps had a lower held-out loss but were worse calibrated"
    return ""


def user_warnings(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    """Return the warnings that concern the user: not those about the code of a package underneath."""
    technical = DeprecationWarning | FutureWarning | ImportWarning
    return [shown(one.message, 200) for one in caught if not issubclass(one.category, technical)]
