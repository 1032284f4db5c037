"""`tttab theory` for single-index models in the terminal: rows, exit codes, hints."""

import json

import pytest

from tttab.cli import run


def lines_of(capsys):
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], captured.err


def test_exponents_prints_rows_alone_as_json_and_a_sentence_otherwise(capsys):
    assert run(["theory", "exponents", "--link", "He3", "--powers", "3", "--json"]) == 0
    rows, _ = lines_of(capsys)
    assert [(row["j"], row["ie_of_power"], row["ie"], row["ge"]) for row in rows] == [
        (1, 3, 3, 1),
        (2, 2, 3, 1),
        (3, 1, 3, 1),
    ]
    assert run(["theory", "exponents", "--link", "He4"]) == 0
    assert "ie = 4, ge = 2 (even" in capsys.readouterr().err


def test_the_limit_needs_no_rows_at_all_and_says_what_is_kept(capsys):
    assert run(["theory", "single-index", "--n", "inf"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1:] == ["-\t-\ticl-limit\t0.3737\t0.2804\t0.01"]
    assert printed.err == "noise 0.01; in context without end 0.374, 0.0921 of it from |z| < 2.5\n"
    assert run(["theory", "single-index", "--n", "inf", "--link-fixed"]) == 0
    assert capsys.readouterr().err == "noise 0.01; in context without end down to the noise\n"


def test_ablations_change_the_first_stage_and_the_link(capsys):
    seen = {}
    for flag in ("", "--skip-stage-1", "--no-distill", "--link-fixed"):
        command = "theory single-index --n 128,256 --d 4,6 --r 4 --queries 64 --tasks 2 --json"
        assert run([*command.split(), *flag.split()]) == 0
        rows, _ = lines_of(capsys)
        seen[flag] = (rows[0]["stage_1"], rows[0]["vary"])
    assert seen == {
        "": ("distill", 4),
        "--skip-stage-1": ("random", 4),
        "--no-distill": ("direct", 4),
        "--link-fixed": ("distill", 0),
    }


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["weak", "--r", "0.5"], "--r 1"),
        (["weak", "--n1", "256.7,512"], "--n1 257,512"),
        (["weak", "--d", "-1"], "--d 32"),
        (["weak", "--links", "foo"], "--links 'He3 + 0.5*He4'"),
        (["single-index", "--n", "10"], "--n 64"),
        (["single-index", "--n", "128.5,inf"], "--n 129"),
        (["single-index", "--d", "32,8"], "--r 8"),
    ],
)
def test_hints_name_an_option_and_a_value_that_work(arguments, hint, capsys):
    assert run(["theory", *arguments]) == 2
    assert f"hint: {hint}\n" in capsys.readouterr().err
