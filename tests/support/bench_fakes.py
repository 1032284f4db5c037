"""Cells, records and stores made up for tests: known numbers, no model."""

from __future__ import annotations

import math
import os
import time
from dataclasses import asdict, replace

from tttab.bench.records import Cell, Machine, Record
from tttab.bench.store import Writer
from tttab.core import Row, identity_hash
from tttab.text import decoded

MACHINE = Machine("Test CPU", 2, 4.0, "Linux x86_64", "3.11.0", {"torch": "2.0", "tttab": "0.1.0"})
NS = (50, 200, 1000)


def cell(table="banana", arm="icl@n", n=200, seed=0, *, k=1000, classes=2, **labels):
    budget = "" if arm == "icl@n" else labels.get("budget", "paper k=1000")
    rule, recipe = ("full", "steps 50, lr 0.0003") if arm == "ttt@n+k" else ("", "")
    model = "" if arm in ("gbt", "logistic") else labels.get("model", "tiny.safetensors")
    shown = {"rule": rule, "recipe": recipe, "classes": classes, "test_asked": labels.get("test_asked", 0)}
    content = labels.get("fingerprint", table)
    at = Cell(table, seed, n, k, arm, "", content, model, budget, **shown)
    return replace(at, key=identity_hash(identity_of(at)))


def identity_of(at):
    """What changes the number of a made-up cell: all that it says."""
    rest = {name: value for name, value in asdict(at).items() if name != "key"}
    return {name: decoded(value) if isinstance(value, str) else value for name, value in rest.items()}


def record(at, error_rate=0.2, log_loss=0.5, *, failed="", second=0.0, adapt=0.0, ms=10.0):
    metrics = {} if failed else {"accuracy": 1 - error_rate, "roc_auc": 1 - error_rate, "log_loss": log_loss}
    seconds = {} if failed else {"open": 0.1, "adapt": adapt, "predict": 0.2}
    rows = at.n + at.k if at.arm == "icl@n+k" else at.n
    row = Row(identity_of(at), at.arm, rows, at.k, metrics, seconds, None if failed else ms, error=failed)
    return Record(at, row, 0.5 + adapt, f"2026-01-01T00:00:{second:09.6f}+00:00", MACHINE.id)


def fill(folder, records):
    """Write records into a store, in order."""
    with Writer(folder) as writer:
        for one in records:
            writer.append(one, MACHINE)
    return folder


def study(*, tables=("alpha", "beta", "gamma", "flat"), seeds=(0, 1, 2), fail=("beta", 1)):
    """A store's worth of records: error 0.4 - 0.1·log10(n/50) for icl, `flat` gains nothing from rows.

    ttt at n equals icl at 4n on `alpha`, is better than every icl on `beta`, worse than every icl on
    `gamma`. The seed shifts all errors of a table alike, plus 0.001 × seed on ttt.
    """
    shift = {"alpha": 0.6 * math.log10(4), "beta": 1.0, "gamma": -1.0, "flat": 0.02}
    for table in tables:
        for seed in seeds:
            for n in NS:
                base = 0.4 - (0.0 if table == "flat" else 0.1) * math.log10(n / 50) + 0.01 * seed
                gain = shift[table] / 6
                yield record(cell(table, "icl@n", n, seed), base, base + 0.1)
                if (table, seed) == fail and n == 200:
                    yield record(cell(table, "ttt@n+k", n, seed), failed="out of memory")
                else:
                    ttt = base - gain + 0.001 * seed
                    yield record(cell(table, "ttt@n+k", n, seed), ttt, ttt + 0.1, adapt=4.0, ms=20.0)
            base = 0.4 - 0.1 * math.log10(1200 / 50)
            yield record(cell(table, "icl@n+k", 200, seed), base, base + 0.1, ms=100.0)
            yield record(cell(table, "gbt", 200, seed), 0.35, 0.6, adapt=0.3, ms=5.0)


class SlowWork:
    """Work for the executors without a model: every cell sleeps, its number follows from its name."""

    def __init__(self, pause=0.0, *, die_once=None):
        self.pause = pause
        self.die_once = die_once
        """A file: the first process to take it dies in the middle of its unit."""

    def __call__(self, cells):
        for place, at in enumerate(cells):
            time.sleep(self.pause)
            if self.die_once is not None and place == 1 and _take(self.die_once):
                os.kill(os.getpid(), 9)
            yield record(at, error_rate=(int(at.key[:6], 16) % 1000) / 1000), MACHINE


def _take(path):
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
