"""Requests that an experiment cannot fulfil: one line and a hint, before anything runs.

`test_settings.py` holds what every option refuses by its kind: choices, lists, and what is no number.
"""

from __future__ import annotations

import shlex

import pytest

from tttab.cli import run
from tttab.theory.transformer.store import shipped_path

OWN = f"transformer --paper B --checkpoint {shlex.quote(str(shipped_path('B', 4)))}"
WRONG = f"""
exponents --link 3
exponents --powers 0
weak --r 0
weak --r 8 --d 4 --links He3 --n1 64
weak --temp 0
weak --tilt 2
weak --n1 0.5
weak --d -1
weak --links He3,foo
weak --queries 1000000000000
weak --device cuda:99
weak --device meta
weak --device abacus
weak --plot figure.txt
projection --r 5
projection --tasks 7
projection --links foo
link-stage --n4 8
link-stage --rho 1.5
link-stage --link foo
link-stage --ridge 0
link-stage --n4 1000000000
strong --eps 0.9
strong --r 1
strong --r 1000000
strong --link foo
single-index --n 10
single-index --n 128,10
single-index --n 1e12
single-index --n 128.5,inf
single-index --n -inf
single-index --d 32,8
single-index --noise -1
single-index --skip-stage-1 --no-distill
phase --d 0
phase --alpha 0
phase --gamma -1
phase --convention X
phase --device nowhere
phase --noise -1
phase --trials 1
phase --plot figure.pdf
phase --memory 0
phase --d 300000 --sampler vectors
samples --k 0
context --k 0
steps --k -3
steps --count 1
steps --d 300000
alignment --share 2
alignment --d 1
alignment --d 300000
alignment --family two-level,none
calibration --d 1
calibration --d 300000
calibration --tasks 2
softmax --d 40
softmax --d 40,40
softmax --tau 0
softmax --d 8,1000000
softmax --gamma 1e9
semi --d 10 --m 13
semi --n 20 --teacher 20
semi --noise -1
semi --share 1.5
semi --m 1000000000
kfold --folds 200
kfold --folds 1
kfold --noise -1
kfold --gamma 0
kfold --d 1000000
all --out never-made --plot figure.svg
step-size --k 1
noise --levels -1
transformer
transformer --paper B --d four
transformer --paper B --checkpoint absent.safetensors
transformer --paper A --d 30,60
transformer --paper A --d 5 --minutes nan
{OWN} --paper A
{OWN} --d 8
{OWN} --d 4,8
{OWN} --model gpt2
{OWN} --retrain
"""


@pytest.mark.parametrize("arguments", WRONG.strip().splitlines())
def test_a_wrong_request_is_one_line_and_a_hint(arguments, capsys):
    assert run(["theory", *shlex.split(arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second = captured.err.strip().splitlines()
    assert first.startswith("error:") and second.startswith("hint:")
