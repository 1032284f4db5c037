"""An opened TabPFN regressor behind `tttab.contracts.Session`, with the loss of prediction.

The network answers with logits of a bar distribution over standardised targets (Mueller et al. 2022,
Transformers can do Bayesian inference, section 3). Members may see transformed targets: their bars are mapped
back by tabpfn's own code and averaged as probabilities.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tttab.contracts import Execution, RowScores
from tttab.core import Task
from tttab.errors import ModelError, SplitError
from tttab.metrics import crps_of_bars, regression_metrics
from tttab.models.devices import widest
from tttab.models.tabpfn.forward import AS_SERVED, ForwardPass, log_mean
from tttab.models.tabpfn.inputs import Member, PreparedContext, PreparedQueries
from tttab.models.tabpfn.predictor import Server
from tttab.models.tabpfn.session import OpenedModel

if TYPE_CHECKING:
    import pandas as pd
    from tabpfn.architectures.shared.bar_distribution import FullSupportBarDistribution

QUANTILES = (0.1, 0.5, 0.9)
SMALLEST_MASS = 1e-30
"""Bars of no mass get this much, so that their logarithm has a gradient."""


class TabPFNRegressionSession(OpenedModel):
    """An opened TabPFN regressor; `temperature` is served, so a rule may train it."""

    task: Task = "regression"

    def member_log_likelihoods(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        which: ForwardPass,
        how: Execution = AS_SERVED,
        *,
        of_classes: bool = False,
    ) -> torch.Tensor:
        """Return each member's log density of the target, per unit of the target, (members, rows).

        Raises:
            ModelError: that of classes is asked for.
        """
        if of_classes:
            raise ModelError(
                "a regressor is trained on numbers, not on classes' probabilities", "targets=None"
            )
        outputs = self.outputs(context, queries, rows, which, how)
        bars = [self._bars(outputs[:, place], member) for member, place in self._members_of(context, which)]
        return self._log_likelihoods(context, queries, rows, bars)

    def context(self, x: pd.DataFrame, y: np.ndarray, classes: int = 0) -> PreparedContext:
        """Fit the preprocessing on the context rows; of equal targets nothing is fitted.

        Raises:
            SplitError: there is one row only, or all features are constant.
            ModelError: the table is beyond the model's limits.
        """
        if len(y) < 2:
            raise SplitError("a context of one row does not show how targets differ", "--n 2")
        if np.ptp(y) > 0:
            return super().context(x, y, classes)
        self.check_fits(classes, x.shape[1], len(y))
        return PreparedContext(x, y, classes, None, self.module, constant=float(y[0]))

    def serve(self, context: PreparedContext) -> RegressionServer | ConstantServer:
        """Return a predictor with the context's key-value cache, on a copy of the weights as they are now."""
        if context.constant is not None:
            return ConstantServer(context.constant)
        return self.answering(self.fitted_with_cache(context.x, context.y), context.x)

    def answering(self, estimator: Any, reference: pd.DataFrame) -> RegressionServer:
        """Return the predictor around a fitted estimator."""
        return RegressionServer(estimator, reference, self.architecture)

    def _scores(
        self, context: PreparedContext, queries: PreparedQueries, rows: np.ndarray, how: Execution
    ) -> RowScores:
        bars = self._all_bars(context, queries, rows, how)
        loss = -log_mean(self._log_likelihoods(context, queries, rows, bars))
        mean, scale = self._scale(context)
        centre = self._criterion.mean(torch.stack(bars).mean(dim=0).log()) * scale + mean
        return RowScores(*(values.cpu().numpy().astype(np.float64) for values in (loss, centre)))

    def _all_bars(
        self, context: PreparedContext, queries: PreparedQueries, rows: np.ndarray, how: Execution
    ) -> list[torch.Tensor]:
        """Return every member's mass per bar, shape (rows, buckets) each."""
        return [
            self._bars(outputs[:, place], member)
            for which in self.whole_calls(context)
            for outputs in [self.outputs(context, queries, rows, which, how)]
            for member, place in self._members_of(context, which)
        ]

    def _log_likelihoods(
        self, context: PreparedContext, queries: PreparedQueries, rows: np.ndarray, bars: list[torch.Tensor]
    ) -> torch.Tensor:
        """Return the log density of the targets, per unit of the target, under each member's bars."""
        targets = queries.y[torch.as_tensor(rows, device=self.device)]
        mean, scale = self._scale(context)
        standard = (targets - mean) / scale
        return torch.stack([-self._criterion(mass.log(), standard) - math.log(scale) for mass in bars])

    def _bars(self, logits: torch.Tensor, member: Member) -> torch.Tensor:
        """Return one member's mass per bar of standardised targets, shape (rows, buckets)."""
        from tabpfn.utils import translate_probs_across_borders

        logits = logits / self.log_temperature.exp()
        if member.cancelled is not None:
            logits = logits.masked_fill(member.cancelled, float("-inf"))
        assert member.borders is not None, "_read_places gives every member its borders"
        to = self._criterion.get_buffer("borders")
        return translate_probs_across_borders(logits, frm=member.borders, to=to).clamp_min(SMALLEST_MASS)

    @property
    def _criterion(self) -> FullSupportBarDistribution:
        """The bar distribution over standardised targets."""
        assert self._weights.criterion is not None, "a regressor is built with one"
        return self._weights.criterion.to(self.device)

    def _scale(self, context: PreparedContext) -> tuple[float, float]:
        """Return mean and standard deviation of the context's targets, as tabpfn has fitted them."""
        return float(context.estimator.y_train_mean_), float(context.estimator.y_train_std_)

    def _read_places(self, context: PreparedContext, x: pd.DataFrame) -> list[Member]:
        """Return where each member stands and which borders its outputs have.

        The recorder answers the same number in every bucket; tabpfn divides it by the temperature.
        """
        members = []
        with _member_outputs(context.estimator) as seen:
            context.estimator.predict(x)
        for borders, output in seen:
            known = torch.isfinite(output[0])
            code = round(output[0][known][0].item() * self.temperature)
            edges = torch.as_tensor(borders, device=self.device)
            cancelled = None if known.all() else ~known.to(self.device)
            members.append(Member(code >> 16, code >> 8 & 255, borders=edges, cancelled=cancelled))
        return members

    def _check_labels(self, y: np.ndarray, classes: int) -> None:
        """Targets of any value can serve."""

    def _labels(self, y: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.asarray(y, dtype=np.float64)).to(self.device, widest(self.device))


