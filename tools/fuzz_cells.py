"""Tables of cells that are nearly numbers, dates, durations or truth values, for `fuzz`, and their reader."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import json
import math

import numpy as np

from tools.fuzz_inputs import pick
from tttab.seeding import numpy_stream

ODD_SIGNS = (
    "x",
    ".",
    ",",
    "'",
    "%",
    "-",
    "+",
    "e",
    "E",
    "_",
    " ",
    "\u00a0",
    "\u202f",
    "\u2212",
    "$",
    "€",
    "(",
    ")",
    "/",
    ":",
    "\u0663",
    "\uff15",
    "½",
    "²",
    "∞",
    "\0",
    "\n",
    "T",
    "Z",
)
"""What stands in nearly-numbers: also digits of other scripts."""
MARKERS = (
    "",
    "?",
    "-",
    "NA",
    "n/a",
    "NaN",
    "null",
    "None",
    " nan ",
    "--",
    "…",
    ".",
    "#N/A",
    "unknown",
    "NaT",
    "#DIV/0!",
    "Nan ",
    "nil",
    "missing",
    "n.a.",
    "<NA>",
    "inf",
    "-Infinity",
)
TRUTHS = (
    "true",
    "false",
    "True",
    "FALSE",
    "yes",
    "no",
    "Y",
    "n",
    "t",
    "F",
    "on",
    "OFF",
    "0",
    "1",
    "1.0",
    " No ",
    "00",
    "-0",
    "+1",
    "0e5",
)
WORDS = (
    "a",
    "b",
    "red",
    "007",
    "00.5",
    "0x1F",
    "1_000",
    "=1+1",
    "é",
    "ß",
    "İ",
    "a" * 300,
    "12 May",
    "1-2",
    "1/2",
)
DATES = (
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S.%f",
    "%Y-%m-%dT%H:%MZ",
    "%Y-%m-%d %H:%M:%S+02:00",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y %H:%M",
    "%d-%b-%Y",
    "%b %d, %Y %I:%M %p",
    "%Y/%m/%d",
    "%y%m%d",
    "%d %B %Y",
)
DTYPES = ("object",) * 8 + (
    "string",
    "category",
    "Int64",
    "Float32",
    "float32",
    "int8",
    "boolean",
    "datetime64[s]",
    "datetime64[us, UTC]",
    "timedelta64[ms]",
    "period[D]",
    "Sparse[float64]",
    "string[pyarrow]",
    "double[pyarrow]",
    "timestamp[ms][pyarrow]",
)
TYPES = {
    "int": int,
    "float": float,
    "bool": bool,
    "decimal": decimal.Decimal,
    "float32": np.float32,
    "date": datetime.date.fromisoformat,
    "time": datetime.datetime.fromisoformat,
    "complex": complex,
    "clock": datetime.time.fromisoformat,
    "bytes": str.encode,
    "list": lambda text: [text],
    "span": lambda text: datetime.timedelta(days=float(text)),
}
"""How a typed cell is written in an input of `numbers`: [name of the type, text]."""
COLUMN_OPTIONS = (
    "level",
    "number",
    "number:1.234,5",
    "number:1,234.5%",
    "date",
    "date:%d.%m.%Y",
    "duration",
    "boolean",
)
MARKS = ("", ",", ".", " ", "\u00a0", "\u202f", "'", "\u2019")


def make_cells(data, rng):
    """Return a table: as JSON with typed cells, or as CSV. `data`, a valid one, is not used."""
    rows = int(pick(rng, [2, 5, 30, 30, 60, 60, 120, 400]))
    as_csv = rng.random() < 0.4
    columns = [_column(rng, rows, only_texts=as_csv) for _ in range(int(rng.integers(1, 5)))]
    target = _column(rng, rows, only_texts=as_csv) if rng.random() < 0.5 else _labels(rng, rows)
    names = [f"c{number}" for number in range(len(columns))]
    if as_csv:
        stream = io.StringIO()
        writer = csv.writer(stream, delimiter=pick(rng, ",,;\t"), quoting=int(pick(rng, [0, 0, 1])))
        writer.writerow(["row", *names, "y"])
        cells = zip(*(column["cells"] for column in (*columns, target)), strict=True)
        writer.writerows([number, *row] for number, row in enumerate(cells))
        return stream.getvalue().encode("utf-8", "replace")
    table = {
        "columns": dict(zip(names, columns, strict=True)),
        "y": target,
        "decimals": {name: pick(rng, ".,,") for name in names} if rng.random() < 0.3 else {},
        "declared": {},
    }
    if rng.random() < 0.1:
        table["declared"] = {pick(rng, [*names, "y"]): pick(rng, COLUMN_OPTIONS)}
    return json.dumps(table).encode()


def cell_seeds():
    """Return one table of each form."""
    rng = numpy_stream(0, "fuzz", "numbers")
    found = {}
    while len(found) < 2:
        data = make_cells(b"", rng)
        found.setdefault(data[:1] == b"{", data)
    return list(found.values())


def read_cells(path):
    """Make a table; its schema must read its rows again as they are: at once, in two parts and singly."""
    from tttab.data import Origin, load_table, read_frame, schema_of, table_from_frame
    from tttab.errors import DataError

    data = path.read_bytes()
    if data[:1] != b"{":
        path = path.rename(path.with_suffix(".csv"))
        table = load_table(str(path), target="y")
        raw = read_frame(path, text_columns=schema_of(table).text_columns)
        return check_schema(table, raw.frame, raw.decimals)
    try:
        frame, origin = _frame(json.loads(data), Origin)
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise DataError("the bytes of the test's own form were changed", "none") from error
    table = table_from_frame(frame, origin)
    return check_schema(table, frame, origin.decimals)


def check_schema(table, frame, decimals):
    """Read the table's rows again by its schema, which has been JSON; column `row` numbers them."""
    from tttab.data import schema_from_dict, schema_of

    schema = schema_from_dict(json.loads(json.dumps(schema_of(table).to_dict())))
    if schema != schema_of(table):
        raise AssertionError("the schema is another one after JSON")
    if "row" not in table.x or not np.isfinite(table.x["row"]).all():
        return
    kept = table.x["row"].to_numpy().astype(int)
    if len(kept) != len(frame) or (kept != np.arange(len(kept))).any():
        return  # the numbers themselves were changed
    middle = len(kept) // 2
    for part in (slice(None), slice(middle), slice(middle, None), slice(1), slice(middle, middle + 1)):
        new, old = schema.read(frame.iloc[part], decimals), table.x.iloc[part].reset_index(drop=True)
        if new.unseen or not new.x.equals(old):
            wrong = [name for name in old if not new.x[name].equals(old[name])]
            raise AssertionError(f"rows {part} read as others: {wrong} {new.unseen}")
        if not np.array_equal(schema.labels(frame["y"].iloc[part], decimals.get("y", "")), table.y[part]):
            raise AssertionError(f"targets {part} read as others")


