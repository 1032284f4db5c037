"""The public table: its protocol on stand-ins, and a check that says which figure is not ours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from tests.support.bench_fakes import cell, record
from tttab.bench import BenchRequest, Engine, plan_tables, reference, start
from tttab.bench.reference import FIGURES, NS, Comparison, coded, compare, reference_split
from tttab.cli import run
from tttab.data import catalog, load_table
from tttab.errors import RequestError, SplitError

RNG = np.random.default_rng(5)
ROWS = 300


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    """A table of 300 rows with texts and gaps in place of one of the eight."""
    y = RNG.integers(0, 2, ROWS)
    size = np.where(RNG.random(ROWS) < 0.2, np.nan, y + RNG.normal(0, 0.5, ROWS))
    frame = pd.DataFrame(
        {"size": size, "colour": np.array(["b", "a", "c"])[RNG.integers(0, 3, ROWS)], "y": y}
    )
    path = tmp_path_factory.mktemp("tables") / "adult.csv"
    frame.to_csv(path, index=False)
    return path


def test_the_suite_names_the_tables_that_have_figures():
    assert {entry.name for entry in catalog().suite("reference")} == set(FIGURES)
    assert all(list(areas) == sorted(areas) for areas in FIGURES.values()), "more context, more area"
    assert FIGURES["covertype"][NS.index(10_000)] == 0.9780


def test_rows_are_drawn_as_the_protocol_says():
    y = RNG.integers(0, 3, 1000)
    train, test = train_test_split(np.arange(1000), test_size=0.2, random_state=42)
    one, same, other = (reference_split(y, 100, seed, 3) for seed in (1, 1, 2))
    assert set(one.context) <= set(train)
    assert len(set(one.context)) == one.n == 100
    assert np.array_equal(one.test, test)
    assert one.k == 0
    assert np.array_equal(one.context, same.context)
    assert not np.array_equal(one.context, other.context)
    assert np.array_equal(one.test, other.test), "the split has one seed, the contexts several"
    assert len(reference_split(np.zeros(60_000, int), 100, 1, 1).test) == 10_000
    with pytest.raises(SplitError, match="800 rows are left to draw 801"):
        reference_split(y, 801, 1, 3)


def test_a_class_that_no_drawn_row_has_is_put_in():
    y = np.zeros(1000, int)
    train, _ = train_test_split(np.arange(1000), test_size=0.2, random_state=42)
    y[train[7]] = 1
    contexts = [reference_split(y, 20, seed, 2).context for seed in range(5)]
    assert all(train[7] in context and len(set(context)) == 20 for context in contexts)


def test_categories_become_codes_and_gaps_the_training_rows_median(stand_in):
    table = load_table(str(stand_in))
    ours = coded(table)
    train, _ = train_test_split(np.arange(ROWS), test_size=0.2, random_state=42)
    raw = pd.read_csv(stand_in)
    expected = raw["size"].fillna(raw["size"].iloc[train].median())
    assert np.allclose(ours.x["size"], expected)
    assert ours.x["colour"].tolist() == raw["colour"].map({"a": 0.0, "b": 1.0, "c": 2.0}).tolist()
    assert ours.fingerprint != table.fingerprint
    assert not ours.x.isna().any().any()


def request(stand_in, **more):
    given = {"ns": (20, 60), "arms": ("icl@n",), "seeds": (1, 2), "model": "tttab-tiny", "members": 1}
    return BenchRequest((str(stand_in),), protocol="reference", device="cpu", **given | more)


def test_cells_are_planned_measured_and_compared(stand_in, tmp_path, monkeypatch):
    asked = request(stand_in)
    (plan,) = plan_tables(asked)
    assert len(plan.cells) == 4
    records = list(start(plan.cells, asked, tmp_path / "store", Engine("local", jobs=1)))
    assert [found.failed for found in records] == [False] * 4
    areas = {n: [r.row.metrics["roc_auc"] for r in records if r.cell.n == n] for n in (20, 60)}
    assert all(record.row.identity["members"] == 1 for record in records)
    monkeypatch.setattr(reference, "NS", (20, 60))
    monkeypatch.setitem(FIGURES, str(stand_in), (float(np.mean(areas[20])) + 0.0099, 0.0, 0.0, 0.0))
    near, far = compare(records, [str(stand_in)], (20, 60))
    assert near.passes
    assert near.ours == pytest.approx(np.mean(areas[20]))
    assert near.seeds == 2
    assert not far.passes
    plain = BenchRequest((str(stand_in),), ns=(20,), arms=("icl@n",), seeds=(1,), model="tttab-tiny")
    (other,) = plan_tables(plain)
    assert other.cells[0].key not in {one.key for one in plan.cells}


@pytest.mark.parametrize(("ours", "passes"), [(0.91, True), (0.8901, True), (0.9102, False), (None, False)])
def test_a_figure_passes_within_a_hundredth(ours, passes):
    assert Comparison("adult", 1000, 0.90, ours, 4).passes is passes


def test_failed_cells_and_other_sizes_count_for_nothing():
    good = record(cell(table="adult", n=1000, arm="icl@n"))
    good = replace(good, row=replace(good.row, metrics={"roc_auc": 0.9}))
    bad = record(cell(table="adult", n=2500, arm="icl@n"), failed="no memory")
    found = list(compare([good, bad], ["adult", "unknown"], (1000, 1500)))
    assert [(line.table, line.n, line.ours, line.seeds) for line in found] == [("adult", 1000, 0.9, 1)]


def test_the_check_exits_1_with_the_figures_that_are_not_ours(tmp_path, capfd, monkeypatch, stand_in):
    from tttab.cli.commands import bench

    monkeypatch.setattr(bench, "_tables", lambda suite, datasets: (str(stand_in),))
    monkeypatch.setattr(reference, "NS", (20, 60))
    monkeypatch.setitem(FIGURES, str(stand_in), (0.0, 0.0, 0.0, 0.0))
    command = ["bench", "--suite", "reference", "--check", "--n", "20,60", "--seeds", "1", "--device", "cpu"]
    command += ["--model", "tttab-tiny", "--out", str(tmp_path / "store")]
    assert run(command) == 1
    captured = capfd.readouterr()
    assert "2 of 2 figures are not ours" in captured.err
    assert captured.out.count("differs") == 2
    area = next(line.split("\t")[3] for line in captured.out.splitlines() if line.endswith("differs"))
    monkeypatch.setitem(FIGURES, str(stand_in), (float(area), float(area), 0.0, 0.0))
    code = run([*command, "--n", "20"])
    captured = capfd.readouterr()
    assert code == 0, captured.err
    assert "All 1 figures are within 0.01" in captured.out + captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "offline", "--check"], "--check compares with a public table"),
        (["--check"], "--check compares with a public table"),
        (["--suite", "reference", "--arms", "ttt@n+k"], "the reference table has figures for icl@n alone"),
        (["--suite", "reference"], "is not on this machine"),
    ],
)
def test_what_cannot_be_checked_is_one_line(arguments, message, capfd, tmp_path, monkeypatch):
    monkeypatch.setattr("tttab.bench.plan.load", lambda name: pytest.fail("loaded"))
    if message.startswith("is not"):
        monkeypatch.setattr("tttab.bench.plan.load", lambda name: load_table("contraceptive"))
    assert run(["bench", *arguments, "--out", str(tmp_path / "store")]) == 2
    told = capfd.readouterr().err
    assert message in told
    assert "hint: " in told


def test_the_request_refuses_other_arms(stand_in):
    with pytest.raises(RequestError, match="has figures for icl@n alone"):
        request(stand_in, arms=("icl@n", "gbt")).check()
