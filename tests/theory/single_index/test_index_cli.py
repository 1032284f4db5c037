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


SMALL = {
    "weak": ["--links", "He3", "--r", "4", "--n1", "64,128", "--queries", "64"],
    "strong": ["--r", "4", "--eps", "0.2,0.1"],
    "single-index": ["--n", "128,256", "--d", "4,6", "--r", "4", "--queries", "64"],
}


@pytest.mark.parametrize("name", SMALL)
def test_each_command_prints_json_lines_and_draws(name, capsys, tmp_path):
    plot = tmp_path / f"{name}.svg"
    assert run(["theory", name, *SMALL[name], "--tasks", "3", "--json", "--plot", str(plot)]) == 0
    rows, _ = lines_of(capsys)
    assert len(rows) >= 3
    assert {row["experiment"] for row in rows} == {name}
    assert all(
        {"seed", "device", "tasks"} <= row.keys() for row in rows if "kind" not in row or name != "weak"
    )
    assert plot.read_text().lstrip().startswith("<?xml")


def test_a_table_in_a_pipe_is_tab_separated(capsys):
    assert run(["theory", "weak", *SMALL["weak"], "--tasks", "3"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split("\t")[:6] == ["link", "ie", "ge", "r", "n1", "method"]
    assert len(lines) == 8


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
        command = ["theory", "single-index", *SMALL["single-index"], "--tasks", "2", "--json"]
        assert run([*command, *flag.split()]) == 0
        rows, _ = lines_of(capsys)
        seen[flag] = (rows[0]["stage_1"], rows[0]["vary"])
    assert seen == {
        "": ("distill", 4),
        "--skip-stage-1": ("random", 4),
        "--no-distill": ("direct", 4),
        "--link-fixed": ("distill", 0),
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["exponents", "--link", "3"],
        ["exponents", "--powers", "0"],
        ["weak", "--r", "0"],
        ["weak", "--r", "8", "--d", "4", "--links", "He3", "--n1", "64"],
        ["weak", "--temp", "0"],
        ["weak", "--tilt", "2"],
        ["weak", "--temp", "nan"],
        ["weak", "--tilt", "nan"],
        ["weak", "--n1", "0.5"],
        ["weak", "--n1", "256.7"],
        ["weak", "--r", "0.5"],
        ["weak", "--d", "-1"],
        ["weak", "--links", "He3,foo"],
        ["weak", "--queries", "1000000000000"],
        ["weak", "--device", "cuda:99"],
        ["weak", "--device", "meta"],
        ["weak", "--device", "abacus"],
        ["weak", "--plot", "figure.txt"],
        ["projection", "--r", "5"],
        ["projection", "--tasks", "7"],
        ["projection", "--links", "foo"],
        ["link-stage", "--n4", "8"],
        ["link-stage", "--rho", "1.5"],
        ["link-stage", "--link", "foo"],
        ["link-stage", "--ridge", "0"],
        ["link-stage", "--n4", "1000000000"],
        ["strong", "--loss", "hinge"],
        ["strong", "--eps", "0.9"],
        ["strong", "--r", "1"],
        ["strong", "--r", "1000000"],
        ["strong", "--link", "foo"],
        ["single-index", "--n", "10"],
        ["single-index", "--n", "x"],
        ["single-index", "--n", "128,10"],
        ["single-index", "--n", "1e12"],
        ["single-index", "--n", "128.5,inf"],
        ["single-index", "--n", "nan"],
        ["single-index", "--n", "-inf"],
        ["single-index", "--d", "32,8"],
        ["single-index", "--noise", "nan"],
        ["single-index", "--noise", "-1"],
        ["single-index", "--skip-stage-1", "--no-distill"],
    ],
)
def test_bad_requests_get_one_line_a_hint_and_exit_2(arguments, capsys):
    assert run(["theory", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second = captured.err.strip().splitlines()
    assert first.startswith("error:") and second.startswith("hint:")


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
