"""`tttab predict`: read rows, predict with a bundle and write, chunk by chunk, so that memory stays flat."""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tttab.cli import options, output
from tttab.cli.signals import ended_cleanly
from tttab.text import shell_word, shown, visible

if TYPE_CHECKING:
    import pandas as pd

    from tttab.bundle import Bundle
    from tttab.data.likeness import Likeness
    from tttab.data.schema import NewRows, Schema

CHUNK_ROWS = 20_000
"""Rows read, predicted and written at a time."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("predict", rich_help_panel="Adapt")(predict)


def predict(
    bundle: options.Bundle,
    rows: Annotated[Path, typer.Argument(help="New rows: CSV, TSV, Parquet or ARFF.")],
    out: Annotated[
        Path | None, typer.Option(help="A .csv, .tsv or .parquet file to write (default: print the rows).")
    ] = None,
    device: options.Device = "auto",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print JSON Lines; with --out a summary.", rich_help_panel=options.OUTPUT
        ),
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Predict new rows with a bundle: class and probabilities, or mean and quantiles.

    Example: [bold]tttab predict churn new.csv --out predictions.csv[/]
    """
    from tttab.bundle import load_bundle
    from tttab.system.files import home_path
    from tttab.system.resources import keep_freed_memory

    quiet = quiet or as_json
    bundle, rows, out = home_path(bundle), home_path(rows), out and home_path(out)
    keep_freed_memory()
    with ended_cleanly(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = _checked(bundle, rows, out)
        with output.waiting("opening the bundle", quiet=quiet):
            opened = load_bundle(bundle, device=device)
            opened.warm_up()  # the cache is built here, not within the first chunk's time
        if opened.schema != run.schema:  # the bundle was replaced since its manifest was read
            run = PredictionRun(opened.schema, rows)
        for remark in opened.notes:
            output.warn(remark)
        if opened.cache is not None:
            output.note("note: the bundle keeps no rows, so new rows are not compared with them", quiet=quiet)
        start = time.perf_counter()
        with _writer(out, as_json) as write, output.progress(quiet=quiet) as bar:
            task = bar.add_task("predicting", total=100, info="")
            for frame, share in run.predictions(opened):
                write(frame)
                bar.update(task, completed=round(100 * share), info=f"{run.count:,} rows")
        seconds = time.perf_counter() - start
    _report(run, out, seconds, as_json, quiet)


class PredictionRun:
    """One pass over a file: its rows as a bundle reads them, their predictions, counts for the summary."""

    def __init__(self, schema: Schema, path: Path) -> None:
        """Read and check the first rows: that takes no model.

        Raises:
            DataError: the file cannot be read, has no rows, lacks a column, or a cell is not of its
                column's kind.
        """
        from tttab.errors import DataError

        self.schema, self._path = schema, path
        self.count = 0
        self.likeness: Likeness | None = None
        """How unlike the context the rows are; stands when they are predicted."""
        self.predicted: Counter[str] = Counter()
        """Rows per predicted class."""
        self.extra: tuple[str, ...] = ()
        """Columns that the table did not have; they are left out."""
        self._chunks = self._checked_chunks()
        first = next(self._chunks, None)
        if first is None:
            raise DataError(f"{path} has no rows to predict", "a file with a line per row below its header")
        self._first = first

    def predictions(self, bundle: Bundle) -> Iterator[tuple[pd.DataFrame, float]]:
        """Yield (predictions, share of the file done), once.

        Raises:
            DataError: as above, deeper in the file.
        """
        from tttab.data.likeness import Likeness

        self.likeness = Likeness(bundle.x)
        for read, done in chain([self._first], self._chunks):
            self.count += len(read.x)
            self.likeness.add(read)
            yield self._predictions(bundle, read.x), done

    def _checked_chunks(self) -> Iterator[tuple[NewRows, float]]:
        """Yield (rows, share of the file done) of every chunk that has rows."""
        from tttab.data.chunks import read_pieces

        schema = self.schema
        for chunk in read_pieces(self._path, CHUNK_ROWS, text_columns=schema.text_columns):
            read = schema.read(chunk.frame, chunk.decimals)
            self.extra = read.extra
            if len(read.x):
                yield read, chunk.done

    def _predictions(self, bundle: Bundle, x: pd.DataFrame) -> pd.DataFrame:
        answers = bundle.answers(x)
        if self.schema.classes:
            self.predicted.update(answers["prediction"].tolist())
        return answers


def _checked(bundle: Path, rows: Path, out: Path | None) -> PredictionRun:
    """Check everything that takes no model, the quickest first, and return the rows, the first ones read."""
    from tttab.bundle import schema_in
    from tttab.bundle.manifest import read_manifest

    manifest = read_manifest(bundle)
    if out is not None:
        _check_out(out, [rows, *(bundle / entry["file"] for entry in manifest["files"].values())])
    return PredictionRun(schema_in(manifest, bundle), rows)


def _check_out(out: Path, taken: list[Path]) -> None:
    """Refuse a file that cannot be written, or that is one of those that are read."""
    from tttab.errors import RequestError
    from tttab.system.files import check_target

    if out.suffix.lower() not in _WRITERS:
        raise RequestError(
            f"{out} must end in {', '.join(_WRITERS)}", f"--out {shell_word(out.with_suffix('.csv'))}"
        )
    if out.is_dir() or any(_is_same(out, path) for path in taken):
        other = out.with_name(f"{out.stem}-predictions{out.suffix}")
        raise RequestError(f"{out} would be overwritten", f"--out {shell_word(other)}")
    check_target(out)


def _is_same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


@contextmanager
def _writer(out: Path | None, as_json: bool) -> Generator[Callable[[pd.DataFrame], None]]:
    """Yield a function that takes predictions; a file appears when all are written, or not at all."""
    from tttab.system.files import atomic_path

    if out is None:
        lines = _TextWriter(sys.stdout, "\t")
        yield _json_lines if as_json else lambda frame: lines.write(_visible(frame))
        return
    with atomic_path(out) as part, _WRITERS[out.suffix.lower()](part) as write:
        yield write


def _json_lines(frame: pd.DataFrame) -> None:
    for row in frame.to_dict("records"):
        output.print_json_line(row)


def _visible(frame: pd.DataFrame) -> pd.DataFrame:
    """Return predictions whose class names drive no terminal."""
    texts = frame.select_dtypes(exclude="number")
    return frame.assign(**{name: texts[name].map(visible) for name in texts}).rename(columns=visible)


class _TextWriter:
    def __init__(self, stream: Any, separator: str) -> None:
        self._stream, self._separator, self._header = stream, separator, True

    def write(self, frame: pd.DataFrame) -> None:
        frame.to_csv(self._stream, sep=self._separator, index=False, header=self._header, float_format="%.7g")
        self._header = False


@contextmanager
def _text_file(path: Path, separator: str = ",") -> Generator[Callable[[pd.DataFrame], None]]:
    with open(path, "w", encoding="utf-8", newline="") as stream:
        yield _TextWriter(stream, separator).write


@contextmanager
def _parquet_file(path: Path) -> Generator[Callable[[pd.DataFrame], None]]:
    import pyarrow
    import pyarrow.parquet as parquet

    file: parquet.ParquetWriter | None = None

    def write(frame: pd.DataFrame) -> None:
        nonlocal file
        table = pyarrow.Table.from_pandas(frame, preserve_index=False)
        file = file or parquet.ParquetWriter(stream, table.schema)
        file.write_table(table)

    with open(path, "wb") as stream:  # pyarrow takes no path that is not UTF-8
        try:
            yield write
        finally:
            if file is not None:
                file.close()


def _report(run: PredictionRun, out: Path | None, seconds: float, as_json: bool, quiet: bool) -> None:
    like = run.likeness
    assert like is not None, "the rows were predicted"
    if as_json and out is not None:
        output.print_json({
            "out": out, "rows": run.count, "seconds": seconds, "predicted": dict(run.predicted),
            "unseen_cells": like.unseen, "missing_cells": like.missing, "outside_cells": like.outside,
        })  # fmt: skip
    if run.extra:
        output.note(
            f"note: columns the table did not have are left out: {', '.join(run.extra[:5])}", quiet=quiet
        )
    if like.remark:
        output.warn(like.remark)
    shares = ", ".join(f"{name}: {count:,}" for name, count in run.predicted.most_common(10))
    speed = f" ({1e6 * seconds / run.count:.0f} ms per 1,000)" if run.count >= 1000 else ""
    parts = [
        f"{run.count:,} rows in {seconds:.1f} s{speed}",
        shares,
        f"written to {shown(out)}" if out else "",
    ]
    output.note("; ".join(filter(None, parts)), quiet=quiet)


_WRITERS = {".csv": _text_file, ".tsv": partial(_text_file, separator="\t"), ".parquet": _parquet_file}