class RegressionServer(Server):
    """A regressor that answers from one context: means, quantiles, densities."""

    def predict_chunks(self, x: pd.DataFrame) -> Iterator[np.ndarray]:
        """Yield the predictive means chunk by chunk."""
        for chunk in self._chunks(x):
            yield self._estimator.predict(chunk)

    def predict_quantiles(self, x: pd.DataFrame, quantiles: Sequence[float] = QUANTILES) -> np.ndarray:
        """Return predictive quantiles, shape (rows, quantiles)."""
        asked = list(map(float, quantiles))
        parts = [
            np.stack(self._estimator.predict(chunk, output_type="quantiles", quantiles=asked), axis=1)
            for chunk in self._chunks(x)
        ]
        return np.concatenate(parts)

    def metrics(
        self, x: pd.DataFrame, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
    ) -> dict[str, float]:
        """Return rmse, mae and r2 of the means, nll and crps of the densities."""
        scores = self.score(x, y)
        return regression_metrics(y, predicted, scores["nll"], scores["crps"], weights)

    def score(self, x: pd.DataFrame, y: np.ndarray) -> dict[str, np.ndarray]:
        """Return mean, negative log density and CRPS of each row, shape (rows,) each."""
        parts = []
        start = 0
        for chunk in self._chunks(x):
            full = self._estimator.predict(chunk, output_type="full")
            targets = y[start : start + len(chunk)]
            start += len(chunk)
            parts.append((full["mean"], *_density_scores(full["criterion"], full["logits"], targets)))
        mean, nll, crps = (np.concatenate(part) for part in zip(*parts, strict=True))
        return {"mean": mean, "nll": nll, "crps": crps}


class ConstantServer:
    """What a context of equal targets tells: their value, for every row."""

    cache_bytes = 0
    """Nothing is kept but the value."""

    def __init__(self, value: float) -> None:
        self._value = value

    def predict(self, x: pd.DataFrame) -> np.ndarray:
        """Return the value for every row, shape (rows,)."""
        return np.full(len(x), self._value)

    def predict_quantiles(self, x: pd.DataFrame, quantiles: Sequence[float] = QUANTILES) -> np.ndarray:
        """Return the value for every row and quantile, shape (rows, quantiles)."""
        return np.full((len(x), len(quantiles)), self._value)

    def metrics(
        self, x: pd.DataFrame, y: np.ndarray, predicted: np.ndarray, weights: np.ndarray | None = None
    ) -> dict[str, float]:
        """Return rmse, mae, r2 and crps; a single value has no density, so there is no nll."""
        return regression_metrics(y, predicted, crps=np.abs(y - predicted), weights=weights)


@contextmanager
def _member_outputs(estimator: Any) -> Generator[list[tuple[np.ndarray, torch.Tensor]]]:
    """Record what each member answers in one `predict`, with the borders that tabpfn maps it from."""
    plain, seen = estimator._iter_forward_executor, []

    def listen(*arguments: Any, **settings: Any) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        for borders, output in plain(*arguments, **settings):
            seen.append((np.array(borders), output.detach().clone()))
            yield borders, output

    estimator._iter_forward_executor = listen
    try:
        yield seen
    finally:
        del estimator._iter_forward_executor


def _density_scores(
    criterion: FullSupportBarDistribution, logits: torch.Tensor, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return negative log density and CRPS per row of a bar distribution in the target's own units."""
    logits = logits.detach().cpu().double()
    criterion = copy.deepcopy(criterion).cpu().double()
    targets = torch.as_tensor(np.asarray(y, dtype=np.float64))
    nll = criterion(logits, targets).numpy()
    mass = torch.softmax(logits, dim=-1).numpy()
    return nll, crps_of_bars(y, mass, criterion.get_buffer("borders").numpy())
