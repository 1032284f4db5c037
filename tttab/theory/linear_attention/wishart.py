"""Exact expectations of products of words in independent Wishart matrices, as polynomials in all sizes.

A matrix such as J = sum_a x~_a x~_a' has as many rows x~ = (x, noise / s) as are said later; b~ = (b, s), so
that J b~ is X'y with noise, and P removes the last coordinate. A word b~'J P L b~ is written "JPL". `folds`
says what the words mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product

import numpy as np

MATRICES = "FJLO"
Word = tuple[bool, str]
"""Whether it is closed (a trace) or open (between b~' and b~), and its letters."""
Slot = Sequence[tuple[int, int, str]]
"""Alternatives in a sum: sign, power of w, letters."""
Powers = tuple[int, ...]
"""Powers of the rows of F, J, L, O, of tr I = d + 1, tr P = d and b~'b~ = 1 + s2, and of w."""


class Polynomial:
    """A polynomial in the sizes with integer coefficients."""

    def __init__(self, terms: Mapping[Powers, int]) -> None:
        self._powers = np.array([list(powers) for powers in terms], dtype=float)
        self._counts = np.array(list(terms.values()), dtype=float)

    def at(self, rows: Mapping[str, float], d: float, noise: float, weight: float) -> float:
        """Return its value; matrices that `rows` does not name have none."""
        values = [*(rows.get(name, 0.0) for name in MATRICES), d + 1, d, 1 + noise, weight]
        return float((self._counts * np.prod(np.power(values, self._powers), axis=1)).sum())


def one(letters: str) -> Slot:
    """Return the slot that holds `letters` and nothing else."""
    return [(1, 0, letters)]


def any_of(*words: str) -> Slot:
    """Return the slot of a sum of words."""
    return [(1, 0, word) for word in words]


def residual(*words: str) -> Slot:
    """Return the slot of 1 - w (sum of words)."""
    return [(1, 0, ""), *((-1, 1, word) for word in words)]


def expectation(*forms: Sequence[Slot]) -> Polynomial:
    """Return E of the product of forms; each is the product of its slots between b~' and b~."""
    total: Counter[Powers] = Counter()
    expanded = [[*_expanded(form)] for form in forms]
    for parts in product(*expanded):
        sign, weight = int(np.prod([part[0] for part in parts])), sum(part[1] for part in parts)
        words = tuple(sorted(_tidy(False, part[2]) for part in parts))
        for powers, count in _moment(words):
            total[(*powers, weight)] += sign * count
    return Polynomial(total)


def _expanded(form: Sequence[Slot]) -> Iterator[tuple[int, int, str]]:
    for parts in product(*form):
        yield int(np.prod([p[0] for p in parts])), sum(p[1] for p in parts), "".join(p[2] for p in parts)


@cache
def _moment(words: tuple[Word, ...]) -> tuple[tuple[Powers, int], ...]:
    """Return E of the product of words: Wick's theorem, one matrix less at a time.

    The first Gaussian vector of the first matrix X is paired with every other one that X has: with its own
    partner X becomes the identity, once per row; with one of another X the two become one and the words
    between them are joined anew.
    """
    known, left = [0] * 7, []
    for closed, letters in words:
        if set(letters) & set(MATRICES):
            left.append((closed, letters))
        else:
            place = (5 if letters else 4) if closed else (None if letters else 6)
            if place is not None:  # b~'P b~ = 1
                known[place] += 1
    if not left:
        return ((tuple(known), 1),)
    total: Counter[Powers] = Counter()
    for row, following in _pairings(left):
        for powers, count in _moment(tuple(sorted(_tidy(*word) for word in following))):
            grown = [a + b for a, b in zip(powers, known, strict=True)]
            if row:
                grown[MATRICES.index(row)] += 1
            total[tuple(grown)] += count
    return tuple(total.items())


def _pairings(words: Sequence[Word]) -> Iterator[tuple[str, list[Word]]]:
    """Yield the matrix that has lost a sum over rows, or none, and the words after each pairing."""
    (closed, letters), *others = words  # open words come first
    place = next(i for i, letter in enumerate(letters) if letter in MATRICES)
    x, before, after = letters[place], letters[:place], letters[place + 1 :]
    if closed:
        before, after = "", after + before
    yield x, [(closed, before + after), *others]
    for j in _places(x, after):
        between, rest = after[:j], after[j + 1 :]
        if closed:
            yield "", [(True, x + between + rest[::-1]), *others]
        else:
            yield "", [(False, before + between[::-1] + x + rest), *others]
        yield "", [(closed, before + rest), (True, x + between), *others]
    for i, (other_closed, other) in enumerate(others):
        remaining = [*others[:i], *others[i + 1 :]]
        for j in _places(x, other):
            first, second = other[:j], other[j + 1 :]
            if closed or other_closed:
                loop = second + first
                yield "", [(closed, before + loop[::-1] + x + after), *remaining]
                yield "", [(closed, before + loop + x + after), *remaining]
            else:
                yield "", [(False, before + first[::-1]), (False, after[::-1] + x + second), *remaining]
                yield "", [(False, before + second), (False, first + x + after), *remaining]


def _places(x: str, letters: str) -> list[int]:
    return [i for i, letter in enumerate(letters) if letter == x]


def _tidy(closed: bool, letters: str) -> Word:
    """Return the word in the form that stands for all that are equal: P P = P, transposed, turned."""
    while "PP" in letters:
        letters = letters.replace("PP", "P")
    if not closed:
        return False, min(letters, letters[::-1])
    if len(letters) > 1 and letters[0] == letters[-1] == "P":
        letters = letters[1:]
    ways = [way[i:] + way[:i] for way in (letters, letters[::-1]) for i in range(max(1, len(letters)))]
    return True, min(ways)
