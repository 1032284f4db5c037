"""Experiment: information and generative exponent of a polynomial link, by exact algebra."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tttab.theory.experiment import PAPER_B, Experiment, Row, Settings, Table, option
from tttab.theory.single_index.hermite import (
    exponents_of_powers,
    generative_exponent,
    information_exponent,
    is_even,
    parse_link,
)
from tttab.theory.single_index.settings import LINK


@dataclass(frozen=True, kw_only=True)
class ExponentsSettings(Settings):
    """The link and how many of its powers."""

    link: str = option("He3 + 0.5*He4", LINK)
    powers: int = option(6, "Largest power j in the table of ie(s^j).", low=1, high=12)


def exponents(settings: ExponentsSettings) -> Iterator[Row]:
    """Yield one row per power j of the link s with the information exponent of s^j.

    `ie` and `ge` are the link's own exponents, the same in every row.
    """
    series = parse_link(settings.link)
    facts = {"ie": information_exponent(series), "ge": generative_exponent(series)}
    for j, exponent in enumerate(exponents_of_powers(series, settings.powers), start=1):
        yield {"experiment": "exponents", "link": settings.link, **facts, "j": j, "ie_of_power": exponent}


def tables(rows: Sequence[Row]) -> list[Table]:
    """Return the exponents of the powers, and below them those of the link."""
    first = rows[0]
    even = is_even(parse_link(first["link"]))
    parity = "even: no function of s has a first Hermite weight" if even else "not even"
    shown = [{"j": row["j"], "ie(s^j)": row["ie_of_power"]} for row in rows]
    remark = f"ie = {first['ie']}, ge = {first['ge']} ({parity})"
    return [Table(first["link"], ("j", "ie(s^j)"), shown, remark)]


EXPERIMENT = Experiment(
    name="exponents",
    help="Information and generative exponent of a polynomial link, by exact algebra.",
    example="--link 'He3 + 0.5*He4'",
    group=PAPER_B,
    settings=ExponentsSettings,
    rows=exponents,
    columns=("experiment", "link", "ie", "ge", "j", "ie_of_power"),
    quick=(ExponentsSettings(powers=3),),
    tables=tables,
)
