"""`tttab adapt`, `predict` and `inspect` as a user meets them."""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np
import pandas as pd
import pytest

from tests.support.forked import forked, typed
from tttab.bundle import load_bundle
from tttab.bundle.manifest import read_manifest
from tttab.cli import run
from tttab.cli.commands import predict as predict_command
from tttab.training.optimizers import NotFinite


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV of 160 rows with numbers, text, dates and gaps; 3 classes to learn."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 3, 160)
    frame = pd.DataFrame(
        {
            "size": (y + rng.normal(0, 0.5, 160)).round(3),
            "postcode": [f"0{code}" for code in rng.integers(100, 105, 160)],
            "colour": np.array(["red", "=1+1", "blue"])[(y + (rng.random(160) < 0.3)) % 3],
            "since": pd.date_range("2020-01-01", periods=160).astype(str),
            "gaps": np.where(rng.random(160) < 0.3, np.nan, y),
            "label": np.array(["low", "mid", "top"])[y],
        }
    )
    path = tmp_path_factory.mktemp("table") / "table.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def adapted(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept") / "bundle"
    command = [
        "adapt", str(table), "--target", "label", "--out", str(folder), "--n", "60", "--test-size", "30",
    ]  # fmt: skip
    assert run([*command, "--steps", "3", "--model", "tttab-tiny", "--device", "cpu", "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def new_rows(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("new") / "new.csv"
    pd.read_csv(table, dtype={"postcode": str}).drop(columns="label").to_csv(path, index=False)
    return path


def test_adapt_says_which_rows_are_used_for_what(table, tmp_path, capfd):
    command = ["adapt", str(table), "--out", str(tmp_path / "b"), "--n", "40", "--k", "50", "--rule", "none"]
    assert run([*command, "--no-held-rows", "--model", "tttab-tiny", "--device", "cpu"]) == 0
    captured = capfd.readouterr()
    assert "40 rows are the context, 50 the training queries, 70 are not used (--k 120 would)" in captured.err
    assert "no target was named" in captured.err
    assert "Nothing was trained" in captured.err.splitlines()[-1]
    assert "held" not in read_manifest(tmp_path / "b")
    head, *lines = captured.out.splitlines()
    assert head.split("\t")[:2] == ["measured on", "rows"]
    assert {line.split("\t")[2] for line in lines} == {
        "accuracy", "balanced_accuracy", "roc_auc", "average_precision", "log_loss", "brier", "ece"
    }  # fmt: skip


def test_adapt_may_leave_the_rows_out(table, new_rows, tmp_path, capfd):
    command = ["adapt", str(table), "--out", str(tmp_path / "b"), "--n", "40", "--k", "50", "--rule", "none"]
    assert run([*command, "--no-rows", "--model", "tttab-tiny", "--device", "cpu", "--quiet"]) == 0
    manifest = read_manifest(tmp_path / "b")
    assert manifest["files"].keys() == {"weights", "cache"} and manifest["rows"] == 40
    assert run(["predict", str(tmp_path / "b"), str(new_rows), "--device", "cpu"]) == 0
    assert "160 rows" in capfd.readouterr().err


def test_the_manifest_tells_how_the_bundle_came_to_be(adapted, table):
    manifest = read_manifest(adapted)
    record = manifest["record"]
    assert record["table"]["name"] == "table.csv"
    assert record["adaptation"]["rule"] == "full"
    assert record["adaptation"]["schedule"]["steps"] == 3
    assert {"held_out", "test"} == record["metrics"].keys()
    assert record["metrics"]["test"]["rows"] == 30
    assert 0 <= record["metrics"]["test"]["after"]["accuracy"] <= 1
    assert (record["split"]["n"], record["split"]["k"], record["split"]["test"]) == (60, 70, 30)


@pytest.mark.parametrize("ending", ["tsv", "parquet"])
def test_predictions_are_those_of_the_bundle_whatever_the_pieces(
    adapted, new_rows, tmp_path, ending, monkeypatch, capfd
):
    out = tmp_path / f"predictions.{ending}"
    monkeypatch.setattr(predict_command, "CHUNK_ROWS", 47)
    assert run(["predict", str(adapted), str(new_rows), "--out", str(out), "--device", "cpu"]) == 0
    written = (
        pd.read_parquet(out)
        if ending == "parquet"
        else pd.read_csv(out, sep="\t" if ending == "tsv" else ",")
    )
    expected = load_bundle(adapted, device="cpu").predict(pd.read_csv(new_rows, dtype={"postcode": str}))
    assert list(written.columns) == ["prediction", "p(low)", "p(mid)", "p(top)"]
    assert np.abs(written.iloc[:, 1:].to_numpy() - expected).max() < 1e-6
    assert list(written["prediction"]) == [["low", "mid", "top"][best] for best in expected.argmax(axis=1)]
    assert "160 rows" in capfd.readouterr().err


def test_parquet_rows_give_what_csv_rows_give(adapted, new_rows, tmp_path):
    pd.read_csv(new_rows, dtype={"postcode": str}).to_parquet(tmp_path / "new.parquet")
    outs = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for rows, out in zip((new_rows, tmp_path / "new.parquet"), outs, strict=True):
        assert run(["predict", str(adapted), str(rows), "--out", str(out), "--device", "cpu", "-q"]) == 0
    assert outs[0].read_text() == outs[1].read_text()


def test_without_out_rows_go_to_stdout(adapted, new_rows, capfd):
    assert run(["predict", str(adapted), str(new_rows), "--device", "cpu", "--quiet"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split("\t") == ["prediction", "p(low)", "p(mid)", "p(top)"]
    assert len(lines) == 161
    assert run(["predict", str(adapted), str(new_rows), "--device", "cpu", "--json"]) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    assert len([json.loads(line) for line in captured.out.splitlines()]) == 160


def test_unseen_texts_and_extra_columns_are_told(adapted, new_rows, tmp_path, capfd):
    frame = pd.read_csv(new_rows, dtype={"postcode": str})
    frame.assign(colour="violet", more=1, size=99).to_csv(tmp_path / "odd.csv", index=False)
    words = ["predict", str(adapted), str(tmp_path / "odd.csv"), "--out", str(tmp_path / "p.csv")]
    assert run([*words, "--device", "cpu"]) == 0
    told = capfd.readouterr().err
    (warning,) = [line for line in told.splitlines() if line.startswith("warning:")]
    assert "100.0% of the cells of colour hold unknown texts" in warning
    assert "100.0% of the cells of size are outside the range of the context" in warning
    assert "left out: more" in told
    assert run([*words, "--device", "cpu", "--json"]) == 0
    counts = json.loads(capfd.readouterr().out)
    assert counts["unseen_cells"] == {"colour": 160} and counts["missing_cells"] == {}
    assert counts["outside_cells"]["size"] == 160


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="size"), "lack 1 of 5 columns: size"),
        (lambda frame: frame.assign(size="big"), "'big', which is not a number"),
        (lambda frame: frame.assign(since="yesterday"), "which is not a date"),
    ],
)
def test_rows_that_do_not_fit_leave_nothing_behind(adapted, new_rows, tmp_path, capfd, change, message):
    change(pd.read_csv(new_rows, dtype={"postcode": str})).to_csv(tmp_path / "bad.csv", index=False)
    out = tmp_path / "p.csv"
    assert (
        run(["predict", str(adapted), str(tmp_path / "bad.csv"), "--out", str(out), "--device", "cpu"]) == 2
    )
    assert message in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv"]


