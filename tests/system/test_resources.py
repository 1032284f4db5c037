"""Memory and cores: sizes in words, what the command asks of OpenMP, and what it leaves as it is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tttab.system.resources import yield_cores


@pytest.mark.parametrize(
    ("given", "kept"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
    ids=["nothing set", "a count", "a policy"],
)
def test_idle_threads_sleep_soon_unless_the_user_has_said_otherwise(monkeypatch, given, kept):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that what `yield_cores` sets goes with the test
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    yield_cores()
    assert os.environ.get("GOMP_SPINCOUNT") == kept


def test_the_command_asks_before_torch_is_there():
    code = (
        "import os, sys; from tttab.system import resources; asked = resources.yield_cores\n"
        "def watched(): print('torch' in sys.modules); asked()\n"
        "resources.yield_cores = watched\n"
        "import tttab.cli\n"
        "try: tttab.cli.main(['--version'])\n"
        "except SystemExit: print(os.environ['GOMP_SPINCOUNT'])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    first, *_, last = done.stdout.split()
    assert (first, last) == ("False", "10000"), done.stderr
