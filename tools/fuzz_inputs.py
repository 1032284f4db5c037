"""Input number i of a target of `fuzz`: valid content with a few changes, a function of seed, name and i.

Two kinds of change: bytes, wherever they are, and values of a document of which all else stays valid.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tttab.seeding import numpy_stream

DEEP = "@deep@"
"""Stands for brackets nested 100,000 deep: no JSON writer would write them."""
ODD = (
    None,
    True,
    False,
    0,
    1,
    -1,
    7,
    2**31,
    2**53,
    2**64,
    10**400,
    0.0,
    0.5,
    1e-320,
    1e12,
    1e154,
    1e308,
    -1e308,
    math.nan,
    math.inf,
    -math.inf,
    "",
    " ",
    "x",
    "1",
    "nan",
    "é",
    "line\nline",
    "\0",
    "\ud800",
    "\u202egnp",
    "\x1b]52;c;YQ==\x07",
    "../../x",
    "/etc/passwd",
    "<script>alert(1)</script>",
    "a|b`c`",
    "[red]",
    "n" * 20_000,
    [],
    {},
    [1],
    [[]],
    {"a": 1},
    {"": None},
    DEEP,
)


@dataclass(frozen=True)
class Target:
    """A reader to attack."""

    suffix: str
    seeds: Callable[[], list[bytes]]
    """Valid inputs to change."""
    read: Callable[[Path], object]
    """Reads one file; may raise TttabError."""
    tokens: tuple[bytes, ...] = ()
    """Texts that mean something to the format."""
    in_place: bool = False
    """Keep every byte where it is: for binary formats, whose readers stop at the first wrong offset."""
    change: Callable[[bytes, np.random.Generator], bytes] | None = None
    """Changes a valid input where its format has values; None: only bytes are changed."""
    by_bytes: float = 0.5
    """The share of inputs whose bytes are changed where there is a `change`."""


def make_input(target: Target, name: str, seed: int, number: int) -> bytes:
    """Return input `number`: a changed valid file, now and then plain noise."""
    rng = numpy_stream(seed, "fuzz", name, number)
    seeds = seeds_of(target)
    data = bytearray(seeds[rng.integers(len(seeds))])
    if rng.random() < 0.02:
        return rng.bytes(int(rng.integers(0, 400)))
    if target.change:
        if rng.random() >= target.by_bytes:
            return target.change(bytes(data), rng)
        data = bytearray(target.change(bytes(data), rng)) if rng.random() < 0.5 else data
    return damaged(data, target, rng)


@cache
def seeds_of(target: Target) -> list[bytes]:
    """Return a target's valid inputs, made once in a process."""
    return target.seeds()


def damaged(data: bytes | bytearray, target: Target, rng: np.random.Generator) -> bytes:
    """Return `data` with one to eight changed bytes, pieces or tokens."""
    data = bytearray(data)
    for _ in range(2 ** int(rng.integers(0, 4))):
        _damage(data, target, rng)
    return bytes(data)


def _damage(data, target, rng):
    """Change `data` in place at one spot."""
    at = int(rng.integers(0, len(data) + 1))
    length = int(min(len(data) - at, 2 ** rng.integers(0, 8)))
    match int(rng.integers(0, 2 if target.in_place and rng.random() < 0.98 else 7)):
        case 0:
            data[at : at + 1] = _some_bytes(1, target, rng)
        case 1:
            bit = 1 << int(rng.integers(8 if target.in_place else 7))
            data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ bit])
        case 2:
            del data[at : at + length]
        case 3:
            data[at:at] = data[at : at + length] * int(rng.integers(1, 9))
        case 4:
            other = int(rng.integers(0, len(data) + 1))
            data[at:at] = data[other : other + length]
        case 5:
            if rng.random() < 0.2:
                del data[at:]
        case _:
            token = target.tokens[rng.integers(len(target.tokens))] if target.tokens else b""
            token = token or _some_bytes(4, target, rng)
            data[at:at] = token * int(rng.choice([1, 1, 1, 2, 50]))


def _some_bytes(count, target, rng):
    """Return noise: printable for text formats, for the most part, so that it gets past the decoder."""
    if target.in_place or rng.random() < 0.1:
        return rng.bytes(count)
    return rng.integers(32, 127, count).astype("uint8").tobytes()


def pick(rng: np.random.Generator, values: Any) -> Any:
    """Return one of `values`, whatever their types."""
    return values[int(rng.integers(len(values)))]


def change_values(document: Any, rng: np.random.Generator, fitting: Callable[[Any], Any] = lambda key: None):
    """Change one to three values of a JSON document in place: other types, other sizes, gone, or moved.

    Args:
        document: mappings and lists.
        rng: decides.
        fitting: values that are near the range of the field of that name, or None.
    """
    for _ in range(int(rng.integers(1, 4))):
        places = list(_places(document))
        if not places:
            return
        holder, key = pick(rng, places)
        other, its = pick(rng, places)
        match int(rng.integers(0, 8)):
            case 0:
                del holder[key]
            case 1:
                holder[key] = _copy(other[its])
            case 2 if isinstance(holder, dict):
                holder[pick(rng, ["extra", "kind", "name", "error", "seed", ""])] = _copy(pick(rng, ODD))
            case 3 | 4:
                holder[key] = _near(holder[key], rng)
            case 5 | 6 if fitting(key) is not None:
                holder[key] = pick(rng, fitting(key))
            case _:
                holder[key] = _copy(pick(rng, ODD))


def json_bytes(document: Any) -> bytes:
    """Return a document as JSON, with Python's NaN and the deep brackets that it may hold."""
    text = json.dumps(document, separators=(",", ":"))
    return text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000).encode()


def change_lines(data: bytes, rng: np.random.Generator) -> bytes:
    """Change values in some lines of JSON lines; a single document is one line."""
    lines = data.rstrip(b"\n").split(b"\n")
    for number in rng.choice(len(lines), min(len(lines), int(rng.integers(1, 4))), replace=False):
        document = json.loads(lines[number])
        change_values(document, rng)
        lines[number] = json_bytes(document)
    return b"\n".join(lines) + b"\n" * data.endswith(b"\n")


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (holder, key) of every value inside, in a fixed order."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items if isinstance(document, dict | list) else ():
        yield document, key
        if isinstance(value, dict | list):
            yield from _places(value)


def _near(value: Any, rng: np.random.Generator) -> Any:
    """Return a value that is nearly the given one: a step, a sign, a size or a type away."""
    if isinstance(value, bool) or value is None:
        return pick(rng, [int(value or 0), str(value), [value], not value])
    if isinstance(value, int | float):
        size = float(value) if -1e300 < value < 1e300 else 1e300
        return pick(
            rng,
            [
                value + 1,
                value - 1,
                -value,
                size / 2,
                value * 10**6,
                str(value),
                [value],
                int(abs(size)) + 10**12,
            ],
        )
    if isinstance(value, str):
        return pick(
            rng,
            [
                value[:-1],
                value * 2,
                value.upper(),
                value + "\0",
                value + " ",
                [value],
                {value: 1},
                value * 5000,
            ],
        )
    return pick(rng, [json.dumps(value), [value], len(value), list(value), None])


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value)) if isinstance(value, dict | list) else value
