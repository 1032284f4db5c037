"""A toy session that notes which rows it is shown."""

from __future__ import annotations

from tttab.testing import ToyPredictor, ToySession


class WatchedSession(ToySession):
    """Notes (`context` or `queries`, cells of the first column, labels) of every call, across its forks."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def fork(self):
        fork = super().fork()
        fork.seen = self.seen
        return fork

    def context(self, x, y, classes=0):
        self.seen.append(("context", list(x.iloc[:, 0]), list(y)))
        return super().context(x, y, classes)

    def queries(self, context, x, y):
        self.seen.append(("queries", list(x.iloc[:, 0]), list(y)))
        return super().queries(context, x, y)

    def finetuned(self, x, y, classes, seed, seconds=None, rows=None):
        return ToyPredictor(self, self.context(x[:rows], y[:rows], classes))
