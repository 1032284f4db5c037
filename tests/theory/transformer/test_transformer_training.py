import math
import signal
import threading
from dataclasses import replace
from itertools import islice

import pytest
import torch

from tttab.errors import ModelError, RequestError
from tttab.theory.transformer.adapt import (
    LabelledRows,
    TaskTraining,
    adapt_looped,
    adapt_prompt,
    predict,
    start_weights,
)
from tttab.theory.transformer.model import ModelSettings, build_model
from tttab.theory.transformer.paper_a import WarmColdSettings, warm_cold_rows
from tttab.theory.transformer.paper_b import ContextSettings, _draw, context_rows, readable, shifted
from tttab.theory.transformer.pretrain import (
    Pretraining,
    checkpoint_path,
    load_checkpoint,
    pretrain,
    save_checkpoint,
    within_minutes,
)
from tttab.theory.transformer.rates import best_rate
from tttab.theory.transformer.store import (
    Pretrained,
    beginning,
    open_file,
    pretrain_into_cache,
    recipe,
    shipped_path,
)
from tttab.theory.transformer.tasks import Law, link, more_rows, sample_prompts

KINDS = ["pair", "gpt2", "gpt2-pairs"]


def tiny(kind="pair", steps=12, **changes):
    law = changes.pop("law", Law("linear", 3, 3))
    model = ModelSettings(kind, law.d, width=16, layers=1, heads=2, rows=10)
    rows = {"pair": 20, "gpt2": 11, "gpt2-pairs": 20}[kind]
    return replace(Pretraining(law, model, steps, batch=16, rows=rows, warmup=3, lr=3e-3), **changes)


def weights_of(path):
    return load_checkpoint(path)[0].state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on_and_ends_with_the_same_weights(tmp_path, kind):
    settings = tiny(kind, curriculum=6)
    list(pretrain(settings, tmp_path / "whole", every=1))
    killed = pretrain(settings, tmp_path / "killed", every=1)
    assert [event.step for event in islice(killed, 5)] == [1, 2, 3, 4, 5]
    killed.close()
    assert not checkpoint_path(settings, tmp_path / "killed").exists()
    again = [event.step for event in pretrain(settings, tmp_path / "killed", every=1)]
    assert again == list(range(6, 13))
    whole, resumed = (weights_of(checkpoint_path(settings, tmp_path / name)) for name in ("whole", "killed"))
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [
        checkpoint_path(settings, tmp_path).name
    ]


def same_weights(one, other):
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("moment", ["before", "after"])
def test_ctrl_c_inside_a_step_waits_until_the_step_is_whole(tmp_path, monkeypatch, moment):
    settings, taken, plain = tiny(), [], torch.optim.AdamW.step
    list(pretrain(settings, tmp_path / "whole", every=1))

    def interrupted(self, *arguments):
        taken.append(1)
        if len(taken) == 5 and moment == "before":
            signal.raise_signal(signal.SIGINT)
        answer = plain(self, *arguments)
        if len(taken) == 5 and moment == "after":
            signal.raise_signal(signal.SIGINT)
        return answer

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        list(pretrain(settings, tmp_path / "cut", every=1))
    assert signal.getsignal(signal.SIGINT) is handler
    assert [event.step for event in pretrain(settings, tmp_path / "cut", every=1)] == list(range(6, 13))
    whole, cut = (weights_of(checkpoint_path(settings, tmp_path / name)) for name in ("whole", "cut"))
    assert same_weights(whole, cut)


def test_a_step_that_fails_half_way_is_not_saved(tmp_path, monkeypatch):
    settings, taken, plain = tiny(), [], torch.optim.AdamW.step
    list(pretrain(settings, tmp_path / "whole"))

    def fails(self, *arguments):
        taken.append(1)
        plain(self, *arguments)
        if len(taken) == 5:
            raise RuntimeError("no memory left")

    monkeypatch.setattr(torch.optim.AdamW, "step", fails)
    with pytest.raises(RuntimeError, match="no memory"):
        list(pretrain(settings, tmp_path / "cut"))
    list(pretrain(settings, tmp_path / "cut"))
    assert same_weights(
        *(weights_of(checkpoint_path(settings, tmp_path / name)) for name in ("whole", "cut"))
    )


def test_pretraining_works_outside_the_main_thread(tmp_path):
    settings = tiny(steps=3)
    worker = threading.Thread(target=lambda: list(pretrain(settings, tmp_path)))
    worker.start()
    worker.join()
    assert checkpoint_path(settings, tmp_path).exists()


