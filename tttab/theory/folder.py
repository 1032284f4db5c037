"""`tttab theory all`: a folder that holds every linear experiment at its default sizes.

It has rows (JSON Lines), a tab-separated table and a figure (SVG and PNG) for each experiment, `index.md`,
and `manifest.json` with the origin of each. What is there already is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tttab.core import identity_hash
from tttab.errors import StoreError
from tttab.system.files import plain, write_text_atomically
from tttab.text import shell_word
from tttab.theory.experiment import Experiment, Row
from tttab.theory.linear_attention.settings import Simulation
from tttab.theory.plots import draw

LAWS_VERSION = 2
"""Raised when a change of the code changes numbers, so that old folders are filled anew."""


@dataclass(frozen=True)
class Folder:
    """A folder of results of one simulation."""

    path: Path
    simulation: Simulation
    experiments: Mapping[str, Experiment[Any]]
    """By name; their settings are a simulation's and more."""

    def missing(self) -> list[str]:
        """Return the experiments that are not there yet, or came from something else.

        Raises:
            StoreError: the folder holds files that are not from here and would be replaced.
        """
        self._claim()
        known = self._manifest()
        return [
            name
            for name in self.experiments
            if known.get(name) != self._identity(name) or not all(file.exists() for file in self._files(name))
        ]

    def compute(self, name: str) -> Iterator[Row]:
        """Yield the rows of an experiment under this simulation, its other settings at their defaults."""
        shared = {item.name: getattr(self.simulation, item.name) for item in fields(self.simulation)}
        experiment = self.experiments[name]
        for row in experiment.rows(experiment.settings(**shared)):
            if isinstance(row, dict):
                yield row

    def rows(self, name: str) -> list[Row]:
        """Return the rows of an experiment that is there."""
        lines = self._files(name)[0].read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def write(self, name: str, rows: Sequence[Row]) -> None:
        """Write rows, table and figures of one experiment, then enter it in the manifest."""
        experiment = self.experiments[name]
        lines, table, *figures = self._files(name)
        write_text_atomically(lines, "".join(json.dumps(plain(row), allow_nan=False) + "\n" for row in rows))
        write_text_atomically(table, _table(experiment.columns, rows))
        panels = experiment.panels(rows) if experiment.panels else []
        for figure in figures:
            draw(panels, figure, experiment.title_of(rows))
        manifest = self._manifest() | {name: self._identity(name)}
        write_text_atomically(self.path / "manifest.json", json.dumps(manifest, indent=2) + "\n")

    def write_index(self) -> None:
        """Write `index.md`: each experiment's figure and how many of its rows agree with the law."""
        parts = [f"# Linear attention: one test-time step at d = {self.simulation.d}\n"]
        for name in self.experiments:
            rows = self.rows(name)
            held = sum(row.get("agrees") is True for row in rows)
            failed = sum(row.get("agrees") is False for row in rows)
            parts.append(
                f"## {name}\n\n![{name}]({name}.svg)\n\n{len(rows)} rows ([JSON Lines]({name}.jsonl), "
                f"[table]({name}.tsv)); simulation agrees at {held}, disagrees at {failed}.\n"
            )
        write_text_atomically(self.path / "index.md", "\n".join(parts))

    def _claim(self) -> None:
        """Refuse a folder in which a file of another origin has one of our names; enter it as ours."""
        if not (self.path / "manifest.json").exists():
            ours = ["index.md", *(file.name for name in self.experiments for file in self._files(name))]
            taken = next((name for name in ours if (self.path / name).exists()), None)
            if taken is not None:
                raise self._foreign(taken)
            write_text_atomically(self.path / "manifest.json", "{}\n")
        if not all(re.fullmatch("[0-9a-f]{64}", str(known)) for known in self._manifest().values()):
            raise self._foreign("manifest.json")

    def _foreign(self, name: str) -> StoreError:
        return StoreError(
            f"{self.path / name} was not made by tttab theory all and would be replaced",
            f"--out {shell_word(self.path / 'theory')}",
        )

    def _files(self, name: str) -> list[Path]:
        return [self.path / f"{name}{suffix}" for suffix in (".jsonl", ".tsv", ".svg", ".png")]

    def _identity(self, name: str) -> str:
        simulation, sampling = self.simulation, self.simulation.sampling
        return identity_hash(
            {
                "experiment": name,
                "version": LAWS_VERSION,
                "d": simulation.d,
                "noise": simulation.noise,
                "convention": simulation.convention,
                "trials": sampling.trials,
                "seed": sampling.seed,
                "machine": asdict(sampling.backend),
                "sampler": sampling.sampler,
            }
        )

    def _manifest(self) -> dict[str, str]:
        path = self.path / "manifest.json"
        if not path.exists():
            return {}
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise StoreError(f"{path} is damaged", f"rm {shell_word(path)}") from None


def _table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    lines = [columns, *([_text(row.get(name)) for name in columns] for row in rows)]
    return "".join("\t".join(line) + "\n" for line in lines)


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.8g}" if isinstance(value, float) else str(value)
