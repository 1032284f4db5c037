"""The real openml client against a server on loopback: every data shape and every bad day."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from tests.support.openml_server import DataSet, OpenMLServer, Task, error
from tttab import cli
from tttab.data import load_table, load_task, remote
from tttab.data.registry import TABLES
from tttab.errors import DataError, UnknownDataset

RNG = np.random.default_rng(0)
ROWS = 30


def category(values, levels=None):
    return pd.Categorical(values, categories=levels)


def numeric():
    return pd.DataFrame(
        {
            "length": RNG.normal(size=ROWS).round(3),
            "count": np.arange(ROWS) % 7,
            "class": category(["a", "b", "c"] * 10),
        }
    )


def mixed():
    """Categories, a boolean, missing values; equal content as ARFF and as Parquet."""
    colour = np.array(["light red", "blue", "a, b"] * 10, dtype=object)
    colour[4] = None
    size = RNG.normal(size=ROWS).round(2)
    size[[1, 5]] = np.nan
    return pd.DataFrame(
        {
            "colour": category(colour, ["blue", "light red", "a, b"]),
            "the size": size,
            "wet": category(["TRUE", "FALSE"] * 15, ["TRUE", "FALSE"]),
            "label": category(["yes", "no", "no"] * 10),
        }
    )


def with_ids():
    return pd.DataFrame(
        {
            "name": [f"row {n}" for n in range(ROWS)],
            "comment": ["free text"] * ROWS,
            "made": np.arange(ROWS),
            "x": RNG.normal(size=ROWS).round(3),
            "y": category(["0", "1"] * 15),
        }
    )


def regression():
    x = RNG.normal(size=ROWS).round(4)
    return pd.DataFrame({"x": x, "price": (2 * x + 1.25).round(4)})


def data_sets():
    credit = pd.read_parquet(TABLES / "credit-g.parquet")
    with_gaps = mixed()
    with_gaps.loc[[0, 3], "label"] = None
    return [
        DataSet(31, "credit-g", credit, "class"),
        DataSet(1001, "numeric", numeric(), "class"),
        DataSet(1002, "mixed", mixed(), "label", parquet=True, nominal={"label": ["yes", "no", "maybe"]}),
        DataSet(1003, "with-ids", with_ids(), "y", row_id="name", ignored=("comment", "made")),
        DataSet(1004, "prices", regression(), "price"),
        DataSet(1005, "no-target", numeric()),
        DataSet(1006, "deactivated", numeric(), "class", status="deactivated"),
        DataSet(1007, "wrong-checksum", numeric(), "class", md5="0" * 32),
        DataSet(1008, "gaps-in-target", with_gaps, "label"),
        DataSet(1009, "two-targets", numeric(), "class,count"),
        DataSet(1010, "joined-ignored", with_ids(), "y", row_id="name", ignored=("comment,made",)),
    ]


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server, and openml pointed at it with an empty cache."""
    import openml

    sets = data_sets()
    by_number = {item.number: item for item in sets}
    tasks = [
        Task(2001, by_number[1002], "label"),
        Task(2002, by_number[1004], "price", "Supervised Regression"),
        Task(2003, by_number[1008], "label"),
    ]
    running = OpenMLServer(sets, tasks)
    monkeypatch.setattr(openml.config, "server", f"{running.root}/api/v1/xml")
    monkeypatch.setattr(openml.config, "_root_cache_directory", tmp_path / "openml")
    monkeypatch.delenv(remote.OFFLINE, raising=False)
    monkeypatch.setattr("openml._api_calls._human_delay", lambda n: 0.0)
    yield running
    running.close()


def description(number):
    return f"/api/v1/xml/data/{number}"


def download(number, name):
    return f"/data/v1/download/{number}/{name}.arff"


def test_cold_numeric(server):
    table = load_table("1001")
    assert (table.name, table.source, table.openml_id) == ("numeric", "OpenML", 1001)
    assert table.x.dtypes.astype(str).tolist() == ["float64", "float64"]
    assert table.classes == ("a", "b", "c") and table.y[:4].tolist() == [0, 1, 2, 0]
    np.testing.assert_array_equal(table.x["length"], server.data_sets[1001].frame["length"])


