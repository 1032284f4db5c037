"""Odd lines of a store, from a seed: good ones with values, fields and bytes that are not theirs."""

from __future__ import annotations

import copy
import json
import math

DEEP = "@deep@"
"""Stands for brackets nested 100,000 deep: no JSON writer would write them."""
ODD = [
    None, True, False, 0, 1, -1, 7, 2**31, 2**53 - 1, 2**53, 2**64, 10**400,
    0.0, -0.0, 0.5, 1.0, 1e-320, 1e-9, 1e12, 1e100, -1e100, 1e154, 1e308, -1e308, math.nan, math.inf,
    -math.inf, "", " ", "x", "1", "nan", "é", "line\nline", "\x00", "\x1b]52;c;YQ==\x07",
    "<script>alert(1)</script>", "a|b`c`", "\u202egnp.exe", "[red]", "n" * 20_000,
    [], {}, [1], [[]], {"a": 1}, {"": None}, {"table": "x"}, {"accuracy": 0.5}, DEEP,
]  # fmt: skip


def text_of(line):
    """One line of a store."""
    text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
    return text.replace(f'"{DEEP}"', "[" * 100_000 + "]" * 100_000).encode()


def spoilt(rng, line):
    """Return the bytes of `line` with one to three things wrong, or merely unusual."""
    line = copy.deepcopy(line)
    for _ in range(rng.randint(1, 3)):
        holder, name = rng.choice(list(_places(line)))
        another, its = rng.choice(list(_places(line)))
        match rng.randrange(6):
            case 0 | 1 | 2:
                holder[name] = copy.deepcopy(rng.choice(ODD))
            case 3 if len(line) > 1:
                del holder[name]
            case 4:
                field = rng.choice(["extra", "kind", "table", "error", "metrics", ""])
                holder[field] = copy.deepcopy(rng.choice(ODD))
            case _:
                holder[name] = copy.deepcopy(another[its])
    return torn(rng, text_of(line)) if rng.random() < 0.2 else text_of(line)


def torn(rng, text):
    """Return bytes that a crash, a copy or an editor could have left of a line."""
    place = rng.randrange(len(text))
    return rng.choice(
        [
            text[:place],
            text[place:],
            text[:place] + bytes([rng.randrange(256)]) + text[place + 1 :],
            text[:place] + text[place + 1 :],
            b"\xef\xbb\xbf" + text,
            text + text,
            b"\x00" * 50 + text,
            text + b" " * 2**20 + b"x",
        ]
    ).replace(b"\n", b" ")


def _places(value):
    """Yield (mapping, name) for every value inside."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield value, name
            yield from _places(inner)
