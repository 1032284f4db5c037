"""Model cards: a YAML head that a program can check against the file, and a text for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tttab.errors import ModelError, RequestError
from tttab.pretrain.reading import parse_yaml, read_text
from tttab.system.files import write_text_atomically

FENCE = "---\n"
FIELDS = (
    "name",
    "file",
    "sha256",
    "task",
    "architecture",
    "parameters",
    "storage",
    "prior",
    "training",
    "served",
    "licence",
)
"""What every head must hold."""


def read_card(path: Path) -> tuple[dict[str, Any], str]:
    """Return a card's head and text.

    Raises:
        ModelError: there is no such card, or its head is not what a card must hold.
    """
    if not path.is_file():
        raise ModelError(f"no model card at {path}", "tttab pretrain bundle writes one")
    try:
        parts = read_text(path, _ANEW).split(FENCE, 2)
        head, text = parts[1:] if len(parts) == 3 else ("", "")
        # With the fence's line in front, so that a message names the card's line.
        content = parse_yaml(f"\n{head}", path, "model card", _ANEW) or {}
    except RequestError as error:
        raise ModelError(error.message, error.hint) from error
    if not isinstance(content, dict):
        raise ModelError(f"{path.name} has no head of names and values", _ANEW)
    missing = [name for name in FIELDS if name not in content]
    if missing:
        raise ModelError(f"{path.name} lacks {', '.join(missing)}", _ANEW)
    return content, text


def write_card(path: Path, head: dict[str, Any], text: str) -> None:
    """Write a card; a text that is there already stays."""
    if path.is_file():
        text = read_card(path)[1]
    body = yaml.dump(head, Dumper=_Plain, sort_keys=False, allow_unicode=True, width=100)
    write_text_atomically(path, f"{FENCE}{body}{FENCE}{text}")


class _Plain(yaml.SafeDumper):
    """Writes out twice what stands in two places: aliases are not read again."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: no aliases."""
        return True


_ANEW = "tttab pretrain bundle writes a whole head"