def test_warm_cache_needs_no_server(server):
    cold = load_table("1002")
    server.close()
    warm = load_table("1002")
    assert (cold.source, warm.source) == ("OpenML", "OpenML cache")
    assert warm.fingerprint == cold.fingerprint


def test_arff_and_parquet_give_one_fingerprint(server, monkeypatch):
    parquet = load_table("1002")
    assert any(path.startswith("/datasets/") for path in server.requests)
    monkeypatch.setenv("OPENML_SKIP_PARQUET", "true")
    arff = load_table("1002", refresh=True)
    assert download(1002, "mixed") in server.requests
    assert arff.fingerprint == parquet.fingerprint
    pd.testing.assert_frame_equal(arff.x, parquet.x)


def test_dtypes_and_missing_values_survive(server):
    x = load_table("1002").x
    assert list(x["colour"].cat.categories) == ["a, b", "blue", "light red"] and pd.isna(x["colour"][4])
    assert x["the size"].dtype == np.float64 and x["the size"].isna().sum() == 2
    assert list(x["wet"].cat.categories) == ["False", "True"]


def test_levels_that_never_occur_are_no_classes(server):
    assert load_table("1002").classes == ("no", "yes")


@pytest.mark.parametrize("number", ["1003", "1010"])
def test_row_ids_and_ignored_attributes_are_no_features(server, number):
    assert list(load_table(number).x.columns) == ["x"]


def test_an_ignored_attribute_can_be_the_target(server):
    table = load_table("1003", target="made")
    assert table.task == "regression" and list(table.x.columns) == ["x", "y"]


def test_regression_target(server):
    table = load_table("1004")
    assert table.task == "regression" and table.classes == () and table.y.dtype == np.float64
    np.testing.assert_array_equal(table.y, server.data_sets[1004].frame["price"])


def test_no_default_target_takes_the_last_column_and_says_so(server):
    table = load_table("1005")
    assert table.target == "class" and "last column" in table.notes[0]
    assert load_table("1005", target="count").target == "count"


def test_several_default_targets_must_be_chosen_from(server):
    with pytest.raises(DataError, match="several targets: class,count") as caught:
        load_table("1009")
    assert caught.value.hint == "--target class"
    assert load_table("1009", target="class").classes == ("a", "b", "c")


def test_deactivated_data_set_is_loaded_and_said(server):
    assert any("deactivated" in note for note in load_table("1006").notes)


def test_unknown_id_names_the_nearest(server):
    with pytest.raises(UnknownDataset, match="OpenML has no data set 1068; the nearest known id is 1067"):
        load_table("1068")


def test_slow_server_is_given_up(server, monkeypatch):
    monkeypatch.setattr(remote, "READ_SECONDS", 0.2)
    server.faults[description(1001)] = [(1.0, 200, None)] * 9
    start = time.monotonic()
    with pytest.raises(remote.Unreachable, match="data set 1001"):
        load_table("1001")
    assert time.monotonic() - start < 10


def test_500_then_success(server):
    page = b"<html>\r\n<head><title>500</title></head>\r\n<body><hr><center>nginx</center>\r\n</html>"
    server.faults[description(1001)] = [(0, 500, page)]
    assert load_table("1001").source == "OpenML"
    assert server.requests.count(description(1001)) == 2


def test_busy_database_then_success(server):
    server.faults[description(1001)] = [(0, 412, error(107, "Database connection error"))]
    assert load_table("1001").source == "OpenML"


@pytest.mark.parametrize("body", [b"<html><body>500</body></html>", b"", b"not xml <<<"])
def test_500_for_good_is_one_line(server, body):
    server.faults[description(1001)] = [(0, 500, body)] * 9
    with pytest.raises(DataError, match="data set 1001") as caught:
        load_table("1001")
    assert "\n" not in caught.value.message and caught.value.hint


def test_truncated_arff_is_fetched_again(server):
    server.faults[download(1001, "numeric")] = ["truncate"]
    assert len(load_table("1001")) == ROWS


