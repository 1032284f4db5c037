"""The tables of `studies.rules`, in Markdown: every table weighs the same, seeds are averaged first."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from studies.engine import markdown
from tttab.bench.records import Machine, Record
from tttab.bench.store import Contents

HARM = 0.005
"""A log loss that is worse by more than this, nats, counts as harm."""
METRICS = ("accuracy", "log_loss", "ece")
OTHER_GUARDS = ("loss+ece", "off")
Pair = tuple[str, int]
"""A table and a seed."""
Judged = tuple[Record, Mapping[str, float]]
"""A cell, and the figures of merit of what one guard keeps."""


def summary(contents: Contents, order: Sequence[str]) -> str:
    """Return all tables; arms come in `order`."""
    good = list(contents.done.values())
    arms = [arm for arm in order if any(record.cell.arm == arm for record in good)]
    parts = [heading(contents)]
    for n in sorted({record.cell.n for record in good}, reverse=True):
        of_size = [record for record in good if record.cell.n == n]
        parts += [f"## n = {n}", main_table(of_size, arms), per_table(of_size, arms)]
    failed = sorted({f"{record.cell.arm}: {record.row.error}" for record in contents.failed.values()})
    return "\n\n".join([*parts, *(f"failed: {line}" for line in failed)])


def heading(contents: Contents) -> str:
    """Return what was measured, with which files and where."""
    good, every = [record.cell for record in contents.done.values()], contents.records
    labels = {record.cell.model.rpartition(" ") for record in every}
    machines = {machine_name(contents.machines[record.machine]) for record in every}
    return (
        f"{len(good)} cells of {len(every)}; {len({cell.table for cell in good})} tables, "
        f"seeds {sorted({cell.seed for cell in good})}; "
        f"{', '.join(sorted(f'{file} ({digest})' for file, _, digest in labels))}; "
        f"{', '.join(sorted(machines))}."
    )


def machine_name(machine: Machine) -> str:
    """Return what computed."""
    return machine.accelerator or f"{machine.cpu}, one thread of {machine.cores} cores"


def main_table(records: list[Record], arms: Sequence[str]) -> str:
    """Return one line per arm and guard: means over tables, differences to icl@n, harm, cost."""
    base = {pair_of(record): record.row.metrics for record in records if record.cell.arm == "icl@n"}
    lines = []
    for arm in arms:
        mine = [record for record in records if record.cell.arm == arm and pair_of(record) in base]
        for guard in guards_of(mine):
            figures = [(record, kept_by(guard, record)) for record in mine]
            lines.append([arm, guard, str(len(mine)), *figure_cells(figures, base), *cost_cells(mine)])
    names = ["arm", "guard", "pairs", "accuracy", "log loss", "ECE", "Δ accuracy", "Δ log loss", "Δ ECE",
             "pairs harmed", "tables harmed", "worst table", "adapt s", "memory rises by, MiB"]  # fmt: skip
    return markdown(names, lines)


def pair_of(record: Record) -> Pair:
    """Return the table and the seed."""
    return record.cell.table, record.cell.seed


def guards_of(records: Sequence[Record]) -> tuple[str, ...]:
    """Return the guards that judged these records; `-` where tttab trained nothing."""
    if not records:
        return ()
    trained = any(name.startswith(f"{OTHER_GUARDS[0]}: ") for name in records[0].row.metrics)
    return ("loss", *OTHER_GUARDS) if trained else ("-",)


def kept_by(guard: str, record: Record) -> Mapping[str, float]:
    """Return the figures of merit of what a guard keeps; those of `loss` have no prefix."""
    prefix = f"{guard}: " if guard in OTHER_GUARDS else ""
    return {name: record.row.metrics[prefix + name] for name in METRICS}


def figure_cells(figures: Sequence[Judged], base: Mapping[Pair, Mapping[str, float]]) -> list[str]:
    """Return means, differences to the untouched model, and harm."""
    means = [by_table(figures, lambda _, m, name=name: m[name]) for name in METRICS]
    deltas = {
        name: by_table(figures, lambda pair, m, name=name: m[name] - base[pair][name]) for name in METRICS
    }
    harmed = [m["log_loss"] - base[pair_of(record)]["log_loss"] > HARM for record, m in figures]
    losses = deltas["log_loss"]
    worst = max(losses, key=lambda table: losses[table])
    return [
        *(f"{mean(values):.3f}" for values in means),
        *(f"{mean(values):+.4f}" for values in deltas.values()),
        f"{100 * statistics.fmean(harmed):.0f} %",
        str(sum(value > HARM for value in losses.values())),
        f"{worst} {losses[worst]:+.4f}",
    ]


def cost_cells(records: Sequence[Record]) -> list[str]:
    """Return the median of seconds and the largest rise of memory."""
    seconds = [record.row.seconds["adapt"] for record in records if "adapt" in record.row.seconds]
    rises = [rise for record in records if (rise := record.row.metrics.get("rise_bytes"))]
    return [
        f"{statistics.median(seconds):.1f}" if seconds else "-",
        f"{max(rises) / 1024**2:.0f}" if rises else "-",
    ]


def per_table(records: list[Record], arms: Sequence[str]) -> str:
    """Return log losses by table of the two baselines and of the rules, as the guard `loss` keeps them."""
    tables = sorted({record.cell.table for record in records})
    losses = defaultdict(list)
    for record in records:
        losses[record.cell.arm, record.cell.table].append(record.row.metrics["log_loss"])
    lines = [
        [
            arm,
            *(mean_or_dash(losses.get((arm, table))) for table in tables),
        ]
        for arm in arms
        if any((arm, table) in losses for table in tables)
    ]
    return markdown(["log loss", *tables], lines)


def mean_or_dash(values: Sequence[float] | None) -> str:
    """Return the mean, if there is one."""
    return f"{statistics.fmean(values):.3f}" if values else "-"


def by_table(
    figures: Sequence[Judged], value: Callable[[Pair, Mapping[str, float]], float]
) -> dict[str, float]:
    """Return the mean over seeds, by table."""
    groups = defaultdict(list)
    for record, metrics in figures:
        groups[record.cell.table].append(value(pair_of(record), metrics))
    return {table: statistics.fmean(values) for table, values in groups.items()}


def mean(values: Mapping[str, float]) -> float:
    """Return the mean over tables."""
    return statistics.fmean(values.values())
