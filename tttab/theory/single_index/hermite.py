"""Exact algebra of probabilists' Hermite polynomials: products, powers, information and generative exponent.

Everything is in rational numbers. A series is a tuple of Fractions; entry i is the weight of He_i.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import comb, factorial

from tttab.errors import RequestError

Series = tuple[Fraction, ...]
MAX_DEGREE = 12
EXAMPLE = '--link "He3 + 0.5*He4"'
_TERM = re.compile(
    r"(?P<sign>[+-]?)"
    r"(?:(?P<number>\d+(?:\.\d+)?(?:/\d+)?)\*?)?"
    r"(?P<symbol>He(?P<order>\d+)|z(?:\^(?P<power>\d+))?)?"
    r"(?:/(?P<divisor>\d+))?"
)


def parse_link(text: str) -> Series:
    """Return the series of a link such as `He3 + 0.5*He4` or `z^3 - 3*z`, exactly.

    Terms are He<k> or z^k with an optional rational weight, or plain numbers. Raises RequestError where
    the text cannot be read, has no term beyond a constant, or has a degree above `MAX_DEGREE`.
    """
    compact = text.replace(" ", "")
    total: Series = ()
    position = 0
    while position < len(compact):
        match = _TERM.match(compact, position)
        if (
            match is None
            or match.end() == position
            or (position and not match["sign"])
            or not match[0].strip("+-")
        ):
            raise RequestError(f"cannot read the link {text!r} at {compact[position:]!r}", EXAMPLE)
        total = add(total, _term(match, text))
        position = match.end()
    if len(total) < 2:
        raise RequestError(f"the link {text!r} is constant: there is nothing to learn", EXAMPLE)
    return total


def _term(match: re.Match[str], text: str) -> Series:
    number, _, below = (match["number"] or "1").partition("/")
    divisor = int(below or 1) * int(match["divisor"] or 1)
    if not divisor:
        raise RequestError(f"the link {text!r} divides by zero", EXAMPLE)
    weight = Fraction(number) / divisor
    weight = -weight if match["sign"] == "-" else weight
    symbol = match["symbol"] or ""
    order = int(match["order"] or match["power"] or 1) if symbol else 0
    if symbol == "He0" or match["power"] == "0":
        order = 0
    if order > MAX_DEGREE:
        raise RequestError(f"the link {text!r} has degree {order}, at most {MAX_DEGREE} is taken", EXAMPLE)
    series = power(hermite(1), order) if symbol.startswith("z") else hermite(order)
    return _trim(tuple(weight * value for value in series))


def hermite(order: int) -> Series:
    """Return He_order."""
    return (*([Fraction(0)] * order), Fraction(1))


def add(left: Series, right: Series) -> Series:
    """Return the sum."""
    size = max(len(left), len(right))
    padded = [(*series, *[Fraction(0)] * (size - len(series))) for series in (left, right)]
    return _trim(tuple(a + b for a, b in zip(*padded, strict=True)))


def multiply(left: Series, right: Series) -> Series:
    """Return the product, by He_m He_n = sum_k k! C(m,k) C(n,k) He_(m+n-2k)."""
    product = [Fraction(0)] * max(0, len(left) + len(right) - 1)
    for m, a in enumerate(left):
        for n, b in enumerate(right):
            if a and b:
                for k in range(min(m, n) + 1):
                    product[m + n - 2 * k] += a * b * factorial(k) * comb(m, k) * comb(n, k)
    return _trim(tuple(product))


def power(series: Series, exponent: int) -> Series:
    """Return the series to a power, 0 included."""
    result = hermite(0)
    for _ in range(exponent):
        result = multiply(result, series)
    return result


def mean_product(left: Series, right: Series) -> Fraction:
    """Return E[left(z) right(z)] for z ~ N(0, 1): sum of i! a_i b_i."""
    return sum((factorial(i) * a * b for i, (a, b) in enumerate(zip(left, right, strict=False))), Fraction(0))


def information_exponent(series: Series) -> int | None:
    """Return the first i >= 1 whose Hermite weight is not zero; None for a constant."""
    return next((i for i, value in enumerate(series) if i and value), None)


def is_even(series: Series) -> bool:
    """Return whether s(-z) = s(z)."""
    return not any(series[1::2])


def generative_exponent(series: Series) -> int:
    """Return the least information exponent of any function of s(z): 2 for even polynomials, else 1.

    For polynomials the minimum is reached by a power s^j (2509.25741; Lee et al. 2024). Raises
    RequestError for a constant.
    """
    if information_exponent(series) is None:
        raise RequestError("a constant link has no generative exponent", EXAMPLE)
    return 2 if is_even(series) else 1


def exponents_of_powers(series: Series, largest: int) -> list[int | None]:
    """Return ie(s^j) for j = 1 … `largest`."""
    powers, current = [], hermite(0)
    for _ in range(largest):
        current = multiply(current, series)
        powers.append(information_exponent(current))
    return powers


def _trim(series: Series) -> Series:
    size = len(series)
    while size and not series[size - 1]:
        size -= 1
    return series[:size]