def test_truncated_arff_for_good_leaves_nothing_behind(server):
    server.faults[download(1001, "numeric")] = ["truncate"] * 9
    with pytest.raises(DataError, match="data set 1001"):
        load_table("1001")
    assert not remote.is_cached(1001)
    server.faults.clear()
    assert load_table("1001").source == "OpenML"


def test_truncated_parquet_is_one_line(server):
    path = "/datasets/0000/1002/dataset_1002.pq"
    server.faults[path] = [None, "truncate"] * 9
    with pytest.raises(DataError, match="data set 1002"):
        load_table("1002")
    assert not remote.is_cached(1002)


def test_arff_in_the_cache_is_enough(server, monkeypatch):
    monkeypatch.setenv("OPENML_SKIP_PARQUET", "true")
    load_table("1002")
    monkeypatch.delenv("OPENML_SKIP_PARQUET")
    server.requests.clear()
    assert load_table("1002").source == "OpenML cache"
    assert server.requests == [] and "OPENML_SKIP_PARQUET" not in os.environ


def test_refresh_without_a_server_keeps_the_cache(server):
    load_table("1001")
    server.close()
    with pytest.raises(remote.Unreachable):
        load_table("1001", refresh=True)
    assert load_table("1001").source == "OpenML cache"


def test_a_refresh_that_fails_halfway_keeps_the_cache(server):
    before = load_table("1001").fingerprint
    server.faults[description(1001)] = [(0, 500, b"")] * 9
    with pytest.raises(DataError):
        load_table("1001", refresh=True)
    again = load_table("1001")
    assert (again.source, again.fingerprint) == ("OpenML cache", before)


def test_a_refresh_that_is_killed_halfway_keeps_the_cache_and_touches_nothing_else(server):
    before = load_table("1001").fingerprint
    folder = remote.cache_folder() / "datasets" / "1001"
    (folder.parent / ".1001.old").mkdir()
    (folder.parent / ".1001.old" / "mine.txt").write_text("kept")
    aside = remote._set_aside(folder)
    aside.__enter__()  # what follows is never reached: no exception, no end
    folder.mkdir()
    (folder / "description.xml").write_text("half")
    server.close()
    again = load_table("1001")
    assert (again.source, again.fingerprint) == ("OpenML cache", before)
    assert sorted(path.name for path in folder.parent.iterdir()) == [".1001.old", "1001"]
    assert (folder.parent / ".1001.old" / "mine.txt").read_text() == "kept"


def test_no_parquet_falls_back_on_arff(server):
    server.data_sets[1002].parquet = False
    reference = load_table("1002")
    server.data_sets[1002].parquet = True
    server.faults["/datasets/0000/1002/dataset_1002.pq"] = [(0, 404, b"")] * 9
    assert load_table("1002", refresh=True).fingerprint == reference.fingerprint


def test_an_arff_that_was_cut_while_it_was_written_is_fetched_anew(server, monkeypatch):
    monkeypatch.setenv("OPENML_SKIP_PARQUET", "true")
    whole = load_table("1001")
    file = remote.fetch_table(1001).file
    file.write_bytes(b"\n".join(file.read_bytes().splitlines()[:-5]))
    again = load_table("1001")
    assert (again.source, len(again), again.fingerprint) == ("OpenML", len(whole), whole.fingerprint)


def test_damaged_file_in_the_cache_is_fetched_anew(server):
    first = load_table("1002")
    file = remote.fetch_table(1002).file
    file.write_bytes(file.read_bytes()[:100])
    again = load_table("1002")
    assert again.source == "OpenML" and again.fingerprint == first.fingerprint


def test_wrong_checksum(server):
    with pytest.raises(DataError, match="does not match its checksum"):
        load_table("1007")
    assert not remote.is_cached(1007)


def test_server_that_hangs_up(server):
    server.faults[description(1001)] = ["hang up"] * 9
    with pytest.raises(remote.Unreachable, match="data set 1001"):
        load_table("1001")


def test_31_from_openml_is_the_bundled_copy_row_for_row(server):
    remote_copy = load_table("31")
    bundled = load_table("credit-g")
    assert (remote_copy.source, bundled.source) == ("OpenML", "bundled")
    assert remote_copy.fingerprint == bundled.fingerprint


