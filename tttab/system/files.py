"""Writing files so that a crash, a full disk or Ctrl-C leaves the old file whole, hashing them, and switches.

Written by hand: packages for atomic writes (atomicwrites, unmaintained) sync neither the file nor its folder,
replace devices and pipes, and leave their part behind on a kill.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import secrets
import stat
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from tttab.errors import RequestError
from tttab.text import decoded

SWITCH_WORDS = {"1": True, "true": True, "yes": True, "on": True}
SWITCH_WORDS |= {"": False, "0": False, "false": False, "no": False, "off": False}

PART = ".tttab-part-"
"""How the name of a file or folder begins that is still being written."""
PROBE = ".tttab-probe-"
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Generator[Path]:
    """Yield a temporary path beside `target`; on success it replaces `target`, else it is removed.

    A link is followed: the file behind it is replaced, the link stays. A file that was there keeps its
    mode, and its owner where that is allowed.

    Raises:
        RequestError: there is something else than a regular file.
        OSError: the file cannot be written.
    """
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    target = replaceable(target)
    part = target.parent / new_name(target.suffix)
    try:
        before = target.stat() if target.exists() else None
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if before else 0o666))
        wanted = before or part.stat()
        yield part
        flush_to_disk(part)
        with suppress(PermissionError):
            os.chown(part, wanted.st_uid, wanted.st_gid)
        os.chmod(part, stat.S_IMODE(wanted.st_mode))
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def write_text_atomically(target: str | os.PathLike[str], text: str) -> None:
    """Write `text` (UTF-8; what UTF-8 cannot hold becomes `?`) to `target`, whole or not at all."""
    with atomic_path(target) as part:
        part.write_bytes(decoded(text).encode())


def new_name(suffix: str = "") -> str:
    """Return a name that nobody has, for what is still being written."""
    return f"{PART}{secrets.token_hex(8)}{suffix}"


def replaceable(target: str | os.PathLike[str]) -> Path:
    """Return the file that writing `target` replaces: itself, or what its links lead to.

    Raises:
        RequestError: it is a folder, a device, a pipe or a socket, or another user's in a folder
            where only owners may replace their files.
        OSError: its links lead in a circle.
    """
    real = Path(os.path.realpath(target))
    try:
        found = real.stat()
    except FileNotFoundError:
        return real
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no regular file")
        raise RequestError(f"{target} is {kind}, not a file that may be replaced", _OTHER_NAME)
    parent = real.parent.stat()
    if parent.st_mode & stat.S_ISVTX and os.geteuid() not in (0, found.st_uid, parent.st_uid):
        raise RequestError(f"{target} belongs to another user", _OTHER_NAME)
    return real


def check_target(target: str | os.PathLike[str]) -> None:
    """Prove that `atomic_path` can put a file at `target`, before long work makes what goes there.

    Raises:
        RequestError: there is something else than a regular file.
        OSError: nothing can be written there.
    """
    check_writable(replaceable(target).parent)


def check_writable(directory: str | os.PathLike[str], needed: int = 0, prefix: str = PROBE) -> None:
    """Make, write, sync, rename and remove a file where `directory` is or would be made.

    So long work does not end in an error. Nothing is left behind either way.

    Args:
        directory: need not be there yet; it is not made.
        needed: bytes that must have room.
        prefix: how the name of the folder begins that is made for this.

    Raises:
        OSError: one of these does not work.
    """
    place, missing = Path(os.path.abspath(directory)), []
    while not os.path.lexists(place):
        missing.insert(0, place.name)
        place = place.parent
    if not place.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
    with tempfile.TemporaryDirectory(prefix=prefix, dir=place) as part:
        folder = Path(part, *missing)
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "probe", "xb") as stream:
            _reserve(stream.fileno(), needed, directory)
            stream.write(b"tttab")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(folder / "probe", folder / "moved")
        flush_folder(folder)


def home_path(path: str | os.PathLike[str]) -> Path:
    """Return a path whose leading `~` means the home folder: a shell leaves it as it is in quotes."""
    return Path(os.path.expanduser(path))


def cache_folder() -> Path:
    """Return tttab's cache folder, made if need be.

    It is $TTTAB_CACHE, else `tttab` in $XDG_CACHE_HOME (on every system), else where the system keeps caches
    (Linux: ~/.cache/tttab). Where there is no usable home it lies in the temporary folder, and is the user's
    alone.
    """
    from platformdirs import user_cache_path

    own, shared = os.environ.get("TTTAB_CACHE"), os.environ.get("XDG_CACHE_HOME")
    place = own or (os.path.join(shared, "tttab") if shared else None)
    folder = Path(place) if place else user_cache_path("tttab", appauthor=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _private_folder(Path(tempfile.gettempdir()) / f"tttab-{os.getuid()}")
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
    """Return `value` as JSON knows it, in text that UTF-8 can hold.

    NumPy scalars become numbers, arrays lists, NaN and infinities None, and anything else its text.
    """
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, Mapping):
        return {decoded(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else decoded(value)


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def flush_to_disk(path: Path) -> None:
    """Return when the file's bytes are on the disk."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def flush_folder(folder: Path) -> None:
    """Return when the folder's names are on the disk; some systems cannot open a folder."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _reserve(handle: int, size: int, directory: str | os.PathLike[str]) -> None:
    """Give an open file `size` bytes of the disk: only that knows of quotas and limits on files."""
    if not size or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            text = f"{os.strerror(error.errno)}: {size / 2**20:,.0f} MB are needed"
            raise OSError(error.errno, text, os.fspath(directory)) from error


@cache
def _private_folder(wanted: Path) -> Path:
    """Return `wanted` if it is ours alone, else a fresh folder: others may have laid it out for us."""
    with suppress(FileExistsError):
        wanted.mkdir(mode=0o700)
    found = wanted.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700:
        return wanted
    return Path(tempfile.mkdtemp(prefix="tttab-"))


_OTHER_NAME = "name a file that is not there yet"
