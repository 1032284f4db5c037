"""What every test shares: no network beyond loopback, a cache of its own, small tables, the bundled model."""

from __future__ import annotations

import gc
import os
import signal
import socket

os.environ.update(HF_HUB_OFFLINE="1", TABPFN_NO_BROWSER="1", TABPFN_DISABLE_TELEMETRY="1", NO_COLOR="1")
os.environ["NUMBA_DISABLE_JIT"] = "1"  # as `tttab explain` has it
# Test processes run side by side: more threads than cores would make each of them wait for the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background by a shell: Ctrl-C would not reach the commands under test.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # the same for a closed terminal, under nohup
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish():
    """Keep what was imported out of every later search for garbage, which it makes slow."""
    gc.freeze()


LOOPBACK = ("127.0.0.1", "::1", "localhost")
_connect = socket.socket.connect


def _connect_to_loopback_only(self, address):
    if isinstance(address, tuple) and address[0] not in LOOPBACK:
        raise OSError(f"tests have no network: {address}")
    return _connect(self, address)


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Refuse every connection that leaves the machine."""
    socket.socket.connect = _connect_to_loopback_only
    yield
    socket.socket.connect = _connect


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Keep caches out of the user's home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True, scope="session")
def quick_commands():
    """Read the command's options once, time one prediction of few rows, and measure no step before the first.

    No test asks how long predictions take; those that ask for memory use `measured_steps`.
    """
    from functools import cache

    import typer.main

    from tttab.evaluation import timing
    from tttab.training import footprint
    from tttab.training.memory_plan import Footprint

    measured = footprint.measure_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        patch.setattr(timing, "LATENCY_ROWS", 20)
        patch.setattr(timing, "LATENCY_SECONDS", 0.0)
        patch.setattr(footprint, "measure_step", lambda *_: Footprint(1e6, 1e3, 1e3))
        yield measured


@pytest.fixture
def measured_steps(monkeypatch, quick_commands):
    """Plan training by the memory that a step takes, as it is outside the tests."""
    from tttab.training import footprint

    monkeypatch.setattr(footprint, "measure_step", quick_commands)


@pytest.fixture(scope="session")
def mixed_frame():
    """120 rows with numbers, categories, missing values and a constant column; 3 classes to learn."""
    import pandas as pd

    rng = np.random.default_rng(7)
    y = rng.integers(0, 3, 120)
    frame = pd.DataFrame(
        {
            "size": y + rng.normal(0, 0.6, 120),
            "weight": np.where(rng.random(120) < 0.1, np.nan, rng.normal(0, 1, 120)),
            "colour": pd.Categorical(np.array(["red", "green", "blue"])[(y + (rng.random(120) < 0.3)) % 3]),
            "constant": 1.0,
        }
    )
    return frame, y.astype(np.int64)


@pytest.fixture(scope="session")
def mixed_table(mixed_frame):
    """`mixed_frame` as a table of the classes a, b and c."""
    from tttab.data import Origin, table_from_frame

    x, y = mixed_frame
    return table_from_frame(x.assign(kind=np.array(["a", "b", "c"])[y]), Origin("mixed", "file"))


@pytest.fixture(scope="session")
def parts(mixed_frame):
    """30 context rows and 40 query rows of `mixed_frame`: x, y, x, y. Modules with others say so."""
    x, y = mixed_frame
    return x[:30], y[:30], x[30:70], y[30:70]


@pytest.fixture(scope="session")
def tiny_model():
    """The bundled classifier on the CPU. Tests never change it: they fork."""
    from tttab.models import open_model

    return open_model("tttab-tiny", device="cpu")
