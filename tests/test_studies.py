"""The studies run on the benchmark's store and go on where they stopped; committed rows give the tables."""

from __future__ import annotations

import lzma
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from studies import engine
from studies.__main__ import main
from tttab.bench.records import Cell
from tttab.bench.store import Contents, read_store

ROOT = Path(__file__).parent.parent
WEIGHTS = ROOT / "tttab" / "models" / "weights"
COMMITTED = pytest.mark.skipif(not (ROOT / "results").exists(), reason="an sdist has no results")


class Here(engine.Opened):
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def measure(self, arm: str) -> engine.Figures:
        if arm == "broken":
            raise ValueError("no\nluck")
        return engine.Figures({"accuracy": self.seed / 10, "process": os.getpid()}, {"adapt": 1.0}, steps=3)


@dataclass(frozen=True)
class MadeUp(engine.Study):
    name: ClassVar[str] = "made-up"
    seeds: int = 2
    arms: tuple[str, ...] = ("one", "two")
    apart: bool = False

    def cells(self) -> Iterator[Cell]:
        for seed in range(self.seeds):
            yield from (self.keyed(Cell("table", seed, 5, 0, arm, "", "abc", "m 12")) for arm in self.arms)

    def rows_of(self, cell: Cell) -> str:
        return f"rows {cell.seed}"

    def open(self, cell: Cell) -> Here:
        return Here(cell.seed)

    def summary(self, contents: Contents) -> str:
        return str(len(contents.done))


def run(study, folder):
    return [(record.cell.seed, record.cell.arm) for record in engine.run(study, folder)]


def test_what_is_there_is_not_run_again_and_what_is_new_is(tmp_path):
    assert run(MadeUp(), tmp_path) == [(0, "one"), (0, "two"), (1, "one"), (1, "two")]
    assert run(MadeUp(), tmp_path) == []
    assert run(MadeUp(seeds=3, arms=("one",)), tmp_path) == [(2, "one")]
    record = engine.read(tmp_path).done[next(MadeUp().cells()).place]
    assert (record.row.metrics["accuracy"], record.row.seconds, record.row.steps) == (0.0, {"adapt": 1.0}, 3)
    assert record.row.identity == {
        "study": "made-up",
        "table": "abc",
        "split": {"seed": 0, "n": 5, "k": 0, "rows": "rows 0"},
        "model": "12",
        "arm": "one",
        "recipe": "",
    }


def test_a_cell_that_failed_says_why_leaves_the_others_and_is_tried_again(tmp_path):
    study = MadeUp(seeds=1, arms=("broken", "one"))
    run(study, tmp_path)
    contents = engine.read(tmp_path)
    assert [record.row.error for record in contents.failed.values()] == ["ValueError: no luck"]
    assert [record.cell.arm for record in contents.done.values()] == ["one"]
    assert run(study, tmp_path) == [(0, "broken")]


def test_a_packed_store_is_read_and_gone_on_with(tmp_path):
    run(MadeUp(), tmp_path)
    (file,) = tmp_path.glob("cells-*.jsonl")
    file.with_suffix(".jsonl.xz").write_bytes(lzma.compress(file.read_bytes()))
    file.unlink()
    assert not read_store(tmp_path).done  # the benchmark reads none: only studies are packed
    assert run(MadeUp(seeds=3), tmp_path) == [(2, "one"), (2, "two")]
    assert len(engine.read(tmp_path).done) == 6


def test_apart_means_a_process_for_every_cell(tmp_path):
    study = MadeUp(seeds=1, apart=True)
    run(study, tmp_path)
    processes = {record.row.metrics["process"] for record in engine.read(tmp_path).done.values()}
    assert len(processes | {os.getpid()}) == 3


def printed(capsys, *words):
    main([*words, "--summary"])
    return capsys.readouterr().out


@COMMITTED
@pytest.mark.parametrize("folder", ["rules", "rules-memory"])
def test_committed_rows_of_rules_give_the_committed_tables(folder, capsys):
    out = ROOT / "results" / folder
    assert printed(capsys, "rules", "--out", str(out)) == (out / "rules.md").read_text(encoding="utf-8")