def _frame(document, origin):
    import pandas as pd

    frame = {"row": range(len(document["y"]["cells"]))}
    for name, column in (*document["columns"].items(), ("y", document["y"])):
        values = pd.Series([_cell(cell) for cell in column["cells"]], dtype=object)
        try:
            frame[name] = values.astype(column["dtype"])
        except Exception:
            frame[name] = values
    declared = document["declared"]
    marks = document["decimals"]
    return pd.DataFrame(frame), origin("t", "file", target="y", decimals=marks, columns=declared)


def _cell(cell):
    if not isinstance(cell, list):
        return cell
    return TYPES[cell[0]](cell[1])


def _labels(rng, rows):
    return {"dtype": "object", "cells": [pick(rng, ["no", "yes", "maybe"]) for _ in range(rows)]}


def _column(rng, rows, *, only_texts):
    """Return a column of one family of texts (or types), with a share of cells of others."""
    families = [_number, _number, _date, _duration, _truth, _word, *([] if only_texts else [_typed])]
    main, odd = pick(rng, families), pick(rng, families)
    style, other = _style(rng), _style(rng)
    share = pick(rng, [0, 0, 0, 0.5 / rows, 1 / rows, 0.01, 0.1, 0.5])
    gaps = pick(rng, [0, 0, 0.02, 0.3])
    cells = []
    for _ in range(rows):
        text = odd(rng, other) if rng.random() < share else main(rng, style)
        if rng.random() < gaps:
            text = pick(rng, MARKERS) if only_texts or rng.random() < 0.7 else None
        cells.append(_spoilt(text, rng) if isinstance(text, str) and rng.random() < style["spoil"] else text)
    return {"dtype": "object" if only_texts else pick(rng, DTYPES), "cells": cells}


