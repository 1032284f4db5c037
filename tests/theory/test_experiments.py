"""The contract of every experiment in the registry, and that one object there is all that a new one needs."""

from __future__ import annotations

import io
import json
import shlex
from dataclasses import MISSING, dataclass
from functools import cache

import pytest
import typer
import typer.main
from rich.console import Console

from tttab.cli import output
from tttab.cli.commands.theory import register
from tttab.cli.experiment_output import show
from tttab.cli.invocation import words
from tttab.cli.setting_options import parsed
from tttab.errors import BadAnswer
from tttab.theory.experiment import PAPER_A, Experiment, Settings, option, options
from tttab.theory.plots import Panel, Series, column, draw
from tttab.theory.registry import EXPERIMENTS

EVERY = pytest.mark.parametrize("experiment", EXPERIMENTS.values(), ids=lambda experiment: experiment.name)


def run_of(experiment, settings):
    return [row for row in experiment.rows(settings) if isinstance(row, dict)]


@pytest.fixture(scope="module")
def runs():
    """The rows of each of an experiment's quick settings, computed once."""
    found = {}

    def get(experiment):
        if experiment.name not in found:
            found[experiment.name] = [run_of(experiment, settings) for settings in experiment.quick]
        return found[experiment.name]

    return get


@cache
def commands():
    app = typer.Typer()
    register(app)
    return typer.main.get_command(app).commands


def settings_of(experiment, arguments):
    """The settings that the command makes of its arguments."""
    command = commands()[experiment.name]
    context = command.make_context(experiment.name, shlex.split(arguments))
    return parsed(experiment.settings, context.params), context.params


@EVERY
def test_rows_have_exactly_the_declared_columns_and_name_their_experiment(experiment, runs):
    rows = [row for run in runs(experiment) for row in run]
    assert tuple(dict.fromkeys(name for row in rows for name in row)) == experiment.columns
    assert {row["experiment"] for row in rows} == {experiment.name}


@EVERY
def test_equal_seeds_give_equal_rows_as_plain_data(experiment, runs):
    for settings, rows in zip(experiment.quick, runs(experiment), strict=True):
        assert run_of(experiment, settings) == rows == [json.loads(json.dumps(row)) for row in rows]


@EVERY
def test_tables_show_fields_that_are_there(experiment, runs):
    for rows in runs(experiment):
        tables = experiment.tables_of(rows)
        assert tables
        for table in tables:
            assert table.title and table.rows
            assert len(set(table.columns)) == len(table.columns)
            assert set(table.columns) <= {name for row in table.rows for name in row}


@EVERY
def test_every_table_ends_in_a_sentence_and_fits_100_columns(experiment, runs, monkeypatch):
    for rows in runs(experiment):
        for table in experiment.tables_of(rows):
            stream = io.StringIO()
            terminal = Console(file=stream, width=100, force_terminal=True, color_system=None)
            monkeypatch.setattr(output, "stdout", lambda terminal=terminal: terminal)
            monkeypatch.setitem(show.__globals__, "stdout", lambda terminal=terminal: terminal)
            show(table)
            lines = stream.getvalue().splitlines()
            assert "\N{HORIZONTAL ELLIPSIS}" not in stream.getvalue()
            assert max(map(len, lines[:-1])) <= 100
            words = set(stream.getvalue().split())
            assert {part for name in table.columns for part in name.replace(" ", "_").split("_")} <= words
            assert lines[-1] == table.remark
            assert any(letter.isdigit() for letter in table.remark)


@pytest.mark.parametrize("experiment", [e for e in EXPERIMENTS.values() if e.panels], ids=lambda e: e.name)
def test_the_figure_is_drawn_from_rows_that_were_written_and_read(experiment, runs, tmp_path):
    for rows in runs(experiment):
        stored = json.loads(json.dumps(rows))
        panels = experiment.panels(stored)
        series = [series for panel in panels for series in panel.series]
        assert any(len(one.x) for one in series)
        assert all(len(one.x) == len(one.y) for one in series)
        draw(panels, tmp_path / "figure.svg", experiment.title_of(stored))
        assert "<svg" in (tmp_path / "figure.svg").read_text(encoding="utf-8")[:1000]


@pytest.mark.parametrize("experiment", [e for e in EXPERIMENTS.values() if e.total], ids=lambda e: e.name)
def test_the_number_of_rows_to_come_is_right(experiment, runs):
    assert [experiment.total(settings) for settings in experiment.quick] == [*map(len, runs(experiment))]


