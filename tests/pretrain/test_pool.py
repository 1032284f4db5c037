"""tabicl's tables arrive through files, in order, repeatably, and survive a dead worker."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from tttab.errors import RequestError
from tttab.pretrain.draw import Draw
from tttab.pretrain.loop import Run, Trainer
from tttab.pretrain.pool import (
    PER_FILE,
    Pool,
    Workers,
    _work,
    fill,
    made_apart,
    read_file,
    wait_for,
    write_file,
)
from tttab.pretrain.prior import Size, batch
from tttab.pretrain.settings import Budget, PoolUse, recipe

CPU = torch.device("cpu")
USE = PoolUse(rows=80, features=(2, 3, 5), at_least=1)


def _fake_file(folder, first, width, named, rows=80, seed=0):
    """Write a file as a worker would, without tabicl."""
    rng = np.random.default_rng([seed, first])
    content = {}
    for number in range(first, first + PER_FILE):
        content[f"x{number}"] = rng.normal(size=(rows, width)).astype(np.float16)
        y = rng.integers(0, 4, rows) if named else rng.normal(size=rows)
        content[f"y{number}"] = y.astype(np.float32)
        content[f"n{number}"] = np.array(named)
    np.savez(folder / f"tables-{first:08d}.npz", **content)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_batch_takes_its_share_from_the_pool(tmp_path, task):
    for number, (width, named) in enumerate([(3, False), (3, False), (3, True)]):
        _fake_file(tmp_path, PER_FILE * number, width, named)
    pool = Pool(tmp_path, USE, CPU, task == "regression")
    pool.take_in()
    assert pool.size == (8 if task == "regression" else 12)
    settings = recipe("nano", task)
    tables = batch(Draw(0, task), Size(10, 40, 20, 3, 5), settings, pool)
    assert tables.pooled == round(10 * settings.pool.share)
    assert tables.x.shape == (10, 60, 3)
    assert tables.y.isfinite().all()
    if task == "classification":
        assert int(tables.y.max()) < 5
        assert (tables.classes >= 1).all()


def test_batches_of_one_table_come_from_the_pool_as_often_as_its_share_says(tmp_path):
    for number in range(2):
        _fake_file(tmp_path, PER_FILE * number, 3, False)
    pool = Pool(tmp_path, USE, CPU, False)
    pool.take_in()
    settings = recipe("nano-kinds", "classification")
    taken = [batch(Draw(i), Size(1, 40, 20, 3, 5), settings, pool).pooled for i in range(150)]
    assert abs(sum(taken) / 150 - settings.pool.share) < 0.1


def test_a_batch_may_be_drawn_from_the_pool_alone(tmp_path):
    _fake_file(tmp_path, 0, 3, named=True)
    settings = replace(recipe("nano", "classification"), pool=replace(USE, share=1.0))
    pool = Pool(tmp_path, settings.pool, CPU, False)
    pool.take_in()
    tables = batch(Draw(0, "share"), Size(2, 40, 20, 3, 5), settings, pool)
    assert (tables.pooled, len(tables.x)) == (2, 2)


def test_tables_from_the_pool_are_measured_where_the_recipe_says_so(tmp_path):
    _fake_file(tmp_path, 0, 3, named=True)
    pool = Pool(tmp_path, USE, CPU, False)
    pool.take_in()
    repeats = {}
    for share in (0.0, 1.0):
        settings = replace(recipe("nano", "classification"), pool=replace(USE, share=1.0, measured=share))
        tables = batch(Draw(0, "measured"), Size(20, 40, 20, 3, 5), settings, pool).x
        distinct = [len(torch.unique(column)) for table in tables for column in table.T]
        repeats[share] = np.mean(np.array(distinct) <= 12)
    assert repeats[0.0] == 0.0
    assert repeats[1.0] > 0.1


def test_rows_and_labels_stay_together(tmp_path):
    """A pool table whose target is its first column: after the draw it still is."""
    x = np.linspace(-1, 1, 80, dtype=np.float16)[:, None].repeat(2, axis=1)
    np.savez(tmp_path / "tables-00000000.npz", x0=x, y0=x[:, 0].astype(np.float32), n0=np.array(False))
    pool = Pool(tmp_path, USE, CPU, True)
    pool.take_in()
    drawn_x, drawn_y, named = pool.draw(Draw(1), 4, 50, 2)
    assert not named.any()
    torch.testing.assert_close(drawn_x[..., 0], drawn_y)
    assert len(torch.unique(drawn_y[0])) == 50  # no row twice


def test_tables_are_taken_in_order_and_no_further_than_asked(tmp_path):
    for number in (0, 1, 3):
        _fake_file(tmp_path, PER_FILE * number, 2, False)
    pool = Pool(tmp_path, USE, CPU, False)
    pool.take_in(1)
    assert pool.seen == PER_FILE
    pool.take_in()
    assert pool.seen == 2 * PER_FILE  # the third file has not arrived, so the fourth waits


def test_longer_tables_are_cut_and_shorter_ones_refused(tmp_path):
    _fake_file(tmp_path, 0, 2, False, rows=USE.rows + 7)
    pool = Pool(tmp_path, USE, CPU, False)
    pool.take_in()
    drawn_x, drawn_y, _ = pool.draw(Draw(0), 4, USE.rows, 2)
    assert drawn_x.shape == (4, USE.rows, 2)
    assert drawn_y.shape == (4, USE.rows)
    _fake_file(tmp_path, PER_FILE, 2, False, rows=USE.rows - 1)
    with pytest.raises(RequestError, match="tables of 79 rows, 80 are needed"):
        pool.take_in()


def test_waiting_for_tables_that_nobody_makes_is_refused(tmp_path):
    _fake_file(tmp_path, 0, 2, False)
    pool = Pool(tmp_path, USE, CPU, False)
    with Workers(tmp_path, 0, 0, USE) as workers:
        wait_for(pool, PER_FILE, workers)
        with pytest.raises(RequestError, match="5 are needed"):
            wait_for(pool, PER_FILE + 1, workers)


def test_waiting_ends_when_the_workers_have_died_too_often(tmp_path):
    pytest.importorskip("tabicl.prior")
    with Workers(tmp_path, 0, 1, USE) as workers:
        workers.restarts = 20
        os.kill(workers._processes[0].pid, signal.SIGKILL)
        with pytest.raises(RequestError, match="died 20 times"):
            wait_for(Pool(tmp_path, USE, CPU, False), 1, workers)


def test_a_worker_ends_with_its_trainer_and_not_only_under_process_one(tmp_path, monkeypatch):
    monkeypatch.setattr("tttab.pretrain.pool.write_file", lambda *_: pytest.fail("made a table"))
    monkeypatch.setattr("tttab.pretrain.pool.os.nice", lambda _: 0)
    before = signal.getsignal(signal.SIGINT)
    try:
        _work(os.getppid() + 1, str(tmp_path), 0, 0, 1, USE)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A folder that one worker filled until it was left alone."""
    pytest.importorskip("tabicl.prior")
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONHASHSEED", "7")
        filling = fill(folder, 0, 1, USE, minutes=9)
        assert any(files > 1 for files in filling)
        filling.close()
    return folder


