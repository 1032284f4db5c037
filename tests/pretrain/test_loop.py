"""A short run learns, continues after a kill as if nothing had happened, and writes a file tabpfn loads."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tttab.errors import ModelError, RequestError
from tttab.pretrain import forward, held_out
from tttab.pretrain.curve import draw_curve, read_log
from tttab.pretrain.draw import Draw
from tttab.pretrain.loop import CURVE, LOG, MODEL, STATE, Run, Trainer, train
from tttab.pretrain.loss import loss_for
from tttab.pretrain.prior import Size, batch
from tttab.pretrain.settings import Budget, recipe

CPU = torch.device("cpu")
TASKS = ["classification", "regression"]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _run(tmp_path, task, steps, name="out", seed=0):
    return Run(recipe("tiny", task), Budget(steps=steps), tmp_path / name, seed, report_every=0.0)


def _tensors(path):
    from safetensors.torch import load_file

    return load_file(str(path))


def _held_out(trainer, settings):
    values = held_out.losses(trainer._network, settings, loss_for(settings, CPU), CPU)
    return np.mean(list(values.values()))


@pytest.mark.parametrize("task", TASKS)
def test_five_steps_lower_the_held_out_loss(tmp_path, task):
    run = _run(tmp_path, task, 5)
    trainer = Trainer(run, None)
    before = _held_out(trainer, run.recipe)
    for _ in range(5):
        trainer.step()
    assert _held_out(trainer, run.recipe) < before
    assert trainer.counters.skipped == 0


@pytest.mark.parametrize("task", TASKS)
def test_a_killed_run_continues_bit_by_bit(tmp_path, task):
    straight = Trainer(_run(tmp_path, task, 6, "straight"), None)
    for _ in range(6):
        straight.step()
    killed = Trainer(_run(tmp_path, task, 6), None)
    for _ in range(3):
        killed.step()
    killed.save()
    killed.step()  # lost: it comes after the last state
    resumed = Trainer(_run(tmp_path, task, 6), None)
    assert resumed.counters.step == 3
    while resumed.progress < 1.0:
        resumed.step()
    for name, value in straight._network.state_dict().items():
        assert torch.equal(value, resumed._network.state_dict()[name]), name
    assert resumed.counters.tables == straight.counters.tables


def test_equal_seeds_give_equal_files_and_others_do_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        list(train(_run(tmp_path, "classification", 2, name, seed)))
    a, b, c = (_tensors(tmp_path / name / MODEL) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


@pytest.mark.parametrize("task", TASKS)
def test_in_bfloat16_a_step_is_the_same_step_but_for_rounding(tmp_path, task, monkeypatch):
    monkeypatch.setattr("tttab.training.precision.has_bfloat16", lambda device: True)
    before = Trainer(_run(tmp_path, task, 6, "before"), None)
    moved = {}
    for precision in ("fp32", "bf16"):
        trainer = Trainer(replace(_run(tmp_path, task, 6, precision), precision=precision), None)
        for _ in range(5):
            trainer.step()
        parts = zip(trainer._network.parameters(), before._network.parameters(), strict=True)
        moved[precision] = torch.cat([(now - then).detach().flatten() for now, then in parts])
        assert trainer._network.state_dict()["blocks.0.mlp.0.weight"].dtype == torch.float32
    assert not torch.equal(moved["fp32"], moved["bf16"])
    assert torch.cosine_similarity(moved["fp32"], moved["bf16"], dim=0) > 0.9


def test_bfloat16_is_refused_where_the_hardware_lacks_it(tmp_path, monkeypatch):
    monkeypatch.setattr("tttab.training.precision.has_bfloat16", lambda device: False)
    with pytest.raises(RequestError, match="no fast bfloat16"):
        Trainer(replace(_run(tmp_path, "classification", 1), precision="bf16"), None)
    assert Trainer(_run(tmp_path, "classification", 1), None)._dtype == torch.float32


def test_a_state_of_other_settings_is_refused(tmp_path):
    list(train(_run(tmp_path, "classification", 1)))
    with pytest.raises(RequestError, match="other settings"):
        list(train(_run(tmp_path, "regression", 1)))


def test_a_finished_run_stays_as_it_is(tmp_path):
    run = _run(tmp_path, "classification", 2)
    list(train(run))
    before = _tensors(tmp_path / "out" / MODEL)
    assert [report.counters.step for report in train(run)] == [2]
    after = _tensors(tmp_path / "out" / MODEL)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_another_file_to_start_from_is_another_run(tmp_path):
    list(train(_run(tmp_path, "classification", 1)))
    run = _run(tmp_path, "classification", 1)
    with pytest.raises(RequestError, match="other settings"):
        list(train(replace(run, start_from=run.out / MODEL)))


def test_a_resumed_run_cuts_the_log_to_its_state(tmp_path):
    run = _run(tmp_path, "classification", 2)
    list(train(run))
    before = list(read_log(run.out / LOG))
    with open(run.out / LOG, "a") as stream:
        stream.write(json.dumps(before[-1] | {"step": 3}) + '\n{"cut off')
    list(train(run))
    assert list(read_log(run.out / LOG))[: len(before)] == before
    assert all(line["step"] <= 2 for line in read_log(run.out / LOG))


def test_log_and_plot(tmp_path):
    run = _run(tmp_path, "classification", 3)
    reports = list(train(run))
    lines = list(read_log(run.out / LOG))
    assert [line["step"] for line in lines] == [1, 2, 3, 3]
    assert lines[-1]["kind"] == "evaluation"
    assert lines[-1]["held_out"] == json.loads(json.dumps(reports[-1].held_out))
    with open(run.out / LOG, "a") as stream:
        stream.write('{"cut off')
    assert len(list(read_log(run.out / LOG))) == 4
    draw_curve(lines, run.out / "loss.png")
    assert (run.out / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_state_is_plain_tensors(tmp_path):
    list(train(_run(tmp_path, "classification", 1)))
    state = torch.load(tmp_path / "out" / STATE, weights_only=True)
    assert state["counters"]["step"] == 1


@pytest.mark.filterwarnings("ignore::UserWarning:sklearn")
def test_plain_tabpfn_classifier_loads_the_file(tmp_path):
    from tabpfn import TabPFNClassifier

    list(train(_run(tmp_path, "classification", 3)))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = (x[:, 0] > 0).astype(int)
    model = TabPFNClassifier(model_path=tmp_path / "out" / MODEL, device="cpu").fit(x[:40], y[:40])
    chances = model.predict_proba(x[40:])
    assert chances.shape == (20, 2)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0, atol=1e-5)
    assert len(model.executor_.ensemble_members) == 1  # as the file's own configuration says


@pytest.mark.filterwarnings("ignore::UserWarning:sklearn")
def test_plain_tabpfn_regressor_loads_the_file(tmp_path):
    from tabpfn import TabPFNRegressor

    list(train(_run(tmp_path, "regression", 3)))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    y = 100.0 + 5.0 * x[:, 0]
    model = TabPFNRegressor(model_path=tmp_path / "out" / MODEL, device="cpu").fit(x[:40], y[:40])
    assert np.isfinite(model.predict(x[40:])).all()
    assert abs(model.predict(x[40:]).mean() - 100.0) < 5.0


def test_training_goes_on_from_a_file(tmp_path):
    list(train(_run(tmp_path, "classification", 2, "first")))
    first = tmp_path / "first" / MODEL
    run = Run(recipe("tiny", "classification"), Budget(steps=2), tmp_path / "second", start_from=first)
    weights = Trainer(run, None)._network.state_dict()
    for name, value in _tensors(first).items():
        assert torch.equal(weights[name], value), name


@pytest.mark.parametrize("blocks", [3, 5])
def test_a_deeper_network_starts_as_the_file_and_trains_every_block(tmp_path, blocks):
    list(train(_run(tmp_path, "classification", 3, "first")))
    first = tmp_path / "first" / MODEL
    shallow = recipe("tiny", "classification")
    settings = replace(shallow, architecture=replace(shallow.architecture, nlayers=blocks))
    run = Run(settings, Budget(steps=6), tmp_path / "deeper", start_from=first)
    before = Trainer(replace(run, recipe=shallow, out=tmp_path / "same"), None)
    trainer = Trainer(run, None)
    assert _held_out(trainer, settings) == pytest.approx(_held_out(before, shallow), rel=1e-6)
    start = {name: value.clone() for name, value in trainer._network.named_parameters()}
    assert len(trainer._network.blocks) == blocks
    for _ in range(6):
        trainer.step()
    for name, value in trainer._network.named_parameters():
        assert not torch.equal(value, start[name]), name


def test_a_shallower_network_refuses_the_file(tmp_path):
    list(train(_run(tmp_path, "classification", 1, "first")))
    tiny = recipe("tiny", "classification")
    run = Run(
        replace(tiny, architecture=replace(tiny.architecture, nlayers=1)),
        Budget(steps=1),
        tmp_path / "shallow",
        start_from=tmp_path / "first" / MODEL,
    )
    with pytest.raises(ModelError, match="does not fit this preset"):
        Trainer(run, None)


@pytest.mark.parametrize("name", [MODEL, LOG, CURVE])
def test_a_folder_with_files_that_no_run_wrote_is_refused_and_left_as_it_was(tmp_path, name):
    run = _run(tmp_path, "classification", 1)
    run.out.mkdir()
    (run.out / name).write_bytes(b"somebody's")
    with pytest.raises(RequestError, match=name) as caught:
        list(train(run))
    assert "--out" in caught.value.hint
    assert [path.name for path in run.out.iterdir()] == [name]
    assert (run.out / name).read_bytes() == b"somebody's"


def test_a_run_that_was_killed_before_its_first_state_goes_on(tmp_path):
    run = _run(tmp_path, "classification", 2)
    Trainer(run, None).report()
    assert (run.out / LOG).exists()
    assert list(train(run))[-1].counters.step == 2


def test_a_network_twice_as_wide_computes_the_file_s_function_and_its_copies_learn_apart(tmp_path):
    list(train(_run(tmp_path, "classification", 3, "first")))
    narrow = recipe("tiny", "classification")
    wide = replace(narrow, architecture=replace(narrow.architecture, emsize=64, nhead=4, nlayers=3))
    run = Run(wide, Budget(steps=3), tmp_path / "wide", start_from=tmp_path / "first" / MODEL)
    before = Trainer(replace(run, recipe=narrow, out=tmp_path / "same"), None)._network
    trainer = Trainer(run, None)
    tables = batch(Draw(3), Size(5, 30, 10, 6, 4), narrow, None)
    positions = Draw(4).normal(5, 3, 8)
    twice = torch.cat([positions, positions], dim=-1) * 0.5**0.5
    expected = forward.logits(before, tables, positions)
    found = forward.logits(trainer._network, tables, twice)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)
    assert expected.std() > 0.1
    for _ in range(3):
        trainer.step()
    rows = trainer._network.state_dict()["blocks.0.mlp.0.weight"]
    assert (rows[:128] - rows[128:]).abs().mean() > 0.1 * rows.abs().mean()


@pytest.mark.parametrize(
    ("budget", "seconds"), [({"steps": 9}, 900), ({"minutes": 90.0}, 270), ({"minutes": 900.0}, 900)]
)
def test_a_kill_costs_a_twentieth_of_the_minutes_and_never_more_than_a_quarter_of_an_hour(
    tmp_path, monkeypatch, budget, seconds
):
    trainer = Trainer(Run(recipe("tiny", "classification"), Budget(**budget), tmp_path), None)
    trainer._saved = 0.0
    monkeypatch.setattr("tttab.pretrain.loop.time.perf_counter", lambda: seconds - 1.0)
    assert not trainer.save_due
    monkeypatch.setattr("tttab.pretrain.loop.time.perf_counter", lambda: float(seconds))
    assert trainer.save_due
