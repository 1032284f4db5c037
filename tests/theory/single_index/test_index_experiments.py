import pytest
import torch

from tttab.seeding import torch_stream
from tttab.theory.plots import draw
from tttab.theory.single_index import strong
from tttab.theory.single_index.hermite import parse_link
from tttab.theory.single_index.pipeline import PipelineSettings, pipeline_rows
from tttab.theory.single_index.stages import Stream, stage_two
from tttab.theory.single_index.strong import StrongSettings, information, pull_variance, strong_rows
from tttab.theory.single_index.tasks import IndexLaw, draw_basis, draw_rows, draw_tasks, unit
from tttab.theory.single_index.weak import WeakSettings, weak_rows

NEEDED = {"experiment", "seed", "device", "stderr", "stuck", "tasks"}


def test_distillation_beats_direct_steps_on_he3_at_r_32():
    settings = WeakSettings(links=("He3",), r=(32,), n1=(2048,), tasks=12, queries=2048)
    rows = {row["method"]: row for row in weak_rows(settings)}
    assert rows["distill"].keys() >= NEEDED
    assert rows["distill"]["alignment"] > rows["direct"]["alignment"] + 0.25
    assert rows["distill"]["alignment"] > 0.6
    assert rows["random"]["alignment"] < 2 * rows["random"]["floor"]
    assert rows["distill"]["stuck"] <= 1 < rows["random"]["stuck"]


def test_information_and_pull_variance_are_the_moments_of_the_link():
    he2 = parse_link("He2")
    assert information(he2) == 2.0
    assert pull_variance(he2, 0.5, "squared") == 0.5
    assert pull_variance(he2, 0.0, "correlation") == 10.0  # E[(z^2 - 1)^2 z^2]
    assert information(parse_link("7*He3 + 1")) == 3.0


@pytest.mark.parametrize(("link", "text"), [((0.0, 1.0), "He1"), ((0.0, 0.0, 1.0), "He2")])
def test_the_floor_of_constant_steps_is_within_20_percent(link, text):
    r, noise, eta = 12, 0.5, 1.5e-3
    law = IndexLaw(r, r, link, noise)
    generator = torch_stream(0, "floor", text)
    tasks = draw_tasks(law, draw_basis(law, generator), 400, generator)
    other = torch.randn(400, r, generator=generator)
    other = unit(other - (other * tasks.direction).sum(dim=1, keepdim=True) * tasks.direction)
    exact = parse_link(text)
    floor = eta * (r - 1) * pull_variance(exact, noise, "squared") / (4 * information(exact))
    u = (1 - floor) * tasks.direction + (1 - (1 - floor) ** 2) ** 0.5 * other
    errors = []
    for part in range(6):
        x, y = draw_rows(tasks, 250, generator)
        stream = Stream(x.transpose(0, 1).contiguous(), y.T.contiguous(), torch.full((250,), eta))
        u = stage_two(u, stream, tasks.weights, longest=1e9)
        errors.append(float((1 - (u * tasks.direction).sum(dim=1)).mean()) if part >= 2 else None)
    assert sum(errors[2:]) / 4 == pytest.approx(floor, rel=0.2)


def test_samples_to_eps_follow_the_log_law_and_not_the_square_law():
    rows = list(strong_rows(StrongSettings(tasks=64, eps=(0.2, 0.1, 0.05), points=10)))
    law = rows[-1]
    assert law["kind"] == "law"
    assert law["spread_log_law"] < 1.3
    assert law["spread_square_law"] > 1.8
    trace = [row for row in rows if row["kind"] == "trace"]
    assert trace[0].keys() >= NEEDED
    late = trace[-1]
    assert late["error"] == pytest.approx(late["predicted"], rel=0.35)


def test_targets_that_are_never_reached_have_no_part_in_the_law(monkeypatch, tmp_path):
    def errors(settings, law, eta, length, name):
        """Stay above every target but the largest."""
        for step in range(0, 10**9, 10**4):
            yield step, torch.full((4,), 0.15 if step else 0.5)

    monkeypatch.setattr(strong, "_errors", errors)
    for targets, reached in (((0.2, 0.1, 0.05), 1), ((0.1, 0.05), 0)):
        rows = list(strong_rows(StrongSettings(eps=targets, tasks=4, points=3)))
        samples = [row for row in rows if row["kind"] == "samples"]
        assert [row["reached"] for row in samples] == [eps == 0.2 for eps in targets]
        assert all((row["steps*eps^2"] is None) is not row["reached"] for row in samples)
        law = rows[-1]
        assert law["targets_reached"] == reached
        assert law["spread_log_law"] is None and law["spread_square_law"] is None
        draw(strong.panels(rows), tmp_path / "strong.svg")


def test_alignments_name_their_statistic():
    (row, _) = pipeline_rows(PipelineSettings(n=(256,), d=(4,), r=4, tasks=3))
    assert {"weak_alignment_mean", "weak_alignment_median", "strong_alignment_median"} <= row.keys()


def test_the_pipelines_error_falls_with_n_to_the_noise_and_a_random_start_stays_behind():
    common = {"d": (8,), "r": 4, "noise": 0.2, "tasks": 16, "queries": 1024, "in_context": False}
    rows = list(pipeline_rows(PipelineSettings(n=(256, 1024, 8192), **common)))
    medians = [row["median"] for row in rows]
    assert rows[0].keys() >= NEEDED
    assert medians[0] > medians[1] > medians[2]
    assert medians[2] < 1.5 * rows[2]["noise_level"]


def test_rows_repeat_with_the_seed_and_change_with_it():
    settings = PipelineSettings(n=(256,), d=(4, 6), r=4, tasks=3)
    first, again = (list(pipeline_rows(settings)) for _ in range(2))
    assert first == again
    assert [(row["d"], row["method"]) for row in first] == [(4, "ttt"), (4, "icl"), (6, "ttt"), (6, "icl")]
    other = list(pipeline_rows(PipelineSettings(n=(256,), d=(4, 6), r=4, tasks=3, seed=1)))
    assert other[0]["error"] != first[0]["error"]


def test_sampled_pretraining_of_g_serves_as_well():
    settings = PipelineSettings(
        n=(2048,),
        d=(4,),
        r=2,
        link="z",
        noise=0.2,
        tasks=6,
        queries=1024,
        pretraining_tasks=4000,
        in_context=False,
    )
    (row,) = pipeline_rows(settings)
    assert row["pretraining_tasks"] == 4000
    assert row["median"] < 0.3 * row["label_power"]
