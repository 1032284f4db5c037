"""An opened TabPFN classifier behind `tttab.contracts.Session`; `session` has what the regressor shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tttab.contracts import Execution, RowScores
from tttab.core import Task
from tttab.models.losses import of_labels
from tttab.models.opened import check_classes
from tttab.models.tabpfn.forward import AS_SERVED, ForwardPass, log_mean
from tttab.models.tabpfn.inputs import Member, PreparedContext, PreparedQueries
from tttab.models.tabpfn.predictor import Server, TunedServer
from tttab.models.tabpfn.session import OpenedModel, Weights

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PreparedContext", "PreparedQueries", "Server", "TabPFNSession", "Weights"]


class TabPFNSession(OpenedModel):
    """An opened TabPFN classifier; `temperature` is served, so a rule may train it."""

    task: Task = "classification"

    def logits(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        how: Execution = AS_SERVED,
    ) -> torch.Tensor:
        """Return raw logits of query rows, shape (members, rows, classes), before the temperature.

        Members stand in the order of tabpfn's own `predict_raw_logits`.
        """
        whole = [self.outputs(context, queries, rows, p, how) for p in self.whole_calls(context)]
        return torch.stack([whole[m.call][:, m.batch, m.columns] for m in context.members])

    def log_probabilities(
        self,
        context: PreparedContext,
        queries: PreparedQueries,
        rows: np.ndarray,
        how: Execution = AS_SERVED,
    ) -> torch.Tensor:
        """Return log p(class), shape (rows, classes), as served: the mean over members after softmax."""
        scaled = self.logits(context, queries, rows, how) / self.log_temperature.exp()
        return log_mean(torch.log_softmax(scaled, dim=-1))

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
        """Return each member's log probability of the true class, or of all, (members, rows[, classes])."""
        outputs = self.outputs(context, queries, rows, which, how) / self.log_temperature.exp()
        members = self._members_of(context, which)
        logits = torch.stack([outputs[:, place, member.columns] for member, place in members])
        log_p = torch.log_softmax(logits, dim=-1)
        return log_p if of_classes else of_labels(log_p, queries.y[torch.as_tensor(rows, device=self.device)])

    def _scores(
        self, context: PreparedContext, queries: PreparedQueries, rows: np.ndarray, how: Execution
    ) -> RowScores:
        log_p = self.log_probabilities(context, queries, rows, how)
        labels = queries.y[torch.as_tensor(rows, device=self.device)]
        loss = torch.nn.functional.nll_loss(log_p, labels, reduction="none")
        return RowScores(loss.cpu().numpy(), log_p.exp().cpu().numpy())

    def serve(self, context: PreparedContext) -> Server:
        """Return a predictor with the context's key-value cache, on a copy of the weights as they are now."""
        if self.tuning is not None:
            return self._serve_tuned(context)
        return self.answering(self.fitted_with_cache(context.x, context.y), context.x)

    def answering(self, estimator: Any, reference: pd.DataFrame) -> Server:
        """Return the predictor around a fitted estimator."""
        return Server(estimator, reference, self.architecture)

    def _serve_tuned(self, context: PreparedContext) -> Server:
        """Return a predictor that reads what has been tuned beside frozen weights."""
        held, nothing = self.fork(), PreparedQueries([], torch.zeros(0))
        with torch.no_grad():
            for which in held.whole_calls(context):
                held._shared[which] = held._share(context, nothing, which, AS_SERVED)

        def answer(x: pd.DataFrame) -> np.ndarray:
            queries, rows = held.queries(context, x, np.zeros(len(x), dtype=int)), np.arange(len(x))
            with torch.no_grad():
                p = torch.softmax(held.log_probabilities(context, queries, rows).double(), dim=-1)
            return p.cpu().numpy()

        kept = [tensor for shared in held._shared.values() for tensor in shared.read]
        return TunedServer(answer, context.x, sum(t.numel() * t.element_size() for t in kept))

    def _read_places(self, context: PreparedContext, x: pd.DataFrame) -> list[Member]:
        answer = context.estimator.predict_raw_logits(x)
        codes = torch.as_tensor(answer[:, 0, : context.classes]).long()
        return [
            Member(int(row[0] >> 16), int(row[0] >> 8 & 255), (row & 255).to(self.device)) for row in codes
        ]

    def _check_labels(self, y: np.ndarray, classes: int) -> None:
        """Refuse a context without a row of some class: TabPFN would read its logits for another class."""
        check_classes(y, classes)

    def _labels(self, y: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(y, dtype=torch.long, device=self.device)
