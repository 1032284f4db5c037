"""Codes: every class has its own, they are balanced, and what they say is decoded as by hand."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from tttab.models.codes import MOST_CODES, code_book, decoded, separation


@pytest.mark.parametrize(("classes", "symbols"), [(11, 10), (26, 10), (100, 10), (300, 10), (3, 2), (26, 2)])
def test_a_book_tells_all_classes_apart_and_uses_every_symbol_alike(classes, symbols):
    book = code_book(classes, symbols, 0)
    assert len(np.unique(book, axis=1).T) == classes and separation(book) >= 1
    assert symbols ** len(book) > classes and len(book) <= MOST_CODES
    for code in book:
        counts = np.bincount(code, minlength=symbols)
        assert len(counts) == symbols and np.ptp(counts) <= 1
    assert np.array_equal(book, code_book(classes, symbols, 0))
    assert not np.array_equal(book, code_book(classes, symbols, 1))


def test_books_stay_as_they_are_for_bundles_do_not_hold_them():
    books = code_book(26, 10, 0), code_book(100, 10, 3)
    hashes = [hashlib.sha256(book.astype("int8").tobytes()).hexdigest()[:16] for book in books]
    assert hashes == ["509b0bda1d714a16", "348496bcc4392ef7"]


def test_classes_that_fit_need_no_code_and_a_separation_is_counted_in_codes():
    assert code_book(4, 10, 0).tolist() == [[0, 1, 2, 3]]
    assert separation(np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0]])) == 1
    assert separation(np.array([[0, 1, 2], [0, 1, 2]])) == 2


def test_classes_are_as_likely_as_all_their_symbols_together():
    log_p = torch.tensor([[[0.6, 0.4]], [[0.7, 0.3]]], dtype=torch.float64).log()
    p = decoded(log_p, np.array([[0, 0, 1], [0, 1, 1]])).exp()
    np.testing.assert_allclose(p, np.array([[0.6 * 0.7, 0.6 * 0.3, 0.4 * 0.3]]) / 0.72, rtol=1e-12)
