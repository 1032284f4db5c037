"""Error-correcting output codes: which symbol stands for a class in which code, and back to classes.

Each code divides all classes among the few symbols that a model tells apart; a class is the word of its
symbols (Dietterich and Bakiri 1995, Solving Multiclass Learning Problems via Error-Correcting Output Codes).
Words are decoded by the loss of a class (Allwein, Schapire and Singer 2000, Reducing Multiclass to Binary),
here its log likelihood.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from tttab.seeding import numpy_stream

CODES_PER_CLASS, MOST_CODES = 3, 16
"""Codes per class that shares a symbol, and at most: a code tells the less of a class the more share one.
With three, decoded probabilities of the untouched model are about calibrated; more make them too sure."""
DRAWS = 20


@lru_cache(maxsize=8)
def code_book(classes: int, symbols: int, seed: int) -> np.ndarray:
    """Return the symbol of each class in each code, shape (codes, classes), from a stream named after both.

    In a code every symbol stands for equally many classes, or one more. Of several books drawn at random that
    one is taken whose two most similar classes differ in the most codes. Where there are symbols enough,
    one code is all: the classes themselves.
    """
    if classes <= symbols:
        return np.arange(classes)[None]
    fewest = next(codes for codes in range(2, 64) if symbols**codes >= classes)
    codes = max(fewest + 1, min(MOST_CODES, round(CODES_PER_CLASS * classes / symbols)))
    rng = numpy_stream(seed, "codes", classes, symbols)
    ranks = [[rng.permutation(classes) for _ in range(codes)] for _ in range(DRAWS)]
    return max((np.array(order) % symbols for order in ranks), key=separation)


def separation(book: np.ndarray) -> int:
    """Return in how many codes the two most similar classes of a book differ."""
    words = np.concatenate([np.eye(code.max() + 1, dtype=np.float32)[code] for code in book], axis=1)
    alike = words @ words.T
    np.fill_diagonal(alike, 0)
    return len(book) - int(alike.max())


def decoded(log_p: torch.Tensor, book: np.ndarray) -> torch.Tensor:
    """Return log p(class), shape (rows, classes), from log p(symbol), shape (codes, rows, symbols).

    The codes count as independent witnesses of one class: a class is as likely as all its symbols together.
    """
    said = [code[:, torch.as_tensor(symbols)] for code, symbols in zip(log_p, book, strict=True)]
    return torch.log_softmax(torch.stack(said).sum(dim=0), dim=-1)
