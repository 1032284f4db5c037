"""Writing files so that a crash, a full disk or Ctrl-C leaves the old file whole, hashing them, and switches.

What does not belong here: any knowledge of what the files hold or what a switch does.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tttab.errors import RequestError

SWITCH_WORDS = {"1": True, "true": True, "yes": True, "on": True}
SWITCH_WORDS |= {"": False, "0": False, "false": False, "no": False, "off": False}


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it replaces `target`, else it is removed."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        flush_to_disk(part)
        os.chmod(part, 0o666 & ~_umask())
        os.replace(part, target)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def write_text_atomically(target: str | os.PathLike[str], text: str) -> None:
    """Write `text` (UTF-8) to `target`, whole or not at all."""
    with atomic_path(target) as part:
        part.write_text(text, encoding="utf-8")


def check_writable(directory: str | os.PathLike[str]) -> None:
    """Try to write where `directory` is or would be made, so that long work does not end in an error.

    Raises:
        OSError: it cannot be written to. Nothing is left behind either way.
    """
    place = Path(directory).absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    tempfile.TemporaryFile(dir=place).close()


def cache_folder() -> Path:
    """Return tttab's cache folder, made if need be: $TTTAB_CACHE, else in the user's cache.

    Where there is no usable home it lies in the temporary folder.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(os.environ.get("TTTAB_CACHE") or Path(home) / "tttab")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"tttab-{os.getuid()}"
        folder.mkdir(exist_ok=True)
    return folder


def switch(name: str) -> bool:
    """Tell whether the environment variable `name` is on; one that is not set is off.

    Raises:
        RequestError: it holds no word for on (1, true, yes, on) or off (0, false, no, off, nothing).
    """
    word = os.environ.get(name, "")
    if (on := SWITCH_WORDS.get(word.strip().lower())) is None:
        raise RequestError(
            f"the environment variable {name} is {word!r}, neither on nor off", f"export {name}=1"
        )
    return on


def plain(value: Any) -> Any:
    """Return `value` as JSON knows it: NumPy scalars as numbers, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return value if not isinstance(value, float) or math.isfinite(value) else None


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    """Return when the file's bytes are on the disk."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
