"""Option values that are lists: words, numbers and seeds with commas."""

from __future__ import annotations

from collections.abc import Sequence

from tttab.errors import RequestError

MOST_SEEDS = 10_000


def words(text: str) -> list[str]:
    """Return the words between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Return whole numbers, sorted.

    Raises:
        RequestError: one of them is none.
    """
    try:
        return tuple(sorted(int(word) for word in words(text)))
    except ValueError:
        raise RequestError(
            f"--{option} takes numbers with commas, got {text!r}", f"--{option} 200,400"
        ) from None


def seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of `5` (0 to 4), `0,3,7` or `5-9`.

    Raises:
        RequestError: the text is none of these, or asks for more than `MOST_SEEDS`.
    """
    first, dash, last = text.partition("-")
    try:
        if dash:
            found: Sequence[int] = range(int(first), int(last) + 1)
        else:
            found = [int(word) for word in words(text)]
            found = range(found[0]) if len(found) == 1 and "," not in text else found
    except ValueError:
        raise RequestError(f"--seeds takes 5, 0,3,7 or 5-9, got {text!r}", "--seeds 5") from None
    if found[MOST_SEEDS:]:
        raise RequestError(f"--seeds asks for more than {MOST_SEEDS:,} seeds", "--seeds 5")
    return tuple(found)