def test_an_unfinished_run_is_not_continued_in_another_precision(tmp_path):
    settings = tiny()
    begun = pretrain(settings, tmp_path, every=1)
    next(begun)
    begun.close()
    with pytest.raises(RequestError, match="begun on cpu float32, not on cpu bfloat16") as caught:
        next(pretrain(settings, tmp_path, every=1, precision="bfloat16"))
    assert ".partial.safetensors" in caught.value.hint
    assert next(pretrain(settings, tmp_path, every=1)).step == 2


def test_a_finished_checkpoint_is_used_and_other_settings_have_another(tmp_path):
    settings = tiny(steps=3)
    first = list(pretrain_into_cache(settings, tmp_path))[-1]
    assert isinstance(first, Pretrained)
    assert len(list(pretrain_into_cache(settings, tmp_path))) == 1
    assert checkpoint_path(settings, tmp_path) != checkpoint_path(replace(settings, lr=1e-4), tmp_path)
    assert first.settings == settings


def test_training_learns_and_a_time_limit_becomes_a_number_of_steps(tmp_path):
    losses = [event.loss for event in pretrain(tiny(steps=400, batch=64), tmp_path, every=1)]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    short, long = (within_minutes(tiny(), minutes, "cpu").steps for minutes in (0.005, 0.5))
    assert 20 <= short < long


def test_a_time_limit_is_timed_once_so_that_the_same_call_goes_on(tmp_path):
    first = list(pretrain_into_cache(tiny(), tmp_path, minutes=0.002))
    again = list(pretrain_into_cache(tiny(), tmp_path, minutes=0.002))
    assert len(first) > len(again) == 1
    assert again[0].settings == first[-1].settings
    assert again[0].settings.steps >= 20


def test_half_precision_files_open_and_damaged_ones_are_refused(tmp_path):
    settings = tiny()
    model = build_model(settings.model, 0)
    save_checkpoint(tmp_path / "half.safetensors", model, settings, half=True)
    opened, found = load_checkpoint(tmp_path / "half.safetensors")
    assert found == settings
    torch.testing.assert_close(opened.head.weight, model.head.weight, rtol=1e-3, atol=1e-4)
    (tmp_path / "bad.safetensors").write_bytes(b"not a checkpoint")
    for name in ("bad", "absent"):
        with pytest.raises(ModelError, match=name):
            load_checkpoint(tmp_path / f"{name}.safetensors")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "lie",
    [
        *(
            {size: value}
            for size in ("width", "layers", "heads", "d", "rows")
            for value in (0, -1, 10**9, "x")
        ),
        {"kind": "no such"},
        {"kind": ["gpt2"]},
        {"width": 16.5},
        {"heads": 5},
    ],
    ids=str,
)
def test_settings_that_tell_of_other_weights_are_refused_before_a_model_gets_memory(tmp_path, kind, lie):
    settings = tiny(kind)
    model = build_model(settings.model, 0)
    wrong = replace(settings, model=replace(settings.model, **lie))
    save_checkpoint(tmp_path / "lie.safetensors", model, wrong)
    if kind == "pair" and lie == {
        "rows": 10**9
    }:  # the pair model has no positions: it reads any number of rows
        assert load_checkpoint(tmp_path / "lie.safetensors")[1] == wrong
        return
    with pytest.raises(ModelError, match=r"lie\.safetensors is no checkpoint of a small transformer"):
        load_checkpoint(tmp_path / "lie.safetensors")


def test_weights_that_are_no_numbers_or_of_another_shape_are_refused(tmp_path):
    settings = tiny()
    model = build_model(settings.model, 0)
    torch.nn.init.constant_(model.head.bias, float("nan"))
    save_checkpoint(tmp_path / "nan.safetensors", model, settings)
    with pytest.raises(ModelError, match="its weights are not all numbers"):
        load_checkpoint(tmp_path / "nan.safetensors")
    deeper = build_model(replace(settings.model, layers=2), 0)
    save_checkpoint(tmp_path / "other.safetensors", deeper, settings)
    with pytest.raises(ModelError, match=r"Error\(s\) in loading state_dict"):
        load_checkpoint(tmp_path / "other.safetensors")


