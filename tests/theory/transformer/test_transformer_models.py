import pytest
import torch

from tttab.errors import RequestError
from tttab.theory.transformer.model import ModelSettings, build_model
from tttab.theory.transformer.tasks import Law, label_power, sample_prompts

KINDS = ["pair", "gpt2", "gpt2-pairs"]


def small(kind, rows=12):
    return ModelSettings(kind, d=3, width=16, layers=2, heads=2, rows=rows)


def rows_of(tasks, n, d=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tasks, n, d, generator=generator), torch.randn(tasks, n, generator=generator)


@pytest.mark.parametrize("kind", KINDS)
def test_queries_do_not_see_each_other(kind):
    model = build_model(small(kind), 0)
    (x, y), (queries, _) = rows_of(2, 6), rows_of(2, 5, seed=1)
    together = model(x, y, queries)
    alone = torch.cat([model(x, y, queries[:, i : i + 1]) for i in range(5)], dim=1)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_gpt2_with_packed_queries_is_the_plain_causal_sequence():
    model = build_model(small("gpt2"), 0)
    x, y = rows_of(2, 7)
    causal, labels = model.training_predictions(x, y, 0)
    packed = torch.stack([model(x[:, :n], y[:, :n], x[:, n : n + 1])[:, 0] for n in range(7)], dim=1)
    torch.testing.assert_close(causal, packed, rtol=0, atol=1e-5)
    assert labels is y


def test_the_pair_model_ignores_the_order_of_its_context_and_gpt2_does_not():
    (x, y), (queries, _) = rows_of(1, 8), rows_of(1, 3, seed=1)
    gaps = {}
    for kind in KINDS:
        model = build_model(small(kind), 0)
        gaps[kind] = (model(x, y, queries) - model(x.flip(1), y.flip(1), queries)).abs().max().item()
    assert gaps["pair"] < 1e-5 < min(gaps["gpt2"], gaps["gpt2-pairs"])


def test_gpt2_over_pairs_begins_with_the_pair_models_blocks_and_reads_any_length():
    pair, own = build_model(small("pair"), 0), build_model(small("gpt2-pairs"), 1)
    (x, y), (queries, _) = rows_of(2, 6), rows_of(2, 3, seed=1)
    assert own(*rows_of(1, 40), queries[:1]).shape == (1, 3)
    own.begin_with(pair)
    allowed = torch.zeros(9, 9, dtype=torch.bool)
    allowed[:, :6] = True  # the pair model's own mask: from then on GPT-2 is the pair model
    mask = torch.zeros(1, 1, 9, 9).masked_fill(~allowed, torch.finfo(torch.float32).min).expand(2, 1, 9, 9)
    known = torch.cat([torch.stack([y, torch.ones(2, 6)], -1), torch.zeros(2, 3, 2)], 1)
    tokens = own.embed(torch.cat([torch.cat([x, queries], 1), known], -1))
    place = torch.zeros(2, 9, dtype=torch.long)
    hidden = own.backbone(inputs_embeds=tokens, attention_mask=mask, position_ids=place).last_hidden_state
    torch.testing.assert_close(own.head(hidden[:, 6:]).squeeze(-1), pair(x, y, queries), rtol=0, atol=2e-3)


def test_gpt2_refuses_a_context_beyond_its_positions():
    model = build_model(small("gpt2", rows=4), 0)
    (x, y), (queries, _) = rows_of(1, 5), rows_of(1, 1, seed=1)
    with pytest.raises(RequestError, match="5 rows"):
        model(x, y, queries)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_seeds_give_equal_weights_and_leave_the_global_stream_alone(kind):
    before = torch.random.get_rng_state()
    one, two, other = (build_model(small(kind), seed).head.weight for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(
    "law",
    [
        Law("linear", 8, 8),
        Law("index", 6, 3),
        Law("index", 6, 3, c_low=1.0, c_high=1.0),
        Law("index", 6, 3, he2=1.0),
    ],
)
def test_labels_have_the_stated_power_and_the_index_law_lives_in_its_subspace(law):
    prompts = sample_prompts(law, 4000, 200, torch.Generator().manual_seed(0))
    assert prompts.clean.square().mean().item() == pytest.approx(label_power(law), rel=0.05)
    if law.family == "index":
        outside = prompts.x[..., law.r :] * prompts.clean[..., None]
        assert outside.mean(dim=(0, 1)).abs().max() < 0.02


def test_noise_moves_index_labels_by_exactly_its_size():
    prompts = sample_prompts(Law("index", 4, 4, noise=0.25), 5, 50, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        (prompts.y - prompts.clean).abs(), torch.full((5, 50), 0.25), rtol=0, atol=1e-5
    )
