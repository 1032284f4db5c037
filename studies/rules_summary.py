"""The tables of `benchmarks.rules`, in Markdown: every table weighs the same, seeds are averaged first."""

from __future__ import annotations

import statistics
from collections import defaultdict

HARM = 0.005
"""A log loss that is worse by more than this, nats, counts as harm."""
METRICS = ("accuracy", "log_loss", "ece")
GUARD_NAMES = ("loss", "loss+ece", "off")


def summary(rows: list[dict]) -> str:
    """Return all tables for the rows of a `rules.jsonl`."""
    good = [row for row in rows if "metrics" in row]
    parts = [heading(rows, good)]
    for n in sorted({row["n"] for row in good}, reverse=True):
        of_size = [row for row in good if row["n"] == n]
        parts += [f"## n = {n}", main_table(of_size), per_table(of_size)]
    failed = sorted({f"{row['arm']}: {row['error']}" for row in rows if "error" in row})
    return "\n\n".join([*parts, *(f"failed: {line}" for line in failed)]) + "\n"


def heading(rows: list[dict], good: list[dict]) -> str:
    files = sorted({f"{row['model']} ({row['sha256'][:12]})" for row in rows})
    return (
        f"{len(good)} cells of {len(rows)}; {len({r['table'] for r in good})} tables, "
        f"seeds {sorted({r['seed'] for r in good})}; {', '.join(files)}; "
        f"{', '.join(sorted({row['machine'] for row in rows}))}."
    )


def main_table(rows: list[dict]) -> str:
    """Return one line per arm and guard: means over tables, differences to icl@n, harm, cost."""
    base = {(row["table"], row["seed"]): row["metrics"] for row in rows if row["arm"] == "icl@n"}
    lines = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm and (row["table"], row["seed"]) in base]
        for guard in GUARD_NAMES if "guards" in mine[0] else ("-",):
            figures = [(row, row["guards"][guard] if guard != "-" else row["metrics"]) for row in mine]
            lines.append([arm, guard, str(len(mine)), *figure_cells(figures, base), *cost_cells(mine)])
    names = ["arm", "guard", "pairs", "accuracy", "log loss", "ECE", "Δ accuracy", "Δ log loss", "Δ ECE",
             "pairs harmed", "tables harmed", "worst table", "adapt s", "memory rises by, MiB"]  # fmt: skip
    return markdown(names, lines)


def figure_cells(figures: list[tuple], base: dict) -> list[str]:
    means = [by_table(figures, lambda row, m, name=name: m[name]) for name in METRICS]
    deltas = {
        name: by_table(figures, lambda row, m, name=name: m[name] - base[row["table"], row["seed"]][name])
        for name in METRICS
    }
    harmed = [m["log_loss"] - base[row["table"], row["seed"]]["log_loss"] > HARM for row, m in figures]
    losses = deltas["log_loss"]
    worst = max(losses, key=losses.get)
    return [
        *(f"{mean(values):.3f}" for values in means),
        *(f"{mean(values):+.4f}" for values in deltas.values()),
        f"{100 * statistics.fmean(harmed):.0f} %",
        str(sum(value > HARM for value in losses.values())),
        f"{worst} {losses[worst]:+.4f}",
    ]


def cost_cells(rows: list[dict]) -> list[str]:
    seconds = [row["adapt_seconds"] for row in rows if "adapt_seconds" in row]
    peaks = [row["rise_bytes"] for row in rows if row.get("rise_bytes")]
    return [
        f"{statistics.median(seconds):.1f}" if seconds else "-",
        f"{max(peaks) / 1024**2:.0f}" if peaks else "-",
    ]


def per_table(rows: list[dict]) -> str:
    """Return log losses by table of the two baselines and of the rules, as the guard `loss` keeps them."""
    tables = sorted({row["table"] for row in rows})
    lines = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        cells = [arm]
        for table in tables:
            values = [r["metrics"]["log_loss"] for r in rows if r["arm"] == arm and r["table"] == table]
            cells.append(f"{statistics.fmean(values):.3f}" if values else "-")
        lines.append(cells)
    return markdown(["log loss", *tables], lines)


def by_table(figures: list[tuple], value) -> dict[str, float]:
    """Return the mean over seeds, by table."""
    groups = defaultdict(list)
    for row, metrics in figures:
        groups[row["table"]].append(value(row, metrics))
    return {table: statistics.fmean(values) for table, values in groups.items()}


def mean(values: dict[str, float]) -> float:
    return statistics.fmean(values.values())


def markdown(names: list[str], lines: list[list[str]]) -> str:
    body = ["| " + " | ".join(cells) + " |" for cells in [names, ["---"] * len(names), *lines]]
    return "\n".join(body)
