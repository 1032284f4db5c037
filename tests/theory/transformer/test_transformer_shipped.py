import pytest

from tttab.theory.transformer.adapt import TaskTraining
from tttab.theory.transformer.paper_a import WarmColdSettings, warm_cold_rows
from tttab.theory.transformer.paper_b import ContextSettings, context_rows
from tttab.theory.transformer.store import SHIPPED, open_file, shipped_path

MODELS = [("A", 60), ("B", 4), ("B", 8), ("B", 16)]


@pytest.mark.parametrize(("paper", "d"), MODELS)
def test_a_small_checkpoint_ships_for_each_paper(paper, d):
    path = shipped_path(paper, d)
    assert path.stat().st_size < 1_500_000
    opened = open_file(path)
    assert opened.source == "shipped"
    assert opened.settings.law.d == d
    assert len(list(SHIPPED.glob("*.safetensors"))) == len(MODELS)


def test_the_linear_checkpoint_reads_its_context():
    settings = WarmColdSettings(k=(), tasks=32)
    (row,) = warm_cold_rows(open_file(shipped_path("A", 60)), settings)
    assert row["best_linear"] < row["loss_same"] < 0.8
    assert row["loss_fresh"] == pytest.approx(row["loss_same"], abs=0.1)


def test_on_fresh_contexts_the_cold_start_overtakes_and_on_the_trained_one_it_does_not():
    settings = WarmColdSettings(k=(96, 256), tasks=2)
    rows = {
        (row["start"], row["k"]): row for row in warm_cold_rows(open_file(shipped_path("A", 60)), settings)
    }
    short, long = rows["cold", 96], rows["cold", 256]
    assert short["lead"] < 0 < long["lead"]
    assert long["loss_same"] > rows["warm", 256]["loss_same"]


def test_the_single_index_checkpoint_reads_its_context_in_distribution_only():
    settings = ContextSettings((16, 64), ("none", "c=1"), (), tasks=48, how=TaskTraining(steps=0))
    rows = {
        (row["shift"], row["n"]): row["median"]
        for row in context_rows(open_file(shipped_path("B", 4)), settings)
    }
    assert rows["none", 64] < 0.7 * rows["none", 16]
    assert rows["none", 64] < 0.5
    assert rows["c=1", 64] > 2 * rows["none", 64]
