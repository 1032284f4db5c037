"""The bodies of requests and responses: JSON, CSV, Parquet or Arrow.

CSV and Parquet are read by the reader of files, with its limits and guesses, so a table means the same as in
`tttab predict`.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tttab.errors import DataError
from tttab.text import shown

if TYPE_CHECKING:
    import pandas as pd

    from tttab.data.reading import RawFrame

JSON, CSV = "application/json", "text/csv"
PARQUET, ARROW = "application/vnd.apache.parquet", "application/vnd.apache.arrow.stream"
MEDIA_TYPES = (JSON, CSV, PARQUET, ARROW)
EXAMPLE = '{"rows": [{"age": 41, "job": "clerk"}]}'
MOST_ROWS = 20_000
"""Of one request: more belong into `tttab predict`."""


def read_body(media_type: str, body: bytes, texts: Collection[str], folder: str) -> RawFrame:
    """Return the rows of a request.

    Args:
        media_type: one of `MEDIA_TYPES`.
        body: what was sent.
        texts: columns whose cells stay text.
        folder: for a file that the reader of CSV and Parquet needs; nothing is left in it.

    Raises:
        DataError: it holds no rows, too many, or is damaged.
    """
    found = _READERS[media_type](body, texts, folder)
    count = len(found.frame)
    if not 1 <= count <= MOST_ROWS:
        raise DataError(f"a request holds 1 to {MOST_ROWS:,} rows, this one {count:,}", "several requests")
    return found


def write_body(media_type: str, answers: pd.DataFrame, remarks: Collection[str]) -> bytes:
    """Return predictions as a response's body; only JSON has room for the remarks."""
    if media_type == CSV:
        return answers.to_csv(index=False, float_format="%.7g").encode()
    if media_type == PARQUET:
        return answers.to_parquet(index=False)
    if media_type == ARROW:
        import pyarrow

        table, sink = pyarrow.Table.from_pandas(answers, preserve_index=False), io.BytesIO()
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue()
    rows = answers.to_dict("records")
    return json.dumps({"predictions": rows, "remarks": list(remarks)}, ensure_ascii=False).encode()


def _read_json(body: bytes, texts: Collection[str], folder: str) -> RawFrame:
    import pandas as pd

    from tttab.data.reading import RawFrame

    try:
        found = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise DataError(f"the body is not JSON: {shown(error, 100)}", EXAMPLE) from error
    rows = found.get("rows") if isinstance(found, dict) else found
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError("the rows must be a list of objects", EXAMPLE)
    if any(isinstance(cell, dict | list) for row in rows for cell in row.values()):
        raise DataError("a cell must be text, a number, true, false or null", EXAMPLE)
    names = dict.fromkeys(name for row in rows for name in row)
    # Of object dtype: what a column is says the bundle's schema, not the first rows.
    columns = {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names}
    return RawFrame(pd.DataFrame(columns, index=range(len(rows))))


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON's")


def _read_arrow(body: bytes, texts: Collection[str], folder: str) -> RawFrame:
    import pyarrow

    from tttab.data.frames import as_frame
    from tttab.data.reading import RawFrame, check_names

    try:
        with pyarrow.ipc.open_stream(body) as stream:
            table = stream.read_all()
        table.validate(full=True)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"the body is no Arrow stream: {shown(error, 100)}", EXAMPLE) from error
    check_names(table.column_names, "the body")
    frame = as_frame(table)
    assert frame is not None, "a table of Arrow's is one of narwhals'"
    return RawFrame(frame)


def _read_as_file(ending: str) -> Callable[[bytes, Collection[str], str], RawFrame]:
    def read(body: bytes, texts: Collection[str], folder: str) -> RawFrame:
        from tttab.data.reading import read_frame

        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = Path(place, f"body{ending}")
            path.write_bytes(body)
            try:
                return read_frame(path, text_columns=texts)
            except DataError as error:
                # The hints of files name this one, which is gone when they are read.
                hint = error.hint if place not in error.hint else f"Content-Type: {PARQUET}, or CSV in UTF-8"
                raise DataError(error.message.replace(str(path), "the body"), hint) from error

    return read


_READERS: Mapping[str, Callable[..., Any]] = {
    JSON: _read_json,
    ARROW: _read_arrow,
    CSV: _read_as_file(".csv"),
    PARQUET: _read_as_file(".parquet"),
}
