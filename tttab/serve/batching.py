"""Requests that wait together are predicted together: one call of the model for all of them.

While a batch runs, requests gather; the next batch takes them. So nobody waits for a timer, a single request
is answered at once, and under load a call has many rows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tttab.data.levels import match_categories
from tttab.errors import TttabError

if TYPE_CHECKING:
    import pandas as pd

    from tttab.bundle import Bundle

BATCH = 1_000
"""Rows after which a batch takes no further request."""


class Busy(TttabError):
    """Too many rows are waiting: the client should try again later."""


@dataclass
class _Waiting:
    x: pd.DataFrame
    answer: asyncio.Future[pd.DataFrame]


class Batches:
    """The queue in front of one bundle's model. Use it inside one event loop."""

    def __init__(self, bundle: Bundle, max_waiting: int) -> None:
        """Serve `bundle`; `max_waiting` rows may wait."""
        self._bundle, self._max_waiting = bundle, max_waiting
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="predict")
        self.waiting = 0
        """Rows in the queue."""
        self.calls = 0
        """Calls of the model so far."""

    async def predict(self, x: pd.DataFrame) -> pd.DataFrame:
        """Return the predictions for rows that `Schema.read` gave.

        Raises:
            Busy: too many rows are waiting.
        """
        if self.waiting and self.waiting + len(x) > self._max_waiting:
            raise Busy(f"{self.waiting:,} rows are waiting", "try again in a second")
        item = _Waiting(x, asyncio.get_running_loop().create_future())
        self._queue.append(item)
        self.waiting += len(x)
        self._wake.set()
        return await item.answer

    async def run(self) -> None:
        """Answer what waits, until cancelled."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._wake.wait()
                if batch := self._next_batch():
                    await self._answer(loop, batch)
                else:
                    self._wake.clear()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _next_batch(self) -> list[_Waiting]:
        """Take requests until their rows fill a batch; drop those whose client has gone."""
        batch: list[_Waiting] = []
        rows = 0
        while self._queue and (not batch or rows + len(self._queue[0].x) <= BATCH):
            item = self._queue.popleft()
            self.waiting -= len(item.x)
            if not item.answer.done():
                batch.append(item)
                rows += len(item.x)
        return batch

    async def _answer(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting]) -> None:
        self.calls += 1
        frames = [item.x for item in batch]
        try:
            answers = await loop.run_in_executor(self._thread, predict_together, self._bundle, frames)
        except Exception as error:  # of the model: each of the batch is told
            for item in batch:
                if not item.answer.done():
                    item.answer.set_exception(error)
            return
        for item, answer in zip(batch, answers, strict=True):
            if not item.answer.done():
                item.answer.set_result(answer)


def predict_together(bundle: Bundle, frames: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """Return the predictions for each of several frames, from one call of the model."""
    import pandas as pd

    # Texts that the table never had count as missing, as they would alone, and columns stay categories.
    matched = [match_categories(frame, bundle.x) for frame in frames]
    joined = matched[0] if len(matched) == 1 else pd.concat(matched, ignore_index=True)
    answers = bundle.answers(joined)
    ends = np.cumsum([len(frame) for frame in frames])
    return [answers.iloc[end - len(frame) : end] for frame, end in zip(frames, ends, strict=True)]
