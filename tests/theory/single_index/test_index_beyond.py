"""Links outside the theorem against integrals, and the fits against what they must find."""

from __future__ import annotations

import math

import pytest
import torch

from tttab.seeding import torch_stream
from tttab.theory.single_index.algorithm import Pipeline
from tttab.theory.single_index.beyond import EXPERIMENT, METHODS, BeyondSettings, beyond_rows
from tttab.theory.single_index.free_links import (
    LINKS,
    PAIRS,
    draw_free_tasks,
    fit_output,
    main_plane,
    moments,
    one_direction_floor,
    train_jointly,
)
from tttab.theory.single_index.tasks import draw_rows, unit


def prompt(name, rows=2048, d=4, tasks=6):
    generator = torch_stream(0, "test", name)
    drawn = draw_free_tasks(name, d, 0.1, tasks, generator)
    return drawn, draw_rows(drawn, rows, generator), generator


@pytest.mark.parametrize(
    ("name", "mean", "power"),
    [
        ("He3", 0.0, 1.0),
        ("sign", 0.0, 1.0),
        ("abs", math.sqrt(2 / math.pi), 1 - 2 / math.pi),
        ("cos", math.exp(-2), (1 + math.exp(-8)) / 2 - math.exp(-4)),
        ("product", 0.0, 1.0),
        ("sum", 0.0, 2.0),
        ("ridge-pair", math.sqrt(2 / math.pi), 2 - 2 / math.pi),
    ],
)
def test_moments_are_the_integrals(name, mean, power):
    assert moments(name) == pytest.approx((mean, power), abs=2e-2 if name == "sign" else 1e-3)


@pytest.mark.parametrize("name", [*LINKS])
def test_labels_have_unit_power_and_two_directions_only_where_the_link_has(name):
    tasks, (x, y), _ = prompt(name, rows=20_000)
    clean = tasks.clean(x)
    assert clean.mean().item() == pytest.approx(0, abs=0.05)
    assert clean.var().item() == pytest.approx(1, rel=0.1)
    torch.testing.assert_close((y - clean).abs(), torch.full_like(y, 0.1), rtol=0, atol=1e-5)
    moved = tasks.clean(x + tasks.second[:, None])
    assert (
        (moved - clean).abs().max().item() > 0.1 if name in PAIRS else torch.allclose(moved, clean, atol=1e-3)
    )


def test_one_direction_leaves_half_of_a_product_and_of_a_sum_and_the_smaller_part_of_a_pair():
    assert one_direction_floor("product") == pytest.approx(0.5, abs=1e-3)
    assert one_direction_floor("sum") == pytest.approx(0.5, abs=1e-3)
    rest = (1 - 2 / math.pi) / (2 - 2 / math.pi)
    assert one_direction_floor("ridge-pair") == pytest.approx(rest, abs=5e-3)
    assert one_direction_floor("sign") == 0.0


def test_alignment_is_the_share_of_what_was_found_in_the_links_span():
    tasks, _, _ = prompt("sum")
    both = torch.stack([tasks.direction, tasks.second], 2)
    torch.testing.assert_close(tasks.alignment(both), torch.ones(6))
    between = unit(tasks.direction + tasks.second)[:, :, None]
    torch.testing.assert_close(tasks.alignment(between), torch.ones(6))
    outside = torch.linalg.qr(torch.cat([both, torch.randn(6, 4, 1)], 2)).Q[:, :, 2:]
    assert tasks.alignment(outside).max() < 1e-5
    torch.testing.assert_close(
        tasks.alignment(torch.cat([both[:, :, :1], outside], 2)),
        torch.full((6,), 0.5**0.5),
        rtol=0,
        atol=1e-5,
    )


def test_joint_training_finds_the_direction_from_nearby_and_learns_the_link():
    tasks, (x, y), generator = prompt("tanh")
    near = unit(tasks.direction + 0.4 * unit(torch.randn(6, 4, generator=generator)))[:, :, None]
    test = torch.randn(6, 500, 4, generator=generator)
    start = fit_output(Pipeline(), near, x, y, generator)
    found = train_jointly(start, x, y, 300, 0.02, generator)
    assert tasks.alignment(found.directions).min() > 0.99
    before, after = ((fit.predict(test) - tasks.clean(test)).square().mean() for fit in (start, found))
    assert after < 0.05 and after < before / 2


def test_two_directions_are_found_where_stage_one_sees_both_and_go_below_the_floor_of_one():
    tasks, (x, y), generator = prompt("sum", rows=16384)
    test = torch.randn(6, 500, 4, generator=generator)
    plane = main_plane(Pipeline(), torch.eye(4) / 2, x[:, :4096], y[:, :4096], 8, generator)
    torch.testing.assert_close(plane.transpose(1, 2) @ plane, torch.eye(2).expand(6, 2, 2), rtol=0, atol=1e-5)
    assert tasks.alignment(plane).median() > 0.9
    fitted = fit_output(Pipeline(), plane, x, y, generator)
    error = (fitted.predict(test) - tasks.clean(test)).square().mean(1)
    assert error.median() < 0.8 * one_direction_floor("sum")


def test_rows_have_a_method_each_and_pairs_one_more():
    settings = EXPERIMENT.quick[0]
    rows = list(beyond_rows(settings))
    cells = [(row["link"], row["n"], row["method"]) for row in rows]
    wanted = [("sign", n, m) for n in settings.n for m in METHODS[:3]]
    assert cells == wanted + [("product", n, m) for n in settings.n for m in METHODS]
    assert EXPERIMENT.total(settings) == len(rows)
    assert {row["floor"] for row in rows if row["link"] == "sign"} == {0.0}
    assert isinstance(settings, BeyondSettings)
