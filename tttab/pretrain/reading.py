"""YAML and JSON that a user hands in, bounded before it is parsed: size, depth, no aliases, no NaN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from tttab.errors import RequestError

MOST_BYTES = 100_000
"""A card takes 18,000. PyYAML reads 20 to 100 kB a second."""
DEEPEST = 12


def read_text(path: Path, hint: str) -> str:
    """Return the text of a small file; `hint` says what to do where that is not possible.

    Raises:
        RequestError: it cannot be read, is no UTF-8 or has more than `MOST_BYTES`.
    """
    try:
        with open(path, "rb") as stream:
            data = stream.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise RequestError(f"{path} is too large: {MOST_BYTES:,} bytes at most", hint)
        return data.decode()
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror or error}", hint) from error
    except UnicodeDecodeError as error:
        raise RequestError(f"{path} is no UTF-8 text", hint) from error


def parse_json(text: str, path: Path, wanted: str, hint: str) -> Any:
    """Return what a JSON text says; where it fails the message names `path` and what was `wanted`.

    Raises:
        RequestError: it is no JSON, holds NaN or an infinity, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise RequestError(f"{path}:{error.lineno} is no {wanted}: {error.msg}", hint) from error
    except ValueError as error:
        raise RequestError(f"{path} is no {wanted}: {error}", hint) from error
    except RecursionError as error:
        raise RequestError(f"{path} is no {wanted}: nested too deeply", hint) from error


def parse_yaml(text: str, path: Path, wanted: str, hint: str) -> Any:
    """Return what a YAML text says; where it fails the message names `path` and what was `wanted`.

    Raises:
        RequestError: it is no YAML, has aliases or is nested too deeply; the line is named.
    """
    try:
        return yaml.load(text, Loader=_Bounded)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else path
        raise RequestError(f"{place} is no {wanted}: {error.problem or error.context}", hint) from error
    except (yaml.YAMLError, ValueError) as error:
        raise RequestError(f"{path} is no {wanted}: {error}", hint) from error


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no number")


class _Bounded(yaml.SafeLoader):
    """The safe loader, without what makes a small text large: aliases and depth."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Refuse an alias, and a node that lies too deep, before it is read."""
        if self.check_event(yaml.AliasEvent):
            self._fail("aliases are not allowed")
        if self.depth >= DEEPEST:
            self._fail(f"nested more than {DEEPEST} deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _fail(self, problem: str) -> None:
        raise ComposerError(None, None, problem, self.peek_event().start_mark)
