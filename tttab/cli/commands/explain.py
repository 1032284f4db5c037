"""`tttab explain`: why a bundle predicts what it predicts."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tttab.cli import options, output
from tttab.cli.signals import ended_cleanly
from tttab.text import shell_word, shown

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from tttab.bundle import Bundle
    from tttab.explain.shapley import Dependence, Explanation

CURVES = 6
"""Features whose dependence the page draws."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("explain", rich_help_panel="Adapt")(explain)


def explain(
    bundle: options.Bundle,
    rows: Annotated[Path, typer.Argument(help="Rows to explain: CSV, TSV, Parquet or ARFF.")],
    out: Annotated[Path | None, typer.Option(help="An .html file to write, with figures.")] = None,
    count: Annotated[int, typer.Option("--rows", min=1, help="Explain the first ROWS rows.")] = 100,
    background: Annotated[
        int, typer.Option(min=1, help="Context rows as the background of SHAP; time grows with their number.")
    ] = 20,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed of the background rows and the orders of features.")
    ] = 0,
    device: options.Device = "auto",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print every value as one JSON document.", rich_help_panel=options.OUTPUT
        ),
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Explain predictions: SHAP values, permutation importance and partial dependence.

    Example: [bold]tttab explain churn new.csv --out why.html[/]
    """
    from tttab.system.files import check_target, home_path, write_text_atomically
    from tttab.system.resources import keep_freed_memory

    quiet, out = quiet or as_json, out and home_path(out)
    keep_freed_memory()
    # shap's few lines for numba take seconds to compile and, as they stand, milliseconds to run.
    os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
    with ended_cleanly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if out is not None:
            check_target(out)
        opened, x, y = _read(home_path(bundle), home_path(rows), count, device, quiet)
        found = _explained(opened, x, background, seed, quiet)
        shuffled = None if y is None else _shuffled(opened, x, y, seed, quiet)
        curves = _curves(opened, x, found, seed, quiet) if out is not None else []
    if out is not None:
        from tttab.explain.page import explanation_page

        name = opened.schema.target
        write_text_atomically(out, explanation_page(found, shuffled, curves, name=name))
    _print(found, shuffled, out, as_json, quiet)


def _read(
    bundle: Path, rows: Path, count: int, device: str, quiet: bool
) -> tuple[Bundle, pd.DataFrame, np.ndarray | None]:
    """Return the opened bundle, the first rows in its form, and their labels where the file has them."""
    from tttab.bundle import load_bundle
    from tttab.data import read_frame

    with output.waiting("opening the bundle", quiet=quiet):
        opened = load_bundle(bundle, device=device)
    schema = opened.schema
    raw = read_frame(rows, text_columns=(*schema.text_columns, schema.target))
    frame = raw.frame.head(count)
    read = schema.read(frame, raw.decimals)
    for remark in read.remarks:
        output.warn(remark)
    known = schema.target in frame.columns and bool(frame[schema.target].notna().all())
    y = schema.labels(frame[schema.target], raw.decimals.get(schema.target, "")) if known else None
    return opened, read.x, y


def _explained(bundle: Bundle, x: pd.DataFrame, background: int, seed: int, quiet: bool) -> Explanation:
    from tttab.explain import shapley

    steps = shapley.explain(bundle, x, background=background, seed=seed)
    with output.progress(quiet=quiet) as bar:
        task = bar.add_task("explaining", total=len(x), info="")
        while True:
            try:
                bar.update(task, completed=next(steps))
            except StopIteration as end:
                return end.value


def _shuffled(bundle: Bundle, x: pd.DataFrame, y: np.ndarray, seed: int, quiet: bool) -> np.ndarray:
    from tttab.explain.shapley import importance

    with output.waiting("shuffling features", quiet=quiet):
        return importance(bundle, x, y, seed=seed)


def _curves(bundle: Bundle, x: pd.DataFrame, found: Explanation, seed: int, quiet: bool) -> list[Dependence]:
    from tttab.explain.shapley import dependence

    best = (-found.importance).argsort()[:CURVES]
    usable = [found.features[place] for place in best if x.iloc[:, place].nunique() > 1]
    with output.waiting("drawing dependences", quiet=quiet):
        return [dependence(bundle, x, name, seed) for name in usable]


def _print(
    found: Explanation, shuffled: np.ndarray | None, out: Path | None, as_json: bool, quiet: bool
) -> None:
    from tttab.explain.page import importance_table

    if as_json:
        output.print_json(_document(found, shuffled))
        return
    table = importance_table(found, shuffled, "")
    output.print_table(table.columns, table.rows, left=table.left)
    for note in table.notes:
        output.note(note, quiet=quiet)
    if out is not None:
        output.note(f"written to {shown(out)}: open {shell_word(out)} in a browser", quiet=quiet)


def _document(found: Explanation, shuffled: np.ndarray | None) -> dict[str, Any]:
    return {
        "features": found.features,
        "outputs": found.outputs,
        "base": found.base.tolist(),
        "importance": found.importance.tolist(),
        "loss_when_shuffled": None if shuffled is None else shuffled.mean(axis=1).tolist(),
        "rows": [
            {"prediction": prediction.tolist(), "values": values.tolist()}
            for prediction, values in zip(found.predictions, found.values, strict=True)
        ],
    }