def test_damage_deep_in_a_file_leaves_the_old_predictions(adapted, new_rows, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(predict_command, "CHUNK_ROWS", 40)
    text = new_rows.read_text().splitlines()
    (tmp_path / "bad.csv").write_text(
        "\n".join([*text[:100], "wrong," + text[100].split(",", 1)[1], *text[101:]])
    )
    (tmp_path / "p.csv").write_text("old")
    command = ["predict", str(adapted), str(tmp_path / "bad.csv"), "--out", str(tmp_path / "p.csv")]
    assert run([*command, "--device", "cpu"]) == 2
    assert "'wrong', which is not a number" in capfd.readouterr().err
    assert (tmp_path / "p.csv").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["predict", "{none}", "{rows}"], "there is no bundle", "tttab adapt"),
        (["predict", "{bundle}", "gone.csv"], "there is no file gone.csv", ""),
        (["predict", "{bundle}", "{rows}", "--out", "p.xlsx"], "must end in", "--out p.csv"),
        (["predict", "{bundle}", "{rows}", "--out", "{rows}"], "would be overwritten", "new-predictions.csv"),
        (["predict", "{bundle}", "{rows}", "--device", "abacus"], "no device", "--device cpu"),
        (["inspect", "{none}"], "there is no bundle", "tttab adapt"),
        (["adapt", "{rows}", "--out", "{rows}", "--n", "20"], "new.csv", ""),
        (["adapt", "{rows}"], "--out", "tttab adapt --help"),
    ],
)
def test_mistakes_get_one_line_and_a_hint(adapted, new_rows, tmp_path, capfd, arguments, message, hint):
    places = {"{none}": str(tmp_path), "{rows}": str(new_rows), "{bundle}": str(adapted)}
    assert run([places.get(argument, argument) for argument in arguments]) == 2
    error = [line for line in capfd.readouterr().err.splitlines() if line.startswith(("error:", "hint:"))]
    assert message in error[0]
    assert hint in error[1]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_file_without_rows_is_refused(adapted, new_rows, tmp_path, capfd, ending):
    none = pd.read_csv(new_rows, dtype={"postcode": str}).iloc[:0]
    path = tmp_path / f"none.{ending}"
    none.to_csv(path, index=False) if ending == "csv" else none.to_parquet(path)
    out = tmp_path / f"out.{ending}"
    assert run(["predict", str(adapted), str(path), "--out", str(out)]) == 2
    assert "has no rows to predict" in capfd.readouterr().err
    assert not out.exists()


