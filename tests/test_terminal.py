"""What reaches the terminal: switches, foreign text, exit codes; nothing there may be forged or leak."""

from __future__ import annotations

import pytest

from tttab.cli import run
from tttab.errors import RequestError
from tttab.files import switch
from tttab.models import catalog


@pytest.mark.parametrize(
    ("word", "on"),
    [("1", True), ("true", True), ("YES", True), (" On ", True), ("", False), ("0", False), ("False", False),
     ("no", False), ("off", False), (None, False)],
)  # fmt: skip
def test_a_switch_knows_every_common_word(monkeypatch, word, on):
    monkeypatch.delenv("TTTAB_TEST_SWITCH", raising=False)
    if word is not None:
        monkeypatch.setenv("TTTAB_TEST_SWITCH", word)
    assert switch("TTTAB_TEST_SWITCH") is on


@pytest.mark.parametrize("name", ["TTTAB_OFFLINE", "TTTAB_DEBUG"])
def test_another_word_ends_every_command_in_one_line(monkeypatch, capsys, name):
    monkeypatch.setenv(name, "maybe")
    with pytest.raises(RequestError, match="neither on nor off"):
        switch(name)
    assert run(["data", "list"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        f"error: the environment variable {name} is 'maybe', neither on nor off", f"hint: export {name}=1"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["TTTAB_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize(("word", "asked"), [("true", 0), ("yes", 0), ("no", 1), ("off", 1)])
def test_the_hub_is_asked_where_no_switch_forbids_it(monkeypatch, name, word, asked):
    def refuse(address, timeout):
        asked_for.append(address)
        raise OSError("no route")

    asked_for = []
    monkeypatch.setattr("socket.create_connection", refuse)
    for other in ("TTTAB_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, word)
    assert not catalog._hub_answers()
    assert len(asked_for) == asked