@pytest.mark.parametrize("rule", ["full", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_tasks_adapted_together_equal_tasks_adapted_one_by_one(kind, rule):
    settings = tiny(kind)
    model = build_model(settings.model, 0)
    drawn = sample_prompts(settings.law, 3, 14, torch.Generator().manual_seed(1))
    prompt, how = (
        LabelledRows(drawn.x[:, :10], drawn.y[:, :10]),
        TaskTraining(rule, lr=3e-3, steps=6, check=2),
    )
    both = [adapt(model, prompt, how) for adapt in (adapt_prompt, adapt_looped)]
    together, alone = (predict(model, one, prompt, drawn.x[:, 10:]) for one in both)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)
    assert torch.equal(both[0].best_step, both[1].best_step)
    plain = predict(model, None, prompt, drawn.x[:, 10:])
    moved = both[0].best_step > 0
    assert moved.any()
    assert (together - plain).abs().amax(dim=1)[moved].min() > 1e-4


def test_lora_starts_at_the_model_itself():
    model = build_model(tiny().model, 0)
    drawn = sample_prompts(Law("linear", 3, 3), 2, 8, torch.Generator().manual_seed(1))
    prompt = LabelledRows(drawn.x, drawn.y)
    untouched = adapt_prompt(model, prompt, TaskTraining("lora", steps=0))
    torch.testing.assert_close(
        predict(model, untouched, prompt, drawn.x), predict(model, None, prompt, drawn.x), rtol=0, atol=1e-5
    )
    assert len(start_weights(model, 2, TaskTraining("lora"))) < 2 * len(dict(model.named_parameters()))


def test_warm_and_cold_rows_fall_with_k_and_say_what_they_are():
    settings = tiny(steps=50)
    pretrained = Pretrained(build_model(settings.model, 0), settings, "untrained")
    how = TaskTraining(steps=60, lr=1e-2)
    rows = list(warm_cold_rows(pretrained, WarmColdSettings((20, 200), n=8, tasks=4, how=how)))
    assert [(row["start"], row["k"]) for row in rows] == [
        ("warm", 0),
        ("warm", 20),
        ("warm", 200),
        ("cold", 20),
        ("cold", 200),
    ]
    for loss in ("loss_same", "loss_fresh"):
        assert rows[2][loss] < 0.5 * rows[0][loss]
        assert rows[4][loss] < rows[3][loss]
    assert rows[3]["lead"] == pytest.approx(rows[1]["loss_fresh"] - rows[3]["loss_fresh"], abs=1e-6)
    assert rows[0]["ols_all"] == pytest.approx(rows[0]["best_linear"]) and rows[2]["ols_all"] == 0
    needed = {
        "seed",
        "device",
        "stderr_fresh",
        "stuck",
        "lr",
        "steps",
        "pretraining",
        "checkpoint_key",
        "tasks",
    }
    assert needed <= rows[1].keys()


def test_stuck_counts_tasks_of_either_start():
    settings = tiny(steps=50)
    pretrained = Pretrained(build_model(settings.model, 0), settings, "untrained")
    grid = WarmColdSettings((20,), n=8, tasks=6, how=TaskTraining(steps=0))
    before, _, cold = warm_cold_rows(pretrained, grid)
    # Without a step the cold start is an untrained model of another seed, here a worse one.
    assert before["stuck"] == 0 and cold["start"] == "cold"
    assert cold["loss_same"] > before["loss_same"] and cold["stuck"] > 0


def test_more_rows_are_of_the_same_tasks_and_leave_the_first_as_they_were():
    law = Law("index", 5, 3, noise=0.1)
    one, other = (sample_prompts(law, 4, 6, torch.Generator().manual_seed(2)) for _ in range(2))
    more = more_rows(law, one, 7, torch.Generator().manual_seed(3))
    assert torch.equal(one.x, other.x) and torch.equal(one.y, other.y)
    assert torch.equal(more.c, one.c) and torch.equal(more.direction, one.direction)
    z = (more.x * one.direction[:, None]).sum(dim=2)
    torch.testing.assert_close(more.clean, link(z, one.c[:, None]))
    assert (more.y - more.clean).abs().unique().numel() >= 1 and not torch.equal(more.x[:, :6], one.x)


def test_a_fresh_context_is_another_one_and_the_same_one_is_what_was_trained_on():
    settings = tiny()
    pretrained = Pretrained(build_model(settings.model, 0), settings, "untrained")
    grid = WarmColdSettings((40,), n=3, tasks=8, how=TaskTraining(steps=80, lr=1e-2))
    _, warm, _ = warm_cold_rows(pretrained, grid)
    assert warm["loss_same"] != warm["loss_fresh"]


@pytest.mark.parametrize(("best", "wanted"), [(1e-3, 1e-3), (9e-3, 9e-3), (1e-4, 1e-4), (1.0, 0.243)])
def test_the_grid_of_step_sizes_grows_where_its_best_is_at_an_end(best, wanted):
    assert best_rate(lambda rate: abs(math.log(rate / best))) == pytest.approx(wanted)
    assert best_rate(lambda rate: float("nan") if rate > 2e-3 else -rate) == pytest.approx(1e-3)


def test_lengths_that_gpt2_cannot_read_are_left_out():
    settings = tiny("gpt2", law=Law("index", 3, 3))
    pretrained = Pretrained(build_model(settings.model, 0), settings, "untrained")
    assert readable(pretrained, (4, 10, 11, 1024)) == [4, 10]
    assert readable(pretrained, (16, 64)) == [10]
    pair = Pretrained(build_model(tiny().model, 0), tiny(), "untrained")
    assert readable(pair, (16, 1024)) == [16, 1024]


def test_tasks_are_the_same_at_every_length():
    law, grid = Law("index", 4, 4), ContextSettings(tasks=3)
    short, long = (_draw(law, grid, length, "test", 3) for length in (4, 9))
    assert torch.equal(short.test.x, long.test.x) and torch.equal(short.test.direction, long.test.direction)
    assert short.prompt.y.shape == (3, 4) and long.prompt.y.shape == (3, 9)


def test_at_long_contexts_lora_alone_is_trained_unless_the_whole_is_asked_for():
    settings = tiny(law=Law("index", 3, 3))
    pretrained = Pretrained(build_model(settings.model, 0), settings, "untrained")
    for whole, methods in ((False, ["icl", "ttt-lora"]), (True, ["icl", "ttt-full", "ttt-lora"])):
        grid = ContextSettings((1024,), ("none",), tasks=1, long_steps=1, whole=whole)
        rows = list(context_rows(pretrained, grid))
        assert [row["method"] for row in rows] == methods
        assert rows[1]["steps"] == 1


def test_context_rows_cover_every_shift_and_method_and_equal_seeds_give_equal_rows():
    settings = tiny(law=Law("index", 4, 4, noise=0.1))
    pretrained = Pretrained(build_model(settings.model, 0), settings, "untrained")
    grid = ContextSettings((6, 40), tasks=2, how=TaskTraining(steps=4), search=True)
    rows = list(context_rows(pretrained, grid))
    assert len(rows) == 3 * 2 * 3
    assert {row["method"] for row in rows} == {"icl", "ttt-full", "ttt-lora"}
    assert rows[0]["noise"] == pytest.approx(0.01 / (1 + 1 / 12))
    assert rows == list(context_rows(pretrained, grid))
    with pytest.raises(RequestError, match="c=2"):
        shifted(settings.law, "c=2")


def test_gpt2_over_pairs_begins_with_the_shipped_model_of_the_same_shape_alone():
    small = recipe("B", "gpt2-pairs")
    start = beginning(small)
    assert start is not None
    shipped = open_file(shipped_path("B", 4)).model.state_dict()
    assert all(torch.equal(value, shipped[name]) for name, value in start.state_dict().items())
    assert beginning(recipe("B", "gpt2-pairs", "full")) is None
    assert beginning(recipe("B", "gpt2-pairs", "small", 5)) is None
    assert beginning(recipe("B", "gpt2")) is None


def test_pretraining_goes_on_from_the_model_it_is_given(tmp_path):
    settings = tiny("gpt2-pairs", steps=1, lr=1e-9)
    start = build_model(tiny("pair").model, 5)
    list(pretrain(settings, tmp_path, start=start))
    found = weights_of(checkpoint_path(settings, tmp_path))
    torch.testing.assert_close(found["embed.weight"], start.state_dict()["embed.weight"], rtol=0, atol=1e-6)


def test_recipes_name_the_papers_sizes():
    assert recipe("A", "gpt2", "full").law == Law("linear", 60, 60)
    full = recipe("B", "gpt2", "full").model
    assert (full.width, full.layers) == (256, 2)
    assert recipe("B", "pair", "small", 16).law.r == 4
    with pytest.raises(RequestError, match="paper C"):
        recipe("C", "pair")