def test_training_that_stopped_is_told_and_not_called_a_lost_comparison(table, tmp_path, capfd, monkeypatch):
    command = ["adapt", str(table), "--target", "label", "--out", str(tmp_path / "bundle"), "--n", "60"]
    monkeypatch.setattr("tttab.training.loop.Adaptation.gradient", not_finite)
    assert run([*command, "--model", "tttab-tiny", "--steps", "3"]) == 0
    text = "".join(capfd.readouterr()).replace("\n", " ")
    assert "training stopped early: no number at step 1" in text
    assert "The pretrained weights are kept: training stopped because no number at step 1" in text
    assert read_manifest(tmp_path / "bundle")["record"]["adaptation"]["stopped"] == "no number at step 1"


def not_finite(*_, **__):
    raise NotFinite("no number at step 1")


def test_inspect_prints_the_manifest_and_checks_the_hashes(adapted, tmp_path, capfd):
    import shutil

    assert run(["inspect", str(adapted)]) == 0
    out = capfd.readouterr().out
    assert "tttab-tiny" in out
    assert "adaptation rule\tfull" in out
    assert "contains its 60 context rows, unencrypted" in out
    assert "held-out rows\t14, unencrypted" in out
    kept = read_manifest(adapted)["record"]["adaptation"]["held_out_loss"]
    assert f"held out loss\t{kept['before']:.6g} before, {kept['after']:.6g} after" in out
    assert "None" not in out and "[" not in out and "_loss" not in out
    copy = shutil.copytree(adapted, tmp_path / "copy")
    next(copy.glob("weights-*")).write_bytes(b"other")
    assert run(["inspect", str(copy), "--json"]) == 1
    captured = capfd.readouterr()
    verdicts = {item["role"]: item["verdict"] for item in json.loads(captured.out)["check"]}
    assert verdicts["context"] == "ok"
    assert verdicts["weights"].startswith("was changed")
    assert "1 of 3 files differ from those written" in captured.err
    (copy / "manifest.json").write_text("{}")
    assert run(["inspect", str(copy)]) == 1


SMALL = ["--n", "40", "--k", "60", "--steps", "2", "--model", "tttab-tiny", "--device", "cpu"]
NOT_UTF8 = os.fsdecode(b"o\xe9")


def never(*_, **__):
    raise AssertionError("this was to be refused before the model is opened")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "{bundle}", "missing.csv"], "there is no file missing.csv"),
        (["predict", "{bundle}", "{wrong}"], "lack 1 of 5 columns: size"),
        (["predict", "{bundle}", "{rows}", "--out", "{pipe}"], "is a named pipe"),
        (["predict", "{bundle}", "{rows}", "--out", "{device}"], "is a device"),
        (["predict", "{bundle}", "{rows}", "--out", "{context}"], "would be overwritten"),
        (["predict", "{bundle}", "{rows}", "--out", "/proc/1/p.csv"], "/proc"),
        (["adapt", "missing.csv", "--out", "{new}"], "there is no file missing.csv"),
        (["adapt", "{table}", "--target", "labell", "--out", "{new}"], "no column 'labell'"),
        (["adapt", "{table}", "--out", "{pipe}"], "p.csv"),
        (["adapt", "{table}", "--out", "{foreign}"], "not the manifest of a bundle"),
        (["run", "--dataset", "{table}", "--out", "{pipe}"], "p.csv"),
        (["run", "--dataset", "{table}", "--target", "labell", "--out", "{new}"], "no column 'labell'"),
    ],
)
def test_what_needs_no_model_is_checked_before_it_is_opened(
    adapted, table, new_rows, tmp_path, capfd, monkeypatch, arguments, message
):
    pd.read_csv(new_rows).drop(columns="size").to_csv(tmp_path / "wrong.csv", index=False)
    os.mkfifo(tmp_path / "p.csv")
    (tmp_path / "null.csv").symlink_to(os.devnull)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "manifest.json").write_text('{"name": "mine"}')
    (context,) = adapted.glob("context-*.parquet")
    places = {
        "{bundle}": adapted, "{rows}": new_rows, "{table}": table, "{context}": context,
        "{wrong}": tmp_path / "wrong.csv", "{pipe}": tmp_path / "p.csv", "{device}": tmp_path / "null.csv",
        "{new}": tmp_path / "new" / "bundle", "{foreign}": tmp_path / "foreign",
    }  # fmt: skip
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr("tttab.models.open_model", never)
    monkeypatch.setattr("tttab.bundle.load_bundle", never)
    assert run([str(places.get(argument, argument)) for argument in arguments]) == 2
    assert message in capfd.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_home_folder_in_quotes_is_found_and_spaces_are_quoted(
    table, new_rows, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "t.csv").write_bytes(table.read_bytes())
    (tmp_path / "new.csv").write_bytes(new_rows.read_bytes())
    for command in (["adapt", "~/t.csv"], ["run", "--dataset", "~/t.csv"]):
        assert run([*command, "--target", "label", "--out", "~/my bundle", *SMALL]) == 0
        assert f"tttab predict '{tmp_path}/my bundle' NEW.csv" in capfd.readouterr().err.replace("\n", " ")
    assert run(["predict", "~/my bundle", "~/new.csv", "--out", "~/my p.csv", "--device", "cpu"]) == 0
    assert len(pd.read_csv(tmp_path / "my p.csv")) == 160
    assert run(["predict", "~/my bundle", "~/new.csv", "--out", "~/my p"]) == 2
    assert f"--out '{tmp_path}/my p.csv'" in capfd.readouterr().err


