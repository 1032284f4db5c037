"""Run a study, or go on with it; then print its tables.

    python -m studies rules|checkpoint|regression [--out FOLDER] [--jobs 2] [--summary]

The same command goes on where it was stopped; finished cells are never run twice.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from studies.checkpoint import Checkpoint
from studies.engine import Study, read, run
from studies.regression import SIZES as REGRESSION_SIZES
from studies.regression import Regression
from studies.rules import PHASES, SIZES, TABLES, Rules
from tttab.data import catalog, suite_names

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tttab"
WEIGHTS = PACKAGE / "models" / "weights"


def numbers(text: str) -> tuple[int, ...]:
    """Return whole numbers with commas between."""
    return tuple(int(part) for part in text.split(","))


def names(text: str) -> tuple[str, ...]:
    """Return names with commas between."""
    return tuple(text.split(","))


def tables_of(text: str) -> tuple[str, ...]:
    """Return the tables of a suite, or the parquet files of a folder."""
    if text in suite_names():
        return tuple(entry.name for entry in catalog().suite(text))
    return tuple(map(str, sorted(Path(text).glob("*.parquet"))))


def rules(parser: argparse.ArgumentParser) -> None:
    """Add the options of `studies.rules`."""
    parser.add_argument("--tables", type=names, default=TABLES)
    parser.add_argument("--sizes", type=numbers, default=SIZES)
    parser.add_argument("--seeds", type=int, default=5)
    phases = "1: rules; 2: fine-tuning too; 3: variants too"
    parser.add_argument("--phases", type=int, default=len(PHASES), help=phases)
    parser.add_argument("--model", default="tttab-tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=50, help="steps of adamw")
    parser.add_argument("--test-size", type=int, help="test rows at most [default: tttab's own]")
    parser.add_argument("--apart", action="store_true", help="a process per cell, to measure memory")


def checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the options of `studies.checkpoint`."""
    packaged = tables_of(str(PACKAGE / "data" / "tables"))
    parser.add_argument("--tables", type=tables_of, default=packaged, help="a suite or a folder of parquet")
    parser.add_argument("--by-kind", action="store_true", help="print means over the tables of each kind")
    parser.add_argument("--sizes", type=numbers, default=(50, 100, 200, 500, 1000))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arms", type=names, default=("icl",))
    parser.add_argument("--model", type=Path, default=WEIGHTS / "tttab-tiny-classifier.safetensors")


def regression(parser: argparse.ArgumentParser) -> None:
    """Add the options of `studies.regression`."""
    parser.add_argument("--sizes", type=numbers, default=REGRESSION_SIZES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--model", type=Path, default=WEIGHTS / "tttab-tiny-regressor.safetensors")


STUDIES: Mapping[type[Study], Callable[[argparse.ArgumentParser], None]] = {
    Rules: rules,
    Checkpoint: checkpoint,
    Regression: regression,
}


def main(words: list[str] | None = None) -> None:
    """Run one study and print its tables."""
    parser = argparse.ArgumentParser(prog="python -m studies", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for study, add_options in STUDIES.items():
        command = commands.add_parser(study.name)
        command.set_defaults(study=study)
        command.add_argument("--out", type=Path, default=ROOT / "results" / study.folder)
        command.add_argument("--jobs", type=int, default=1, help="processes")
        command.add_argument("--summary", action="store_true", help="only print what is there")
        add_options(command)
    given = vars(parser.parse_args(words))
    study, out, jobs, summary = (given.pop(name) for name in ("study", "out", "jobs", "summary"))
    asked = study(**given)
    if not summary:
        for _ in run(asked, out, jobs):
            pass
    print(asked.summary(read(out)))


if __name__ == "__main__":
    main()
