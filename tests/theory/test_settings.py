"""Settings are options: order, choices, bounds and lists, for Python and for the command line alike."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from tttab.cli.setting_options import parsed
from tttab.errors import RequestError
from tttab.theory.experiment import Settings, WrongOption, option, options, required


@dataclass(frozen=True, kw_only=True)
class Shared(Settings):
    """What two experiments share."""

    seed: int = option(0, "Seed.")
    size: int = option(10, "Size.", low=1)


@dataclass(frozen=True, kw_only=True)
class Other(Settings):
    """A second base."""

    rate: float = option(0.5, "Rate", unit="1/s", low=0, high=1, strict=True)


@dataclass(frozen=True, kw_only=True)
class Mixed(Shared, Other):
    """Every kind of field."""

    paper: Literal["A", "B"] = field(metadata=required("Paper."))
    names: tuple[Literal["one", "two"], ...] = option(("one", "two"), "Names.")
    counts: tuple[int, ...] = option((), "Counts.", low=1)
    levels: tuple[float, ...] = option((0.25, 1.0), "Levels.", low=0)
    kind: Literal["x", "y"] | None = option(None, "Kind.")
    file: Path | None = option(None, "File.")
    size: int = option(20, "Size.", low=1)
    points: int = 3
    """For Python alone."""


BY_NAME = {item.name: item for item in options(Mixed)}


def typed(**changes):
    values = {"paper": "A", "names": "one,two", "counts": "", "levels": "0.25,1", "kind": None, "file": None}
    return parsed(Mixed, values | {"size": 20, "seed": 0, "rate": 0.5} | changes)


def test_own_options_come_first_then_those_of_each_base_where_they_were_first_declared():
    assert list(BY_NAME) == [
        *("paper", "names", "counts", "levels", "kind", "file"),
        *("seed", "size", "rate"),
    ]


def test_an_option_knows_its_type_its_choices_and_its_default():
    assert (BY_NAME["names"].kind, BY_NAME["names"].many) == (str, True)
    assert BY_NAME["names"].choices == ("one", "two")
    assert (BY_NAME["kind"].choices, BY_NAME["kind"].optional) == (("x", "y"), True)
    assert (BY_NAME["file"].kind, BY_NAME["file"].optional) == (Path, True)
    assert BY_NAME["paper"].default is MISSING
    assert BY_NAME["size"].default == 20
    assert BY_NAME["levels"].text((0.25, 1.0)) == "0.25,1"


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"paper": "C"}, "unknown paper C; there are A and B", "--paper A"),
        ({"kind": "z"}, "unknown kind z; there are x and y", "--kind x"),
        ({"names": ("one", "six")}, "unknown names six; there are one and two", "--names one,two"),
        ({"size": 0}, "--size must be at least 1, got 0", "--size 20"),
        ({"counts": (3, 0)}, "--counts must be at least 1, got 0", "--counts 64,128,256"),
        ({"levels": (-1.0,)}, "--levels must be at least 0, got -1", "--levels 0.25,1"),
        ({"levels": (float("inf"),)}, "--levels must be at least 0, got inf", "--levels 0.25,1"),
        (
            {"rate": 1.0},
            "--rate must be greater than 0 1/s and less than 1 1/s, got 1",
            "--rate 0.5",
        ),
        ({"rate": float("nan")}, "greater than 0 1/s and less than 1 1/s, got nan", "--rate 0.5"),
    ],
)
def test_settings_refuse_what_does_not_fit_and_say_what_does(changes, message, hint):
    with pytest.raises(RequestError) as caught:
        Mixed(**{"paper": "A", **changes})
    assert caught.value.message.endswith(message)
    assert caught.value.hint == hint


def test_lists_with_commas_become_tuples():
    assert typed() == Mixed(paper="A")
    found = typed(names=" two , one", counts="4, 8", levels="1e-2")
    assert found == Mixed(paper="A", names=("two", "one"), counts=(4, 8), levels=(0.01,))


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"levels": "1,x"}, "--levels takes numbers with commas, not 1,x", "--levels 0.25,1"),
        ({"levels": ""}, "--levels takes at least one finite number", "--levels 0.25,1"),
        ({"levels": "nan"}, "--levels takes at least one finite number", "--levels 0.25,1"),
        ({"counts": "four"}, "--counts takes numbers with commas, not four", "--counts 64,128,256"),
        ({"counts": "2.6,4"}, "--counts takes whole numbers of at least 1, got 2.6,4", "--counts 3,4"),
        ({"counts": "0"}, "--counts takes whole numbers of at least 1, got 0", "--counts 1"),
        ({"names": ""}, "unknown names ; there are one and two", "--names one,two"),
    ],
)
def test_lists_that_cannot_be_read_are_refused_with_one_that_can(changes, message, hint):
    with pytest.raises(RequestError) as caught:
        typed(**changes)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_an_option_that_does_not_fit_the_others_names_those_that_do():
    error = WrongOption("d = 4, not 8", d=4, paper="B")
    assert (error.hint, error.changes) == ("--d 4 --paper B", {"d": 4, "paper": "B"})
