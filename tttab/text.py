"""Foreign text made safe to show: file and column names, labels, headers, other libraries' messages.

Whatever goes to a terminal, a page or a hint passes `shown`; what goes into a command to type passes
`shell_word`.
"""

from __future__ import annotations

import html
import json
import os
import re
import shlex
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote

# Control characters drive the terminal (OSC 52 sets the clipboard), line separators forge lines, and
# bidirectional marks and tag characters make one name look like another.
_UNSEEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)
_WORD = re.compile(r"[^\s'\"<>\x00-\x1f\x7f]+")  # control characters: colours end at a word's end
_LOGIN = re.compile(r"://[^\s/'\"<>]{1,500}@")
_HEADER = re.compile(
    r"(\b(?:Bearer|Authorization['\"]?\s?[:=]\s?['\"]?(?:Basic|Bearer|Token)?)\s{1,3})[^\s'\"<>]+",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(
    r"(\b(?:api_?key|(?:access|auth)_?token|secret|passw(?:or)?d)\W{1,5})[\w+/.-]{16,}", re.IGNORECASE
)
_TOKEN_VARIABLES = (
    "OPENML_APIKEY", "OPENML_API_KEY", "TABPFN_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
    "HUGGINGFACEHUB_API_TOKEN",
)  # fmt: skip
_PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")
_READ_BY_MARKDOWN = re.compile(r"[\\`*\[\]<>|~$&#]|\b_|_\b|(?<=_)_")  # a_b is read as it stands
_FIGURE = re.compile(r"[\d\s.,+\-\[\]≤≥%ex]*")
_SHORTEST_SECRET = 6
_kept: set[str] = set()


def decoded(value: Any) -> str:
    """Return `value` as text that UTF-8 can hold: bytes are decoded, lone surrogates become `?`."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "replace").decode("utf-8")


def visible(value: Any) -> str:
    """Return `value` as one line that drives no terminal; secrets stay, so this is for data.

    White space of every kind becomes a space; other control characters, bidirectional marks and lone
    surrogates become their escapes (`\\x1b`, `\\u202e`).
    """
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    text = re.sub(r"[\t\n\v\f\r\x85\u2028\u2029]+", " ", text)
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shown(value: Any, most: int | None = None) -> str:
    """Return `value` as one line for people: `visible`, and without secrets.

    Args:
        value: anything that `str` takes; bytes are decoded.
        most: the longest answer, characters; the end of a longer one is `…`.
    """
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
    text = visible(without_secrets(text))
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def brief(value: Any) -> str:
    """Return a name or a cell as a message quotes it, at most 60 characters."""
    text = repr(value.item() if hasattr(value, "item") else value)
    return text if len(text) <= 60 else text[:57] + "..."


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, each cut to 60 characters, and how many more there are."""
    rest = len(names) - most
    some = ", ".join(shown(name, 60) for name in names[:most])
    return f"{some} and {rest:,} more" if rest > 0 else some


def json_text(text: str, *, ascii_only: bool = False) -> str:
    """Return a JSON document as UTF-8 can hold it, what drives a terminal escaped, known secrets cut.

    Args:
        text: the document, its lines separated by newlines.
        ascii_only: escape every other character too, for an output that UTF-8 does not suit.
    """
    unfit = re.compile(r"[^\n\x20-\x7e]") if ascii_only else _UNSEEN
    return unfit.sub(
        lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1],
        _without(known_secrets(), decoded(text)),
    )


def html_text(value: Any) -> str:
    """Return `value` as HTML that shows it, and nothing else."""
    return html.escape(shown(value))


def markdown_text(value: Any) -> str:
    """Return `value` as Markdown that shows it, fit for a table's cell; figures stay as they are."""
    text = shown(value)
    return text if _FIGURE.fullmatch(text) else _READ_BY_MARKDOWN.sub(r"\\\g<0>", text)


def shell_word(value: Any) -> str:
    """Return `value` as one word of a command to type."""
    return shlex.quote(shown(value))


def keep_secret(secret: str | None) -> None:
    """Cut `secret` from every text that this process shows from now on; too short ones are no secrets."""
    if secret and len(secret) >= _SHORTEST_SECRET:
        _kept.update((secret, quote(secret, safe="")))


def known_secrets() -> list[str]:
    """Return what is known to be secret: what was kept, and tokens and proxies' logins in the environment."""
    found = {*_kept, *(os.environ.get(name, "").strip() for name in _TOKEN_VARIABLES)}
    for name in _PROXY_VARIABLES:
        login, at, _ = os.environ.get(name, "").split("://")[-1].rpartition("@")
        if at:
            password = login.partition(":")[2]
            found |= {login, password, unquote(password)}
    return sorted((secret for secret in found if len(secret) >= _SHORTEST_SECRET), key=len, reverse=True)


def without_secrets(text: str) -> str:
    """Cut what no output may hold: queries and logins of URLs, authorisations, keys, all known secrets."""
    if len(text) < _SHORTEST_SECRET:
        return text
    text = _without(known_secrets(), text)
    text = _LOGIN.sub("://…@", _WORD.sub(_without_query, text) if "/" in text else text)
    return _ASSIGNED.sub(r"\1…", _HEADER.sub(r"\1…", text))


def _without(secrets: list[str], text: str) -> str:
    for secret in secrets:
        text = text.replace(secret, "…")
    return text


def _without_query(found: re.Match[str]) -> str:
    """Return a word without its query if it is a URL, or the path of one as urllib3 names it."""
    word = found[0]
    path, mark, query = word.partition("?" if "?" in word else "#")
    named = "=" in query
    is_url = ("://" in path and (named or mark == "?")) or ("/" in path and named and mark == "?")
    return f"{path}{mark}…" if query and is_url else word