@COMMITTED
@pytest.mark.parametrize(("study", "card"), [("checkpoint", "classifier"), ("regression", "regressor")])
def test_committed_rows_give_the_tables_of_the_cards(study, card, capsys):
    text = (WEIGHTS / f"tttab-tiny-{card}.md").read_text(encoding="utf-8")
    table = printed(capsys, study)
    assert len(re.findall(r"^\|", table, re.MULTILINE)) > 9
    assert table in text


@COMMITTED
@pytest.mark.parametrize(
    "path", sorted((ROOT / "results").rglob(engine.PACKED)), ids=lambda path: path.parent.name
)
def test_committed_stores_hold_no_damaged_line(path):
    contents = engine.read(path.parent)
    assert contents.done
    assert not contents.damaged
    assert not contents.failed


def test_means_by_kind_are_over_tables_that_every_arm_has(tmp_path, capsys):
    tables = tmp_path / "tables"
    tables.mkdir()
    noise = np.random.default_rng(0)
    for name, columns in (("narrow", 3), ("broad", 41)):
        x = pd.DataFrame(noise.normal(size=(90, columns))).add_prefix("a")
        x.assign(target=np.where(x["a0"] > 0, "yes", "no")).to_parquet(tables / f"{name}.parquet")
    words = ["checkpoint", "--tables", str(tables), "--sizes", "30", "--out", str(tmp_path / "rows")]
    main([*words, "--seeds", "2", "--arms", "logistic"])
    main([*words, "--seeds", "1", "--arms", "forest"])
    (tables / "broad.parquet").rename(tables / "wider.parquet")
    capsys.readouterr()
    lines = printed(capsys, *words, "--by-kind").strip().splitlines()
    by_kind = {cells[1].strip(): cells[2:-1] for cells in (line.split("|") for line in lines[2:])}
    assert set(by_kind) == {"numbers", "all"} and by_kind["numbers"][:2] == [" 30 ", " 1 "]
    by_table = printed(capsys, *words)
    assert by_kind["all"][2:] == next(
        line.split("|")[4:-1] for line in by_table.splitlines() if "| narrow |" in line
    )


def test_numbers_are_predicted_beside_models_of_numbers(tmp_path, capsys):
    tables = tmp_path / "tables"
    tables.mkdir()
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 2)), columns=["a", "b"])
    x.assign(target=3 * x["a"] - x["b"]).to_parquet(tables / "straight.parquet")
    words = [
        "checkpoint",
        "--tables",
        str(tables),
        "--sizes",
        "60",
        "--seeds",
        "1",
        "--out",
        str(tmp_path / "rows"),
    ]
    main([*words, "--arms", "ridge,forest", "--model", str(WEIGHTS / "tttab-tiny-regressor.safetensors")])
    head, _, row = capsys.readouterr().out.strip().splitlines()
    found = dict(zip(head.split("|"), row.split("|"), strict=True))
    assert float(found[" ridge "]) > 0.99 > float(found[" forest "]) > 0.5


def test_advice_is_judged_by_figures_that_hand_made_units_have():
    from studies import advice

    gain, n = np.array([0.0, 0.1, 0.2, 0.0, 0.3, 0.1]), np.array([50, 50, 50, 200, 200, 200])
    said = np.array([0.1, 0.2, 0.3, 0.0, 0.1, 0.2])
    assert advice.rank_within(said, gain, n) == pytest.approx((1.0 + 0.5) / 2)
    assert advice.area(said, gain < advice.SMALL) == pytest.approx((3.5 + 4) / 8)
    assert advice.regret(np.ones(6), gain) == pytest.approx(2 * advice.SMALL / 6)
    promised = advice.Evidence(100, 0.5, 0.03, 0.05, 0.0), advice.Evidence(100, 0.5, -0.3, 0.05, 0.0)
    assert [*map(advice.expected, promised)] == pytest.approx([0.08 * advice.WEIGHT, 0.05 * advice.WEIGHT])
    assert advice.expected(advice.Evidence(100, 0.5, 3.0, 0.0, 0.0)) == 0.5
    assert advice.regret(np.zeros(6), gain) == pytest.approx((0.7 - 4 * advice.SMALL) / 6)


@COMMITTED
def test_the_advices_constants_are_what_its_committed_units_give():
    from studies import advice

    assert advice.chosen() == f"WEIGHT = {advice.WEIGHT}\nRESIDUALS = {advice.RESIDUALS}"
    assert "Tables that played no part" in advice.report()
