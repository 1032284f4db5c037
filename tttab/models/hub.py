"""What the model hub says of a file: the SHA-256 it states, and where the hub is.

What does not belong here: downloading, which is tabpfn's, and remembering (`catalog`).
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

SECONDS = 10.0


def address() -> tuple[str, int]:
    """Return host and port of the hub: of HF_ENDPOINT, or of huggingface.co."""
    url = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    return url.hostname or "huggingface.co", url.port or (80 if url.scheme == "http" else 443)


def stated_sha256(repository: str, file: str) -> str | None:
    """Return the SHA-256 that the hub states for a file, in hex; None where none is stated or to be had.

    A large file's entity tag is its hash. Small ones have another kind of tag.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        tag = get_hf_file_metadata(hf_hub_url(repository, file), timeout=SECONDS).etag
    except Exception:  # no network, offline mode, a licence not accepted, a mirror that knows no such tag
        return None
    return tag if tag and re.fullmatch("[0-9a-f]{64}", tag) else None
