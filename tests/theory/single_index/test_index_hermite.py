from fractions import Fraction
from math import factorial

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from tttab.errors import RequestError
from tttab.theory.single_index.hermite import (
    add,
    exponents_of_powers,
    generative_exponent,
    hermite,
    information_exponent,
    is_even,
    mean_product,
    multiply,
    parse_link,
    power,
)

Z = sympy.Symbol("z")
small_series = st.lists(st.integers(-3, 3), min_size=2, max_size=5).filter(lambda s: any(s[1:]))


def he(order):
    return sympy.expand(sympy.hermite(order, Z / sympy.sqrt(2)) / 2 ** sympy.Rational(order, 2))


def polynomial(series):
    terms = (sympy.Rational(value.numerator, value.denominator) * he(i) for i, value in enumerate(series))
    return sympy.expand(sum(terms))


def gaussian_mean(expression):
    """Return E of a polynomial in a standard normal, from E z^(2k) = (2k - 1)!!."""
    coefficients = sympy.Poly(expression, Z).all_coeffs()[::-1]
    return sum(c * sympy.factorial2(i - 1) for i, c in enumerate(coefficients) if i % 2 == 0)


def exact(values):
    return add(tuple(Fraction(value) for value in values), ())


@pytest.mark.parametrize("m", range(6))
@pytest.mark.parametrize("n", range(6))
def test_products_and_moments_are_exact(m, n):
    assert polynomial(multiply(hermite(m), hermite(n))) == sympy.expand(he(m) * he(n))
    assert mean_product(hermite(m), hermite(n)) == (factorial(m) if m == n else 0)


@given(small_series)
@settings(max_examples=30, deadline=None)
def test_powers_and_second_moments_of_any_series_equal_the_polynomials_own(values):
    series = exact(values)
    assert polynomial(power(series, 3)) == sympy.expand(polynomial(series) ** 3)
    assert mean_product(series, series) == gaussian_mean(polynomial(series) ** 2)


@pytest.mark.parametrize(
    ("link", "ie", "ge", "table"),
    [
        ("He3", 3, 1, [3, 2, 1, 2, 1, 2]),
        ("He4", 4, 2, [4, 2, 2, 2, 2, 2]),
        ("He2", 2, 2, [2, 2, 2, 2, 2, 2]),
        ("He3 + 0.5*He4", 3, 1, [3, 1, 1, 1, 1, 1]),
        ("z^3 - 3*z", 3, 1, [3, 2, 1, 2, 1, 2]),
        ("1 - 2He2/3", 2, 2, [2, 2, 2, 2, 2, 2]),
        ("He5 - He5 + z", 1, 1, [1, 2, 1, 2, 1, 2]),
    ],
)
def test_exponents_of_known_links(link, ie, ge, table):
    series = parse_link(link)
    assert information_exponent(series) == ie
    assert generative_exponent(series) == ge
    assert exponents_of_powers(series, 6) == table


@given(small_series)
@settings(max_examples=60, deadline=None)
def test_the_generative_exponent_is_the_least_of_the_powers_and_tells_even_links(values):
    series = exact(values)
    least = min(e for e in exponents_of_powers(series, 5) if e is not None)
    assert generative_exponent(series) == least == (2 if is_even(series) else 1)


def test_weights_are_read_exactly():
    assert parse_link("0.1He3+1/3*He1-2") == (Fraction(-2), Fraction(1, 3), Fraction(0), Fraction(1, 10))
    assert parse_link("z^2") == (Fraction(1), Fraction(0), Fraction(1))


@pytest.mark.parametrize(
    "text", ["", "3", "He0", "foo", "He3 He4", "He3 +", "He13", "He3/0", "1/0*He3", "He3-He3", "He-3"]
)
def test_links_that_cannot_be_used_are_refused_with_an_example(text):
    with pytest.raises(RequestError) as caught:
        parse_link(text)
    assert "--link" in caught.value.hint