def test_a_folder_is_filled_until_it_is_left_alone(filled):
    assert not multiprocessing.active_children()
    pool = Pool(filled, USE, CPU, False)
    pool.take_in()
    assert pool.seen >= 2 * PER_FILE


def test_no_table_of_the_width_means_no_pool_rows(tmp_path):
    _fake_file(tmp_path, 0, 2, False)
    pool = Pool(tmp_path, USE, CPU, False)
    pool.take_in()
    assert pool.draw(Draw(0), 4, 50, 5) is None
    assert pool.draw(Draw(0), 4, 50, 9) is None


def test_equal_numbers_give_equal_tables_in_every_run(filled):
    """In the process that wrote the folder and in another one."""
    again = list(islice(made_apart(0, USE), PER_FILE))
    assert {"graph_scm"} < {kind for kind, _ in again}
    with np.load(filled / "tables-00000000.npz") as written:
        assert {name for name in written.files if name[0] == "x"} == {
            f"x{number}" for number, (_, table) in enumerate(again) if table is not None
        }
        for number, (_, table) in enumerate(again):
            if table is not None:
                np.testing.assert_array_equal(written[f"x{number}"], table.x)
                np.testing.assert_array_equal(written[f"y{number}"], table.y)


def test_files_hold_tables_with_signal_only(tmp_path):
    pytest.importorskip("tabicl.prior")
    tables = list(read_file(write_file(tmp_path, 0, 0, USE)))
    assert len(tables) <= PER_FILE
    for table in tables:
        assert table.x.shape[0] == USE.rows
        assert np.isfinite(table.y).all()


@pytest.mark.timeout(120)
def test_a_dead_worker_is_replaced(tmp_path):
    pytest.importorskip("tabicl.prior")
    pool = Pool(tmp_path, USE, CPU, False)
    with Workers(tmp_path, 0, 1, USE) as workers:
        victim = workers._processes[0]
        os.kill(victim.pid, signal.SIGKILL)
        victim.join(10)
        waited = wait_for(pool, 1, workers)
        assert workers.restarts == 1
        assert waited > 0
        survivor = workers._processes[0]
    deadline = time.monotonic() + 10
    while survivor.is_alive() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not survivor.is_alive()


def test_with_a_step_budget_the_first_tables_are_awaited_and_more_with_every_step(tmp_path):
    tiny = recipe("tiny", "classification")
    use = replace(USE, share=0.5, at_first=2 * PER_FILE, per_step=PER_FILE / 2)
    (tmp_path / "pool").mkdir()
    for number in range(3):
        _fake_file(tmp_path / "pool", PER_FILE * number, 3, False)
    run = Run(replace(tiny, pool=use), Budget(steps=9), tmp_path / "out", pool_folder=tmp_path / "pool")
    with Workers(tmp_path / "pool", 0, 0, use) as workers:
        trainer = Trainer(run, workers)
        seen = []
        for _ in range(3):
            trainer.step()
            seen.append(trainer._pool.seen)
        assert seen == [8, 12, 12]
        with pytest.raises(RequestError, match="the pool has 12 tables, 14 are needed"):
            trainer.step()
