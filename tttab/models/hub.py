"""Files from the model hub: downloads that end in time, and the SHA-256 that the hub states of a file.

huggingface_hub makes the requests, so proxies (HTTPS_PROXY), mirrors (HF_ENDPOINT), tokens and the offline
variables work as usual.
"""

from __future__ import annotations

import re
import threading
import urllib.request
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

from tttab.errors import ModelError
from tttab.system.files import switch
from tttab.text import shown, without_secrets

ANSWER_SECONDS = 5.0
"""How long a server may take to say the next word."""
OFFLINE = ("TTTAB_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Switches of the environment that forbid downloads."""
_BLOCK = 2**18


def offline() -> str:
    """Return the switch that forbids downloads; empty where none does.

    Raises:
        RequestError: a switch holds a word that is neither yes nor no.
    """
    return next((name for name in OFFLINE if switch(name)), "")


def fetch(
    repository: str, file: str, folder: Path, *, mirror: str = "", seconds: float | None = None
) -> Path:
    """Download a file of the hub, from `mirror` where the hub does not give it, and return its place.

    Args:
        repository: of the hub.
        file: its name there.
        folder: an empty one to download into.
        mirror: an address that has the file too.
        seconds: the most it may take from each; None: as long as bytes keep coming.

    Raises:
        ModelError: neither gives it, with the reasons; without a hint, which is the caller's to add, except
            where the hub asks for its terms to be accepted.
    """
    sources: dict[str, Callable[[Path, threading.Event], Path]] = {
        _host(_endpoint()): lambda place, stop: _from_hub(repository, file, place, stop)
    }
    if mirror:
        sources[_host(mirror)] = lambda place, stop: _from_address(f"{mirror}/{file}", place / file, stop)
    reasons, hint = [], ""
    for number, (host, get) in enumerate(sources.items()):
        place = folder / str(number)  # a download that is given up may still write into its own
        place.mkdir()
        try:
            return _in_time(get, place, seconds)
        except Exception as error:
            reasons.append(f"{host}: {reason_of(error)}")
            if type(error).__name__ == "GatedRepoError":
                hint = f"accept the terms at {_endpoint()}/{repository}, then: hf auth login"
    raise ModelError(f"{file} could not be downloaded ({'; '.join(reasons)})", hint)


def reason_of(error: BaseException) -> str:
    """Return in a line why a request failed: what lies at the bottom, and all of its words."""
    while error.__cause__ is not None and not hasattr(error, "server_message"):  # the hub's own words
        error = error.__cause__
    reason = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
    words = " ".join(str(reason).split()) or type(error).__name__
    return shown(without_secrets(words), 300)


def stated_sha256(repository: str, file: str) -> str | None:
    """Return the SHA-256 that the hub states for a file, in hex; None where none is stated or to be had.

    A large file's entity tag is its hash. Small ones have another kind of tag.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        tag = get_hf_file_metadata(hf_hub_url(repository, file), timeout=ANSWER_SECONDS).etag
    except Exception:  # no network, offline mode, a licence not accepted, a mirror that knows no such tag
        return None
    return tag if tag and re.fullmatch("[0-9a-f]{64}", tag) else None


def _endpoint() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _host(address: str) -> str:
    return address.partition("://")[2].partition("/")[0].rpartition("@")[2]


def _from_hub(repository: str, file: str, folder: Path, stop: threading.Event) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import tqdm

    # A hub that does not answer is told at once here; the download itself would ask six times.
    get_hf_file_metadata(hf_hub_url(repository, file), timeout=ANSWER_SECONDS)

    class Silent(tqdm):
        """No bar, and the one place where a download that was given up can be ended."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if stop.is_set():
                raise TimeoutError("given up")
            return super().update(n)

    got = hf_hub_download(repository, file, local_dir=folder, etag_timeout=ANSWER_SECONDS, tqdm_class=Silent)
    return Path(got)


def _from_address(address: str, target: Path, stop: threading.Event) -> Path:
    with urllib.request.urlopen(address, timeout=ANSWER_SECONDS) as answer, open(target, "wb") as part:
        promised = answer.headers.get("Content-Length")
        while not stop.is_set() and (block := answer.read(_BLOCK)):
            part.write(block)
        if promised is not None and part.tell() != int(promised):
            raise OSError(f"{part.tell():,} of {int(promised):,} bytes came")
    return target


def _in_time(get: Callable[[Path, threading.Event], Path], folder: Path, seconds: float | None) -> Path:
    """Download in a thread that is left behind when its time is up: no time-out ends a name look-up.

    Raises:
        TimeoutError: it took longer.
        Exception: what the download raised.
    """
    outcome: list[Path | Exception] = []
    stop = threading.Event()

    def work() -> None:
        try:
            outcome.append(get(folder, stop))
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the hub's advice on tokens
        thread.start()
        try:
            thread.join(seconds)
        finally:
            stop.set()
    if not outcome:
        _close_connections()
        thread.join(ANSWER_SECONDS / 5)
        raise TimeoutError(f"not done in {seconds:g} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


def _close_connections() -> None:
    with suppress(Exception):
        from huggingface_hub import close_session

        close_session()
