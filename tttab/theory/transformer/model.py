"""Small transformers that read labelled rows: a pair-token model, and Hugging Face's GPT-2 in two ways.

All map (context_x, context_y, query_x) to one number per query; queries never see each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tttab.errors import MissingExtra, RequestError

Kind = Literal["gpt2", "gpt2-pairs", "pair"]
"""GPT-2 over x1, y1, x2, …, GPT-2 over one token per row, and the pair-token model."""


@dataclass(frozen=True)
class ModelSettings:
    """The shape of a model."""

    kind: Kind
    d: int
    """Features of a row."""
    width: int = 64
    layers: int = 2
    heads: int = 4
    rows: int = 64
    """Largest context; GPT-2 has a position for each token and cannot read more, the pair model can."""


class SmallTransformer(nn.Module):
    """Maps labelled context rows and queries to one number per query."""

    rows: int | None
    """Largest context; None: any."""

    def training_predictions(self, x: Tensor, y: Tensor, cut: int) -> tuple[Tensor, Tensor]:
        """Return predictions for the rows after `cut` from the rows before it, and their labels."""
        return self(x[:, :cut], y[:, :cut], x[:, cut:]), y[:, cut:]


class PairTransformer(SmallTransformer):
    """One token per row (x, y, known); context and query tokens attend to the context tokens alone."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.rows = None
        self.embed = nn.Linear(settings.d + 2, settings.width)
        self.blocks = nn.ModuleList(_PairBlock(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.width)
        self.head = nn.Linear(settings.width, 1)

    def forward(self, context_x: Tensor, context_y: Tensor, query_x: Tensor) -> Tensor:
        """Return (tasks, queries) for a context (tasks, n, d), (tasks, n) and queries (tasks, q, d)."""
        tokens, n = self.embed(_pair_tokens(context_x, context_y, query_x)), context_x.shape[-2]
        for block in self.blocks:
            tokens = block(tokens, n)
        return self.head(self.norm(tokens[..., n:, :])).squeeze(-1)


def _pair_tokens(context_x: Tensor, context_y: Tensor, query_x: Tensor) -> Tensor:
    """Return (tasks, n + queries, d + 2): (x, y, 1) of every context row, (x, 0, 0) of every query."""
    known = torch.stack([context_y, torch.ones_like(context_y)], dim=-1)
    blank = torch.zeros_like(query_x[..., :1]).expand(*query_x.shape[:-1], 2)
    return torch.cat([torch.cat([context_x, known], -1), torch.cat([query_x, blank], -1)], dim=-2)


class _PairBlock(nn.Module):
    """Pre-norm attention on the first n tokens, then a perceptron of four times the width."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        width = settings.width
        self.heads = settings.heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor, n: int) -> Tensor:
        query, key, value = (self._split(part) for part in self.qkv(self.norm_1(tokens)).chunk(3, dim=-1))
        scores = query @ key[..., :n, :].transpose(-1, -2) / key.shape[-1] ** 0.5
        mixed = scores.softmax(dim=-1) @ value[..., :n, :]
        tokens = tokens + self.out(mixed.transpose(-2, -3).flatten(-2))
        return tokens + self.down(nn.functional.gelu(self.up(self.norm_2(tokens))))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(-2, -3)


class Gpt2Regressor(SmallTransformer):
    """Hugging Face's GPT-2 over the tokens x1, y1, x2, y2, …; the answer stands at the x tokens."""

    def __init__(self, settings: ModelSettings, attention: str = "eager") -> None:
        super().__init__()
        self.rows = self._most = settings.rows
        self.read_x, self.read_y = nn.Linear(settings.d, settings.width), nn.Linear(1, settings.width)
        self.backbone = _gpt2_backbone(settings, attention)
        self.backbone.wte.requires_grad_(False)  # numbers are embedded, words are not
        self.head = nn.Linear(settings.width, 1)

    def forward(self, context_x: Tensor, context_y: Tensor, query_x: Tensor) -> Tensor:
        """Return predictions as `PairTransformer.forward` does, exactly as one sequence per query would.

        Raises RequestError for a context longer than the model's positions.
        """
        n, q = context_x.shape[-2], query_x.shape[-2]
        if n > self._most:
            raise RequestError(
                f"the context has {n} rows, this GPT-2 was built for {self._most}", "take fewer"
            )
        tokens = torch.cat([self._interleave(context_x, context_y), self.read_x(query_x)], dim=-2)
        mask, tasks = _query_mask(2 * n, q, tokens), tokens.shape[0]
        positions = torch.arange(2 * n + q, device=tokens.device).clamp(max=2 * n)
        hidden = self.backbone(
            inputs_embeds=tokens,
            attention_mask=mask.expand(tasks, 1, -1, -1),
            position_ids=positions[None].expand(tasks, -1),
        ).last_hidden_state
        return self.head(hidden[..., 2 * n :, :]).squeeze(-1)

    def training_predictions(self, x: Tensor, y: Tensor, cut: int) -> tuple[Tensor, Tensor]:
        """Return the causal predictions for all rows (each from the rows before it) and their labels.

        `cut` is not used: a causal model learns every context length at once.
        """
        tokens = self._interleave(x, y)[:, :-1]  # nothing is asked after the last label
        hidden = self.backbone(inputs_embeds=tokens).last_hidden_state
        return self.head(hidden[:, 0::2]).squeeze(-1), y

    def _interleave(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([self.read_x(x), self.read_y(y.unsqueeze(-1))], dim=-2).flatten(-3, -2)


class Gpt2OverPairs(SmallTransformer):
    """Hugging Face's GPT-2 over the pair-token model's tokens: causal, and without positions.

    Rows have no order, so every token stands at position 0, whose embedding is held at zero: a context of any
    length is read. Its blocks have the pair-token model's shape and can begin with its weights.
    """

    def __init__(self, settings: ModelSettings, attention: str = "eager") -> None:
        super().__init__()
        self.rows = None
        self.embed = nn.Linear(settings.d + 2, settings.width)
        self.backbone = _gpt2_backbone(settings, attention)
        self.backbone.wte.requires_grad_(False)
        self.backbone.wpe.requires_grad_(False).weight.data.zero_()
        self.head = nn.Linear(settings.width, 1)

    def forward(self, context_x: Tensor, context_y: Tensor, query_x: Tensor) -> Tensor:
        """Return predictions as `PairTransformer.forward` does; a context row sees those before it alone."""
        n, q = context_x.shape[-2], query_x.shape[-2]
        tokens = self.embed(_pair_tokens(context_x, context_y, query_x))
        mask = _query_mask(n, q, tokens).expand(tokens.shape[0], 1, -1, -1)
        place = torch.zeros(tokens.shape[:2], dtype=torch.long, device=tokens.device)
        hidden = self.backbone(inputs_embeds=tokens, attention_mask=mask, position_ids=place)
        return self.head(hidden.last_hidden_state[..., n:, :]).squeeze(-1)

    @torch.no_grad()
    def begin_with(self, pair: PairTransformer) -> None:
        """Take the weights of a pair-token model of the same shape."""
        self.embed.load_state_dict(pair.embed.state_dict())
        self.head.load_state_dict(pair.head.state_dict())
        self.backbone.ln_f.load_state_dict(pair.norm.state_dict())
        for own, block in zip(self.backbone.h, pair.blocks, strict=True):
            assert isinstance(block, _PairBlock), "a pair-token model has no others"
            own.ln_1.load_state_dict(block.norm_1.state_dict())
            own.ln_2.load_state_dict(block.norm_2.state_dict())
            linear: tuple[nn.Linear, ...] = (block.qkv, block.out, block.up, block.down)
            places = (own.attn.c_attn, own.attn.c_proj, own.mlp.c_fc, own.mlp.c_proj)
            for place, source in zip(places, linear, strict=True):
                place.weight.copy_(source.weight.T)
                place.bias.copy_(source.bias)


def build_model(settings: ModelSettings, seed: int, attention: str = "eager") -> SmallTransformer:
    """Return a fresh model; equal seeds, equal weights. `attention` is GPT-2's: eager or sdpa."""
    from tttab.seeding import stream_seed

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "transformer", settings.kind, settings.d))
        if settings.kind == "pair":
            return PairTransformer(settings)
        if settings.kind == "gpt2-pairs":
            return Gpt2OverPairs(settings, attention)
        return Gpt2Regressor(settings, attention)


def _gpt2_backbone(settings: ModelSettings, attention: str) -> Any:
    try:
        from transformers import GPT2Config, GPT2Model
    except ImportError as error:
        raise MissingExtra("transformers", "transformer") from error
    config = GPT2Config(
        vocab_size=1,
        n_positions=2 * settings.rows + 1,
        n_embd=settings.width,
        n_layer=settings.layers,
        n_head=settings.heads,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    config._attn_implementation = attention
    return GPT2Model(config)


def _query_mask(context: int, q: int, tokens: Tensor) -> Tensor:
    """Return the additive mask under which each of q queries follows the whole context's tokens alone."""
    size = context + q
    allowed = torch.ones(size, size, dtype=torch.bool, device=tokens.device).tril()
    allowed[context:, context:] = torch.eye(q, dtype=torch.bool, device=tokens.device)
    mask = torch.zeros(1, 1, size, size, dtype=tokens.dtype, device=tokens.device)
    return mask.masked_fill(~allowed, torch.finfo(tokens.dtype).min)