@EVERY
def test_the_command_has_an_option_for_every_field_and_its_defaults(experiment):
    command = commands()[experiment.name]
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {item.flag for item in options(experiment.settings)} <= flags
    assert "--json" in flags
    assert ("--plot" in flags) is (experiment.panels is not None)
    needed = [item for item in options(experiment.settings) if item.default is MISSING]
    typed = " ".join(item.example for item in needed)
    by_command, _ = settings_of(experiment, typed)
    assert by_command == experiment.settings(**{item.name: getattr(by_command, item.name) for item in needed})


@EVERY
def test_every_option_reaches_the_settings(experiment):
    settings = experiment.quick[0]
    for item in options(experiment.settings):
        value = getattr(settings, item.name)
        if item.kind is bool or value in (None, ()):
            continue
        needed = [o for o in options(experiment.settings) if o.default is MISSING and o.name != item.name]
        typed = [part for o in needed for part in (o.flag, o.text(getattr(settings, o.name)))]
        by_command, _ = settings_of(experiment, shlex.join([*typed, item.flag, item.text(value)]))
        assert getattr(by_command, item.name) == value


@EVERY
def test_the_example_is_a_command_that_fits(experiment):
    settings, params = settings_of(experiment, experiment.example)
    assert isinstance(settings, experiment.settings)
    if params.get("plot"):
        assert params["plot"].suffix in (".svg", ".png")


def test_names_are_different_and_the_help_lists_every_one():
    assert list(commands()) == [*EXPERIMENTS, "all"]
    assert all(experiment.name == name for name, experiment in EXPERIMENTS.items())


@dataclass(frozen=True, kw_only=True)
class CubeSettings(Settings):
    """The numbers to take to the third power."""

    x: tuple[float, ...] = option((1.0, 2.0), "Numbers, with commas.")
    wrong: bool = option(False, "Disagree.", switch=True)


def cubes(settings):
    for x in settings.x:
        yield {"experiment": "cube", "x": x, "y": x**3, "agrees": not settings.wrong}


CUBE = Experiment(
    name="cube",
    help="Third powers.",
    example="--x 1,2",
    group=PAPER_A,
    settings=CubeSettings,
    rows=cubes,
    columns=("experiment", "x", "y", "agrees"),
    quick=(CubeSettings(),),
    panels=lambda rows: [Panel("cubes", "x", "y", [Series("y", column(rows, "x"), column(rows, "y"))])],
    retry=lambda settings: {"x": 3},
)


@pytest.fixture
def app(monkeypatch):
    """`tttab theory` with one more experiment."""
    monkeypatch.setitem(EXPERIMENTS, "cube", CUBE)
    theory = typer.Typer()
    register(theory)
    return theory


def test_one_object_gives_a_command_a_table_and_a_figure(app, tmp_path, capsys):
    plot = tmp_path / "cube.svg"
    app(["cube", "--x", "2,3", "--plot", str(plot)], standalone_mode=False)
    printed = capsys.readouterr()
    assert printed.out.splitlines() == ["experiment\tx\ty\tagrees", "cube\t2\t8\tTrue", "cube\t3\t27\tTrue"]
    assert printed.err == f"figure: {plot}\n"
    assert "cubes" in plot.read_text(encoding="utf-8")
    app(["cube", "--json"], standalone_mode=False)
    assert [json.loads(line)["y"] for line in capsys.readouterr().out.splitlines()] == [1, 8]
    app(["--help"], standalone_mode=False)
    assert "Third powers." in capsys.readouterr().out
    app(["cube", "--help"], standalone_mode=False)
    help_text = capsys.readouterr().out
    assert "Numbers, with commas." in help_text and "1,2" in help_text
    assert "tttab theory cube --x 1,2" in help_text


def test_rows_that_disagree_end_it_with_the_next_command(app, monkeypatch, capsys):
    words[:] = ["theory", "cube", "--x", "2", "--wrong"]
    with pytest.raises(BadAnswer, match="1 of 1 rows disagree") as caught:
        app(["cube", "--x", "2", "--wrong"], standalone_mode=False)
    assert caught.value.hint == "tttab theory cube --wrong --x 3"
    assert "DISAGREES" in capsys.readouterr().out