def test_31_without_server_is_the_bundled_copy(server):
    server.close()
    table = load_table("31")
    assert table.source == "bundled copy (OpenML could not be reached)" and table.openml_id == 31


def test_a_wrong_request_for_31_is_not_openmls_fault(server):
    with pytest.raises(DataError, match="no column 'clas'"):
        load_table("31", target="clas")
    assert load_table("31", target="age").task == "regression"
    assert load_table("credit-g", target="age", task="classification").task == "classification"


def test_31_damaged_is_the_bundled_copy(server):
    server.data_sets[31].md5 = "0" * 32
    assert load_table("31").source == "bundled copy (OpenML gave a damaged answer)"


@pytest.mark.parametrize("word", ["1", "true", "Yes", "on"])
def test_offline_variable_forbids_the_network(server, monkeypatch, word):
    monkeypatch.setenv(remote.OFFLINE, word)
    with pytest.raises(remote.Unreachable, match=f"TTTAB_OFFLINE={word} forbids"):
        load_table("1001")
    assert server.requests == []


def test_unwritable_cache_is_one_line(server, tmp_path, monkeypatch):
    import openml

    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr(openml.config, "_root_cache_directory", tmp_path / "file")
    with pytest.raises(DataError) as caught:
        load_table("1001")
    assert "OPENML_CACHE_DIR" in caught.value.hint


def test_task_gives_the_official_split(server):
    table = load_task(2001, 1)
    train, test = table.official_split
    assert test.tolist() == list(range(1, ROWS, 3)) and len(train) == 20
    assert table.target == "label" and table.openml_id == 1002
    server.close()
    assert load_task(2001, 2).official_split[1][0] == 2


def test_task_of_regression(server):
    assert load_task(2002).task == "regression"


def test_official_split_is_renumbered_where_rows_drop_out(server):
    table = load_task(2003, 0)
    train, test = table.official_split
    assert len(table) == ROWS - 2 and len(train) + len(test) == ROWS - 2
    kept = np.delete(np.arange(ROWS), [0, 3])
    assert set(kept[test]) == set(range(0, ROWS, 3)) - {0, 3}


def test_unknown_task_and_fold(server):
    with pytest.raises(UnknownDataset, match="OpenML has no task 9"):
        load_task(9)
    with pytest.raises(UnknownDataset, match="folds 0 to 2, not 3"):
        load_task(2001, 3)


def test_nothing_is_printed_on_the_way(server, capfd, caplog):
    load_table("1002")
    out, err = capfd.readouterr()
    assert out == err == "" and caplog.records == []


def test_get_fills_the_cache(server, capsys):
    assert cli.run(["data", "get", "1001", "99999"]) == 1
    out, err = capsys.readouterr()
    assert "1001\tOpenML\t30\t2\t3" in out and "OpenML has no data set 99999" in out
    assert "tttab data get 99999" in err
    server.close()
    assert cli.run(["data", "get", "1001"]) == 0
    assert "1001\tOpenML cache" in capsys.readouterr().out


def test_a_server_that_never_answers_is_given_up(server, monkeypatch):
    def silence(*args, **kwargs):
        time.sleep(2)
        raise TimeoutError("timed out")

    monkeypatch.setattr(remote, "CONNECT_SECONDS", 0.05)
    monkeypatch.setattr("socket.create_connection", silence)
    start = time.monotonic()
    assert load_table("31").source == "bundled copy (OpenML could not be reached)"
    assert time.monotonic() - start < 10


def test_the_command_with_openmls_own_configuration_file(server, tmp_path):
    (tmp_path / "openml").mkdir()
    cache = tmp_path / "cache"
    (tmp_path / "openml" / "config").write_text(f"server = {server.root}/api/v1/xml\ncachedir = {cache}\n")
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("OPENML", "TTTAB"))
    }
    done = subprocess.run(
        [sys.executable, "-m", "tttab", "data", "get", "1002"],
        env=variables | {"XDG_CONFIG_HOME": str(tmp_path)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1] == "1002\tOpenML\t30\t3\t2\t"
    assert list(cache.rglob("dataset_1002.pq"))
