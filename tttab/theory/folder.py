"""Every linear experiment at its default sizes, and a folder that holds them all.

A folder has rows (JSON Lines), a tab-separated table and a figure (SVG and PNG) for each experiment,
`index.md`, and `manifest.json`, which says what each was made from: what is there already is kept. What
does not belong here: the experiments, the terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tttab.core import identity_hash
from tttab.errors import StoreError
from tttab.files import plain, write_text_atomically
from tttab.theory.linear_attention import covariances as linear_alignment
from tttab.theory.linear_attention import curves as linear_experiments
from tttab.theory.linear_attention import schedules as linear_steps
from tttab.theory.linear_attention import step_rules as linear_step_size
from tttab.theory.linear_attention.curves import Row, Setting
from tttab.theory.linear_attention.views import figure_panels, figure_title
from tttab.theory.plots import draw

ALPHAS = (0.25, 0.5, 1.0, 2.0)
GAMMAS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
SAMPLE_GAMMAS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
DECAYS = (0.2, 0.4, 0.6, 0.8)
LEVELS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)
MULTIPLES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
STEPS = 20
LAWS_VERSION = 1
"""Raised when a change of the code changes numbers, so that old folders are made anew."""


def counts(d: int, ratios: Sequence[float]) -> list[int]:
    """Return the row counts `ratios` x d, at least 1 and without repetition."""
    return sorted({max(1, round(ratio * d)) for ratio in ratios})


def context_counts(d: int) -> list[int]:
    """Return context sizes from 1 to 2d in about equal ratios."""
    return sorted({int(n) for n in np.round(np.geomspace(1, 2 * d, 13))})


EXPERIMENTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "phase": lambda s: linear_experiments.phase(s, ALPHAS, GAMMAS),
    "samples": lambda s: linear_experiments.samples(s, counts(s.d, ALPHAS), counts(s.d, SAMPLE_GAMMAS)),
    "context": lambda s: linear_experiments.context(s, context_counts(s.d), 2 * s.d),
    "alignment": lambda s: linear_alignment.alignment(
        s, max(1, s.d // 2), 2 * s.d, list(linear_alignment.FAMILIES), SHARES
    ),
    "steps": lambda s: linear_steps.steps(s, max(1, s.d // 2), 2 * s.d, STEPS, DECAYS),
    "noise": lambda s: linear_experiments.noise(s, max(1, s.d // 2), 2 * s.d, LEVELS),
    "step-size": lambda s: linear_step_size.step_size(s, max(1, s.d // 2), 2 * s.d, MULTIPLES),
}


@dataclass(frozen=True)
class Folder:
    """A folder of results made under one setting."""

    path: Path
    setting: Setting

    def missing(self) -> list[str]:
        """Return the experiments that are not there yet, or were made from something else.

        Raises:
            StoreError: `manifest.json` cannot be read.
        """
        made = self._manifest()
        return [
            name
            for name in EXPERIMENTS
            if made.get(name) != self._identity(name) or not all(file.exists() for file in self._files(name))
        ]

    def rows(self, name: str) -> list[Row]:
        """Return the rows of an experiment that is there."""
        lines = self._files(name)[0].read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def write(self, name: str, rows: Sequence[Row]) -> None:
        """Write rows, table and figures of one experiment, then enter it in the manifest."""
        lines, table, *figures = self._files(name)
        write_text_atomically(lines, "".join(json.dumps(plain(row), allow_nan=False) + "\n" for row in rows))
        write_text_atomically(table, _table(rows))
        for figure in figures:
            draw(figure_panels(name, rows), figure, figure_title(rows))
        manifest = self._manifest() | {name: self._identity(name)}
        write_text_atomically(self.path / "manifest.json", json.dumps(manifest, indent=2) + "\n")

    def write_index(self) -> None:
        """Write `index.md`: each experiment's figure and how many of its rows agree with the law."""
        parts = [f"# Linear attention: one test-time step at d = {self.setting.d}\n"]
        for name in EXPERIMENTS:
            rows = self.rows(name)
            held = sum(row.get("agrees") is True for row in rows)
            failed = sum(row.get("agrees") is False for row in rows)
            parts.append(
                f"## {name}\n\n![{name}]({name}.svg)\n\n{len(rows)} rows ([JSON Lines]({name}.jsonl), "
                f"[table]({name}.tsv)); simulation agrees at {held}, disagrees at {failed}.\n"
            )
        write_text_atomically(self.path / "index.md", "\n".join(parts))

    def _files(self, name: str) -> list[Path]:
        return [self.path / f"{name}{suffix}" for suffix in (".jsonl", ".tsv", ".svg", ".png")]

    def _identity(self, name: str) -> str:
        plan = asdict(self.setting.plan)
        shared = {"d": self.setting.d, "noise": self.setting.noise, "convention": self.setting.convention}
        return identity_hash({"experiment": name, "version": LAWS_VERSION, **shared, **plan})

    def _manifest(self) -> dict[str, str]:
        path = self.path / "manifest.json"
        if not path.exists():
            return {}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise StoreError(f"{path} is damaged", f"rm {path}") from None


def _table(rows: Sequence[Row]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [columns, *([_text(row.get(name)) for name in columns] for row in rows)]
    return "".join("\t".join(line) + "\n" for line in lines)


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.8g}" if isinstance(value, float) else str(value)
