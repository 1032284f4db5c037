"""Text that is not ours, made fit to show: file and column names, labels, headers, other libraries' messages.

Whatever goes to a terminal, a page, a JSON line or a hint passes `shown`; what goes into a command to
type passes `shell_word`. What does not belong here: where text is printed, and its meaning.
"""

from __future__ import annotations

import os
import re
import shlex
from typing import Any

# Control characters drive the terminal (OSC 52 sets the clipboard), line separators forge lines, and
# bidirectional marks and tag characters make one name look like another.
_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
_QUERY = re.compile(r"""(/[^\s?'"<>]{0,2000}+)\?[^\s'"<>]++""")
_LOGIN = re.compile(r"(\b[a-z][a-z0-9+.-]{1,20}://)[^\s/@'\"<>]{1,500}@", re.IGNORECASE)
_BEARER = re.compile(r"(\bBearer\s+)[^\s'\"<>]++", re.IGNORECASE)
_SECRET_VARIABLES = (
    "OPENML_APIKEY", "TABPFN_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN",
)  # fmt: skip
_SHORTEST_SECRET = 6


def decoded(value: Any) -> str:
    """Return `value` as text that UTF-8 can hold: bytes are decoded, lone surrogates become `?`."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "replace").decode("utf-8")


def shown(value: Any, most: int | None = None) -> str:
    """Return `value` as one line for people, without secrets.

    White space of every kind becomes a space; other control characters, bidirectional marks and lone
    surrogates become their escapes (`\\x1b`, `\\u202e`).

    Args:
        value: anything that `str` takes; bytes are decoded.
        most: the longest answer, characters; the end of a longer one is `…`.
    """
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    text = without_secrets(re.sub(r"[\t\n\v\f\r\x85\u2028\u2029]+", " ", text))
    text = _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def shell_word(value: Any) -> str:
    """Return `value` as one word of a command to type."""
    return shlex.quote(shown(value))


def without_secrets(text: str) -> str:
    """Cut what no output may hold: queries and logins of URLs, bearer tokens, tokens of the environment."""
    text = _BEARER.sub(r"\1…", _LOGIN.sub(r"\1…@", _QUERY.sub(r"\1?…", text)))
    for name in _SECRET_VARIABLES:
        secret = os.environ.get(name, "")
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "…")
    return text
