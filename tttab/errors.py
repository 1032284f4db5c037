"""Every error tttab raises on purpose, in one tree.

What belongs here: exception classes, the check of a name that many make, and the warnings that a program
wants to tell from others. How they are printed is `tttab.cli`'s business.

TttabError                  a message for the user and a hint with the next command; exit code 2
├── RequestError            the arguments do not fit (n < 1, no such device, unknown option value)
├── DataError               a table cannot be read or cannot be used
│   └── UnknownDataset      no data set of that name or id
├── SplitError              the table cannot give the split that was asked for
├── ModelError              a model file is missing, damaged, foreign or does not fit the table
├── RuleError               a rule selects no parameters, or does not exist
├── MemoryPlanError         no plan fits the memory budget
├── BundleError             a bundle is damaged, incomplete or was tampered with
├── StoreError              a result store cannot be read or written
├── MissingExtra            an optional dependency is not installed
├── Interrupted             Ctrl-C in long work; the hint says how to go on; exit code 130
└── BadAnswer               the command ran, but its answer is bad; exit code 1
"""

from __future__ import annotations

from collections.abc import Collection

from tttab.text import shown


class TttabError(Exception):
    """One line for the user (`message`) and the next thing to type (`hint`), fit to be shown.

    `str` of it is the message alone; Python's traceback shows the hint below it, as a note.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        message, hint = shown(message), shown(hint)
        super().__init__(message)
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")


class RequestError(TttabError, ValueError):
    """The arguments do not fit."""


def check_name(what: str, name: object, known: Collection[str], option: str) -> None:
    """Raise RequestError where no `what` is called `name`; the hint is the option with all that are."""
    if name not in known:
        raise RequestError(f"no {what} is called {name!r}", f"{option} {'|'.join(known)}")


class DataError(TttabError, ValueError):
    """A table cannot be read or cannot be used."""


class UnknownDataset(DataError):
    """No data set of that name or id."""


class SplitError(TttabError, ValueError):
    """The table cannot give the split that was asked for."""


class ModelError(TttabError, ValueError):
    """A model file is missing, damaged, foreign or does not fit the table."""


class RuleError(TttabError):
    """A rule selects no parameters, or does not exist."""


class MemoryPlanError(TttabError):
    """No plan fits the memory budget."""


class BundleError(TttabError):
    """A bundle is damaged, incomplete or was tampered with."""


class StoreError(TttabError):
    """A result store cannot be read or written."""


class MissingExtra(TttabError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package {package}", f"pip install 'tttab[{extra}]'")
        self._package, self._extra = package, extra

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Return how it crosses to another process."""
        return type(self), (self._package, self._extra)


class Interrupted(TttabError):
    """Ctrl-C in long work; the hint says how to go on."""

    exit_code = 130


class BadAnswer(TttabError):
    """The command ran, but its answer is bad."""

    exit_code = 1


class FallbackWarning(UserWarning):
    """`auto` took the included model, because the official one could not be downloaded."""