def _style(rng):
    """Return how a column writes its cells."""
    return {
        "mark": pick(rng, "..,"),
        "group": pick(rng, MARKS),
        "percent": pick(rng, ["", "", "", "%", " %"]),
        "before": pick(rng, ["", "", "$", "€ "]),
        "digits": int(pick(rng, [1, 3, 6, 15, 40])),
        "long": pick(rng, [0, 0, 0, 0.02, 0.2]),
        "date": pick(rng, DATES),
        "spoil": pick(rng, [0, 0, 0.01, 0.5]),
        "type": pick(rng, list(TYPES)),
        "exponent": pick(rng, [0, 0, 0.2]),
        "zeros": pick(rng, [0, 0, 0.2]),
    }


def _digits(rng, most):
    return rng.integers(48, 58, int(rng.integers(1, most + 1))).astype("uint8").tobytes().decode()


def _number(rng, style):
    """Return a number; now and then one of up to 300,000 digits."""
    if rng.random() < style["long"]:
        return (_digits(rng, 3) * int(10 ** rng.uniform(2, 5)))[: int(10 ** rng.uniform(2, 5.5))]
    whole = _digits(rng, style["digits"])
    whole = whole if rng.random() < style["zeros"] else whole.lstrip("0") or "0"
    if style["group"]:
        first = len(whole) % 3
        whole = style["group"].join(
            [whole[:first]] * bool(first) + [whole[n : n + 3] for n in range(first, len(whole), 3)]
        )
    fraction = style["mark"] + _digits(rng, 4) if rng.random() < 0.6 else ""
    exponent = (
        pick(rng, "eE") + pick(rng, ["", "-", "+"]) + _digits(rng, 3)
        if rng.random() < style["exponent"]
        else ""
    )
    sign = pick(rng, ["-", "+", "\u2212"]) if rng.random() < 0.2 else ""
    return sign + style["before"] + whole + fraction + exponent + style["percent"]


def _date(rng, style):
    days = int(rng.integers(-700_000, 2_900_000)) if rng.random() < 0.05 else int(rng.integers(0, 20_000))
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(
        days=days, seconds=int(rng.integers(0, 86_400))
    )
    return moment.strftime(style["date"])


def _duration(rng, style):
    clock = f"{rng.integers(0, 24):02}:{rng.integers(0, 60):02}:{rng.integers(0, 60):02}"
    days = pick(rng, ["", "-"]) + _digits(rng, int(pick(rng, [1, 2, 5, 9])))
    return pick(
        rng, [f"{days} days {clock}", f"{days} days", f"{days} day, {clock}.{_digits(rng, 9)}", clock]
    )


def _truth(rng, style):
    return pick(rng, TRUTHS)


def _word(rng, style):
    return pick(rng, WORDS)


def _typed(rng, style):
    """Return a typed cell, in the form that `_cell` reads."""
    number = float(
        pick(rng, [0.0, -0.0, 1.0, 2.5, 1e30, 1.1e30, 1e308, 5e-324, math.nan, math.inf, rng.normal()])
    )
    day = datetime.date(1970, 1, 1) + datetime.timedelta(days=int(rng.integers(-100_000, 2_900_000)))
    texts = {
        "int": str(int(pick(rng, [0, 1, 7, -1, 2**31, 2**63, 10**300, rng.integers(0, 99)]))),
        "bool": pick(rng, ["", "1"]),
        "date": day.isoformat(),
        "time": f"{day}T12:30:00",
        "bytes": "ab",
        "clock": "12:30:00",
        "list": "x",
        "span": str(rng.normal() * 10 ** int(rng.integers(0, 8))),
        "complex": "1+2j",
    }
    return [style["type"], texts.get(style["type"], repr(number))]


def _spoilt(text, rng):
    """Return a text with a sign too many, too few or very often."""
    at = int(rng.integers(0, len(text) + 1))
    match int(rng.integers(0, 4)):
        case 0:
            return text[:at] + text[at + 1 :]
        case 1:
            return text[:at] + text[at : at + 3] * int(10 ** rng.uniform(0, 4)) + text[at:]
        case _:
            return text[:at] + pick(rng, ODD_SIGNS) * int(pick(rng, [1, 1, 1, 2, 3000])) + text[at:]