@pytest.mark.parametrize("command", ["adapt", "run"])
def test_names_that_are_not_utf8_lose_no_training(table, new_rows, tmp_path, command, capfd):
    data, rows = tmp_path / f"{NOT_UTF8}.csv", tmp_path / f"new{NOT_UTF8}.csv"
    data.write_bytes(table.read_bytes())
    rows.write_bytes(new_rows.read_bytes())
    out = tmp_path / NOT_UTF8 / "b"
    words = ["adapt", str(data)] if command == "adapt" else ["run", "--dataset", str(data)]
    assert run([*words, "--target", "label", "--out", str(out), "--json", *SMALL]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["dataset"]["name"] == "o?.csv" if command == "run" else "o?" in document["out"]
    assert read_manifest(out)["record"]["table"]["name"] == "o?.csv"
    for ending in ("csv", "parquet"):
        predictions = tmp_path / f"p{NOT_UTF8}.{ending}"
        assert run(["predict", str(out), str(rows), "--out", str(predictions), "--device", "cpu", "-q"]) == 0
        assert predictions.stat().st_size > 1000
    assert run(["inspect", str(out)]) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_predict_leaves_nothing_half_written(
    adapted, new_rows, tmp_path, monkeypatch, number
):
    class Slow(predict_command._TextWriter):
        def write(self, frame):
            super().write(frame)
            print("writing", flush=True)
            time.sleep(60)

    monkeypatch.setattr(predict_command, "_TextWriter", Slow)
    words = ["predict", adapted, new_rows, "--out", tmp_path / "p.csv", "--device", "cpu", "--quiet"]
    copy = forked(typed(*words))
    assert copy.stdout.readline() == "writing\n"
    assert len(list(tmp_path.iterdir())) == 1
    assert copy.end(number)[0] == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_a_training_that_fails_or_is_ended_leaves_no_folder(table, tmp_path, monkeypatch, capfd):
    command = ["adapt", str(table), "--target", "label", "--out", str(tmp_path / "a" / "b"), *SMALL]
    for error, code in ((KeyboardInterrupt(), 130), (SystemExit(143), 143), (OSError(28, "full"), 2)):

        def fail(*_, error=error, **__):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr("tttab.training.loop.Adaptation.gradient", fail)
            assert run(command) == code
        assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_told_before_the_training(table, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("tttab.bundle.room_for", lambda session: 2**62)
    monkeypatch.setattr("tttab.training.loop.Adaptation.gradient", never)
    assert run(["adapt", str(table), "--target", "label", "--out", str(tmp_path / "b"), *SMALL]) == 2
    assert "MB are needed" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_bundles_card_says_base_licence_and_figures_and_names_no_folder(adapted, capfd):
    assert run(["inspect", str(adapted), "--card"]) == 0
    card = capfd.readouterr().out
    manifest = json.loads((adapted / "manifest.json").read_text())
    tags = "[tabular-classification, test-time-training, tttab]"
    assert card.startswith(f"---\nlicense: mit\ntags: {tags}\n---\n")
    assert f"- Licence of the base: {manifest['base']['license']}" in card
    assert manifest["base"]["sha256"] in card
    for metric, before in manifest["record"]["metrics"]["held_out"]["before"].items():
        after = manifest["record"]["metrics"]["held_out"]["after"][metric]
        name = metric.replace("_", r"\_") if f"| {metric} |" not in card else metric
        assert f"| {name} | {before:.4f} | {after:.4f} |" in card
    assert str(adapted.parent) not in card + json.dumps(manifest)
