"""A folder that one process at a time writes to: claimed before the work whose result goes there.

A process that claims a folder has proven that it can be written and keeps other writers out until the end, so
finished work is not lost to either. The lock is flock's own: filelock (3.20) takes a file system without
flock for a lock that is held and waits for ever, and truncates a file that it only means to lock.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tttab.errors import RequestError
from tttab.system.files import PART, check_writable
from tttab.text import decoded, shell_word, shown

LOCK = ".lock"
"""The file that is locked. It stays where work was kept: who waits for it must find the same one."""
TOLD_AFTER, GIVEN_UP_AFTER, PAUSE = 5.0, 120.0, 0.1
"""Seconds of waiting for another writer: until it is told, until it ends, between two looks."""
MOST_MISSES = 20
"""How often in a row the folder may be removed by others as soon as it is made."""
_OURS = b"tttab: "
_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


@dataclass
class Claim:
    """A folder that is ours to write until the claim ends."""

    folder: Path
    kept: bool = False
    """Set once something stands in the folder: then folder and lock file stay."""
    made: list[Path] = field(default_factory=list)
    """The folders that were made for it, outermost first."""
    made_lock: bool = False
    """Whether the lock file is new."""

    def check_room(self, needed: int) -> None:
        """Raise OSError where the disk has no room for `needed` further bytes."""
        check_writable(self.folder, needed, PART)


def _warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=2)


@contextmanager
def claimed(directory: str | os.PathLike[str], *, waiting: Callable[[str], None] = _warn) -> Generator[Claim]:
    """Hold a folder, made if need be, against other writers; what was made goes again if nothing is kept.

    Args:
        directory: the folder.
        waiting: told once, in a sentence, who is waited for; by default a warning.

    Raises:
        RequestError: another process writes there all the time, the file system has no locks, or the
            lock file is a link or no file.
        OSError: the folder cannot be made or written.
    """
    claim = Claim(Path(directory))
    try:
        handle = _lock(claim, _Wait(claim.folder, waiting))
        try:
            claim.check_room(0)
            yield claim
        finally:
            _unlock(handle, claim)
    finally:
        _remove_folders(claim)


class _Wait:
    """The patience of one writer."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self._folder, self._tell, self._told = folder, tell, False
        self._start = time.monotonic()

    def pause(self, holder: str) -> None:
        """Sleep a little; tell or raise when it is time for that."""
        passed = time.monotonic() - self._start
        if passed >= GIVEN_UP_AFTER:
            raise RequestError(
                f"{holder} is still writing to {self._folder} after {passed:.0f} s",
                "the same command when it has ended, or another folder",
            )
        if passed >= TOLD_AFTER and not self._told:
            self._told = True
            left = GIVEN_UP_AFTER - passed
            self._tell(
                f"waiting for {holder}, which is writing to {shown(self._folder)}, {left:.0f} s at most"
            )
        time.sleep(PAUSE)


def _lock(claim: Claim, wait: _Wait) -> int:
    """Make the folder and return the handle of its lock file, locked."""
    path, misses = claim.folder / LOCK, 0
    while True:
        try:
            claim.made += [place for place in _absent(claim.folder) if place not in claim.made]
            claim.folder.mkdir(parents=True, exist_ok=True)
            handle = _open(path, claim)
        except FileNotFoundError:  # who held the folder has removed it
            misses += 1
            if misses > MOST_MISSES:
                raise
            continue
        try:
            if _try(handle, claim.folder) and _is_at(handle, path):
                _sign(handle)
                return handle
            holder = _holder(handle)
        except RequestError:
            _unlock(handle, claim)  # there are no locks, so it is nobody else's either
            raise
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        wait.pause(holder)


def _absent(folder: Path) -> list[Path]:
    """Return the folders that must be made for `folder`, outermost first."""
    return [place for place in reversed([folder, *folder.parents]) if not os.path.lexists(place)]


def _open(path: Path, claim: Claim) -> int:
    """Open the lock file, never through a link and without changing it."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with suppress(FileExistsError):
            handle = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o666)
            claim.made_lock = True
            return handle
        handle = os.open(path, flags)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _no_lock_file(path) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _no_lock_file(path)
    return handle


def _no_lock_file(path: Path) -> RequestError:
    return RequestError(
        f"{path} is a link or no regular file, and writers must lock it", f"ls -l {shell_word(path)}"
    )


def _try(handle: int, folder: Path) -> bool:
    import fcntl  # not on Windows, where bundles can still be read

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno in _NO_LOCKS:
            raise RequestError(
                f"the file system of {folder} has no locks ({os.strerror(error.errno)}), so two writers "
                "could not be kept apart",
                "name a folder on a local disk and copy it from there",
            ) from error
        raise
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Tell whether the locked file is still the one at `path`: who claimed and kept nothing removes it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.lstat())
    return False


def _sign(handle: int) -> None:
    """Write who holds the lock, for those who wait; never into a file of others."""
    if not _is_ours(handle):
        return
    who = f"process {os.getpid()} on {decoded(socket.gethostname())}\n"
    with suppress(OSError):  # a full disk
        os.ftruncate(handle, 0)
        os.pwrite(handle, _OURS + who.encode(), 0)


def _is_ours(handle: int) -> bool:
    found = os.fstat(handle)
    return found.st_nlink == 1 and (not found.st_size or os.pread(handle, len(_OURS), 0) == _OURS)


def _holder(handle: int) -> str:
    text = os.pread(handle, 200, 0)
    return shown(text[len(_OURS) :].strip()) if text.startswith(_OURS) else "another process"


def _unlock(handle: int, claim: Claim) -> None:
    path = claim.folder / LOCK
    try:
        with suppress(OSError):
            if claim.made_lock and not claim.kept and _is_at(handle, path):
                path.unlink()
                _remove_folders(claim)  # at once, before one who waits finds them and stays in them
            elif _is_ours(handle):
                os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _remove_folders(claim: Claim) -> None:
    for place in reversed(claim.made):
        with suppress(OSError):  # it is not empty: something was kept, or others write there
            place.rmdir()
