"""The report on a store with known numbers: figures, golden tables, export, the page in a browser."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.support.bench_fakes import cell, fill, record, study
from tttab.bench import export, html_report, markdown_report, read_store, summaries
from tttab.bench.charts import front, front_charts
from tttab.bench.export import bencheval_frame
from tttab.bench.sections import SECTIONS, STORE_SECTIONS, tables_of
from tttab.bench.tables import arms_table, choice_table, curves_table, failed_table, overall_table
from tttab.errors import RequestError, StoreError
from tttab.report import ReportTable, to_markdown
from tttab.report.tables import cell_text
from tttab.text import visible

ARMS = ("icl@n", "ttt@n+k")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    return read_store(fill(tmp_path_factory.mktemp("store"), study()))


@pytest.fixture(scope="module")
def text(contents):
    return html_report(contents)


@pytest.fixture(scope="module")
def summary(contents):
    (only,) = summaries(contents)
    return only


def test_effective_context_per_table(summary):
    found = {(e.table, e.n): e for e in summary.effects["accuracy"]}
    # ttt at n = 200 has the error of icl at 4 x 200, but for 0.001 x seed: 0.1 log10(n'/800) = -0.001
    assert found["alpha", 200].context.rows == pytest.approx(800 * 10**-0.01, rel=1e-6)
    assert found["beta", 200].context.censored == "beyond"
    assert found["gamma", 200].context.censored == "below"
    assert [e.table for e in summary.effects["accuracy"] if e.n == 200 and e.saturated] == ["flat"]


def test_overall_counts(summary):
    line = next(o for o in summary.overall if (o.metric, o.n) == ("log_loss", 200))
    assert (line.tables, line.counted, line.below, line.beyond) == (4, 3, 1, 1)
    assert line.harmed.estimate == 0.25
    assert line.helped == 2
    assert line.saturated == ("flat",)
    ratios = [4 * 10**-0.01, 1000 / 200, 50 / 200]
    assert line.ratio.estimate == pytest.approx(math.prod(ratios) ** (1 / 3), rel=1e-6)


def test_a_failed_cell_is_in_no_mean_but_named(summary, contents):
    pair = next(p for p in summary.pairs if (p.table, p.n, p.metric) == ("beta", 200, "accuracy"))
    assert (pair.seeds, pair.failed) == (2, 1)
    assert pair.base == pytest.approx(0.4 - 0.1 * math.log10(4) + 0.01 * (0 + 2) / 2)
    (line,) = failed_table(contents).rows
    assert line == ("beta", "ttt@n+k", 200, 1, "paper k=1000", "out of memory")


def test_break_even(summary):
    assert [line.predictions for line in summary.break_even] == pytest.approx([50_000.0] * 4)


def test_golden_overall_table(summary):
    assert to_markdown(overall_table(summary)).splitlines()[2:16] == [
        "| figure | error rate | log loss | 1 - ROC AUC |",
        "| --- | ---: | ---: | ---: |",
        "| data sets | 4 | 4 | 4 |",
        "| mean ttt - icl" + 3 * " | -0.0149 [-0.1248, +0.1109]" + " |",
        "| harmed | 1 of 4 | 1 of 4 | 1 of 4 |",
        "| share harmed | 0.25 [0.00, 0.75] | 0.25 [0.00, 0.75] | 0.25 [0.00, 0.75] |",
        "| units with a larger error | 0.273 [0.097, 0.566] | 0.273 [0.097, 0.566] | 0.273 [0.097, 0.566] |",
        "| helped | 2 of 4 | 2 of 4 | 2 of 4 |",
        "| undecided, one seed | 0 of 4 | 0 of 4 | 0 of 4 |",
        "| n'/n, geometric mean | 1.70 [0.25, 5.00] | 1.70 [0.25, 5.00] | 1.70 [0.25, 5.00] |",
        "| n'/n, median | 3.91 [0.25, 5.00] | 3.91 [0.25, 5.00] | 3.91 [0.25, 5.00] |",
        "| data sets in n'/n | 3 | 3 | 3 |",
        "| censored below | 1 of 3 | 1 of 3 | 1 of 3 |",
        "| censored beyond | 1 of 3 | 1 of 3 | 1 of 3 |",
    ]


def test_the_area_is_told_of_two_classes_alone_and_the_calibration_error_without_n_prime(tmp_path):
    rows = []
    for at in (cell("two", "icl@n"), cell("two", "ttt@n+k"), *(cell("many", a, classes=3) for a in ARMS)):
        one = record(at, 0.2 if at.arm == "icl@n" else 0.1)
        more = {"ece": 0.03, "roc_auc": 0.75 if at.arm == "icl@n" else 0.8}
        rows.append(replace(one, row=replace(one.row, metrics=one.row.metrics | more)))
    (summary,) = summaries(read_store(fill(tmp_path, rows)))
    areas = [p for p in summary.pairs if p.metric == "roc_auc"]
    assert [(p.table, p.base, p.error) for p in areas] == [("two", 0.25, pytest.approx(0.2))]
    assert {p.table for p in summary.pairs if p.metric == "ece"} == {"two", "many"}
    assert summary.metrics == ("accuracy", "log_loss", "roc_auc", "ece") and not summary.effects["ece"]
    assert summary.drawn == ("accuracy", "log_loss")
    assert [line.tables for line in summary.overall] == [2, 2, 1, 2]


def test_golden_curves_table(summary):
    rows = {row[:2]: row[2:] for row in curves_table(summary, "accuracy").rows}
    interval = "-0.0592 [-0.0617, -0.0567]"
    shown = rows["alpha", 200]
    assert shown[0] == "1,000"
    assert shown[3:] == (interval, "helped", "782", "3.91", 3, 0)
    assert rows["beta", 200][3:] == ("-0.1657 [-0.1784, -0.1530]", "helped", "≥ 1,000", "≥ 5.00", 2, 1)
    assert rows["gamma", 200][4:] == ("harmed", "≤ 50", "≤ 0.25", 3, 0)


def test_golden_arms_table(summary):
    rows = {row[0]: row[1:] for row in arms_table(summary, "accuracy").rows}
    assert rows["icl@n"][1] == "baseline"
    assert rows["ttt@n+k"][2:5] == (1, 4, 3.25)  # last of four on beta, where a seed failed
    assert rows["ttt@n+k"][-1] == 1
    assert rows["icl@n+k"][4] == 1.0


def test_label_budgets_are_never_mixed(tmp_path):
    rows = [record(cell("alpha", "icl@n", 200, seed), 0.3) for seed in (0, 1)]
    for budget, error in (("paper k=1000", 0.2), ("equal", 0.25)):
        rows += [record(cell("alpha", "ttt@n+k", 200, seed, budget=budget), error) for seed in (0, 1)]
    found = {s.group.budget: s.pairs[0].error for s in summaries(read_store(fill(tmp_path, rows)))}
    assert found == {"paper k=1000": pytest.approx(0.2), "equal": pytest.approx(0.25)}


def test_a_model_with_plain_rows_alone_is_not_forgotten(tmp_path):
    rows = [*study(), record(cell("alpha", "icl@n", 200, 0, model="other.ckpt"), 0.3)]
    found = [summary.group.model for summary in summaries(read_store(fill(tmp_path, rows)))]
    assert found == ["other.ckpt", "tiny.safetensors"]


def test_a_store_of_failures_alone_can_be_reported(tmp_path):
    rows = [record(cell(arm=arm), failed="no model") for arm in ("icl@n", "ttt@n+k")]
    contents = read_store(fill(tmp_path, rows))
    assert "no model" in html_report(contents)
    assert markdown_report(contents).count("no model") == 2


def test_markdown_escapes_what_it_is_given():
    table = ReportTable("a <b>", ("x",), (("<script>|",),), left=("x",))
    assert to_markdown(table).splitlines() == ["### a \\<b\\>", "", "| x |", "| --- |", "| \\<script\\>\\| |"]
    with pytest.raises(ValueError, match="cells"):
        ReportTable("t", ("x", "y"), ((1,),))


class Page(HTMLParser):
    """Collects what a page would fetch, ids that it gives and refers to, and the text of its cells."""

    def __init__(self, text):
        super().__init__()
        self.fetched, self.ids, self.used, self.cells, self._in_cell = [], [], set(), [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._in_cell = tag in ("td", "th")
        self.cells += [""] if self._in_cell else []
        self.fetched += [tag] if tag in ("script", "iframe", "object", "embed", "link", "img", "a") else []
        for name, value in attrs:
            self.ids += [value] if name == "id" else []
            if name == "href" and value.startswith("#"):
                self.used.add(value[1:])
            elif name in ("src", "href", "data", "action", "srcset", "xlink:href"):
                self.fetched.append(value)
            self.used.update(re.findall(r"url\(#(\w+)\)", value or ""))
            self.fetched += re.findall(r"url\((?!#)[^)]*", value or "")

    def handle_data(self, data):
        if self._in_cell:
            self.cells[-1] += data

    def handle_endtag(self, tag):
        self._in_cell = False


def test_the_page_is_one_file_that_asks_for_nothing(text):
    page = Page(text)
    assert page.fetched == []
    assert "@import" not in text
    assert "url(" not in re.search("<style>.*</style>", text, re.DOTALL)[0]
    assert len(page.ids) == len(set(page.ids)), "two figures share an id"
    assert set(page.ids) == page.used
    assert "out of memory" in text and "Test CPU" in text and "torch 2.0" in text
    for table in ("alpha", "beta", "gamma", "flat"):
        assert f'aria-label="{table}: error rate"' in text
        assert f'aria-label="{table}: log loss"' in text
    assert not re.search(r"[\"\s,](nan|inf)[\",\s]", text)


def test_the_page_has_every_row_of_every_table(contents, summary, text):
    found = Counter(Page(text).cells)
    tables = [*tables_of(SECTIONS, summary), *tables_of(STORE_SECTIONS, contents)]
    wanted = Counter(name for table in tables for name in table.columns)
    wanted += Counter(cell_text(value) for table in tables for row in table.rows for value in row)
    assert found == wanted


def test_equal_stores_give_equal_pages(text, tmp_path):
    assert html_report(read_store(fill(tmp_path / "again", study()))) == text


def test_no_figure_has_a_colour_of_its_own(text):
    """All colours are variables with a light and a dark value, so that both pages can be read."""
    figures = "".join(re.findall("<svg.*?</svg>", text, re.DOTALL))
    assert not re.search(r"#[0-9a-fA-F]{6}\b|rgb", figures)
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    assert {"--ink", "--soft", "--series-0", "--series-1", "--series-2"} <= used
    light, dark = re.findall(r":root\{([^}]*--ink[^}]*)\}", text)
    for name in used:
        values = [re.search(f"{name}:([^;]+)", block)[1] for block in (light, dark)]
        assert values[0] != values[1], name


def test_any_name_is_text_on_the_page(tmp_path):
    odd = [
        "<script>alert(1)</script>", "a&b", "$x_1$", "{{ 7 * 7 }}", "Größe 表 \U0001f600", "\uffff",
        "n" * 5000,
    ]  # fmt: skip
    rows = [
        replace(one, cell=replace(one.cell, table=name, fingerprint=name[:9]))
        for name in odd
        for one in study(tables=("beta",), seeds=(0,))
    ]
    page = Page(html_report(store_of(tmp_path, rows)))
    assert page.fetched == []
    assert {visible(name) for name in odd} <= {*page.cells}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (apt-get install chromium)")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_real_browser(text, scheme, tmp_path):
    """The browser lays the page out, draws every chart and reports no error and no request."""
    from PIL import Image

    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(text, encoding="utf-8")
    head = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    head += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,2600", "--enable-logging=stderr"]
    head += [f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"]
    shot = subprocess.run(
        [*head, f"--screenshot={picture}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert shot.returncode == 0, shot.stderr
    assert "CONSOLE" not in shot.stderr
    assert shot.stdout.count("<svg") == 2 + 4 + 1 + 2 + 8
    with Image.open(picture) as image:
        pixels = image.convert("RGB").resize((300, 650), Image.NEAREST)
        colours = {colour for _, colour in pixels.getcolors(300 * 650)}
    paper, icl, ttt = COLOURS_OF[scheme]
    assert near(pixels.getpixel((1, 1)), paper)
    assert any(near(c, ttt) for c in colours), "no line in the colour of ttt"
    assert any(near(c, icl) for c in colours), "no line in the colour of icl"


COLOURS_OF = {
    "light": ((255, 255, 255), (0, 114, 178), (213, 94, 0)),
    "dark": ((20, 24, 30), (86, 180, 233), (255, 140, 66)),
}


def near(colour, wanted):
    return all(abs(a - b) < 12 for a, b in zip(colour, wanted, strict=True))


def test_bencheval_reads_the_export(contents, tmp_path):
    pytest.importorskip("bencheval", reason="bencheval is a test extra: pip install 'tttab[test]'")
    import pandas as pd
    from bencheval.evaluator import BenchmarkEvaluator

    path, remarks = export(contents, tmp_path / "rows.bencheval")
    frame = pd.read_csv(path)
    assert {*frame.columns} >= {"method", "task", "seed", "metric_error", "time_train_s", "time_infer_s"}
    assert any("carry the worst" in remark for remark in remarks)
    assert frame["imputed"].sum() == 1
    evaluator = BenchmarkEvaluator(seed_column="seed")
    evaluator.verify_data(frame[evaluator.required_input_columns])
    board = evaluator.leaderboard(
        frame[evaluator.required_input_columns], metrics=["winrate", "improvability"]
    )
    assert board.index[0].startswith("icl@n+k")
    assert len(board) == 8


def test_bencheval_fills_a_failed_cell_with_the_worst_error(contents):
    frame, _ = bencheval_frame(contents)
    there = frame[(frame.task == "beta") & (frame.seed == 1)]
    assert there[there.imputed].metric_error.item() == there.metric_error.max()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_every_cell_is_exported_failed_ones_with_their_reason(contents, tmp_path, form):
    import pandas as pd

    path, _ = export(contents, tmp_path / f"rows.{form}")
    frame = pd.read_csv(path) if form == "csv" else pd.read_parquet(path)
    assert len(frame) == len(contents.records)
    assert frame["key"].is_unique
    assert frame.loc[frame["error"] == "out of memory", "table"].tolist() == ["beta"]


def test_export_says_what_it_cannot_do(contents, tmp_path):
    with pytest.raises(RequestError, match="cannot export"):
        export(contents, tmp_path / "rows.xlsx")
    with pytest.raises(StoreError, match="no rows"):
        export(read_store(tmp_path / "nothing"), tmp_path / "rows.csv")


def store_of(tmp_path, records):
    return read_store(fill(tmp_path / "store", records))


def test_two_files_of_one_name_are_two_groups_and_two_contents_of_one_name_two_tables(tmp_path):
    models = [record(cell(model=f"model.safetensors {mark}")) for mark in ("aaaa", "bbbb")]
    assert len(summaries(store_of(tmp_path / "models", models))) == 2
    contents = [record(cell(seed=i, fingerprint=f"f{i}"), failed="no" * i) for i in range(2)]
    (only,) = summaries(store_of(tmp_path / "contents", contents))
    assert only.grid.tables == ["banana f0", "banana f1"]
    names = [record(cell(table, seed=i, fingerprint="same")) for i, table in enumerate(("31", "credit-g"))]
    (only,) = summaries(store_of(tmp_path / "names", names))
    assert only.grid.tables == ["31"]
    assert sorted(only.grid.seeds("31", "icl@n", 200)) == [0, 1]


def test_tables_that_only_a_baseline_ran_on_are_in_no_group_of_a_model(tmp_path):
    extra = [record(cell("prices", "gbt", classes=0))]
    (first,) = summaries(store_of(tmp_path, [*study(), *extra]))
    assert "prices" not in first.grid.tables
    assert not math.isnan(next(arm.rank for arm in first.arms["accuracy"] if arm.name == "ttt@n+k"))


def test_a_curve_with_a_failed_icl_cell_gives_no_effective_context(tmp_path):
    broken = cell("alpha", "icl@n", 1000, 0)
    records = [r for r in study() if r.cell.place != broken.place]
    (only,) = summaries(store_of(tmp_path, [*records, record(broken, failed="out of memory")]))
    line = next(o for o in only.overall if (o.metric, o.n) == ("accuracy", 200))
    assert line.gaps == ("alpha",)
    assert line.counted == 2, "beta and gamma: alpha has a gap, flat is saturated"
    pair = next(p for p in only.pairs if (p.table, p.n, p.metric) == ("alpha", 1000, "accuracy"))
    assert (pair.seeds, pair.failed) == (2, 1)


def test_a_table_on_which_every_seed_failed_is_named_where_the_mean_stands(tmp_path):
    records = [record(r.cell, failed="no memory") if lost(r.cell) else r for r in study()]
    (only,) = summaries(store_of(tmp_path, records))
    line = next(o for o in only.overall if (o.metric, o.n) == ("accuracy", 200))
    assert (line.tables, line.lost, line.failed) == (3, ("beta",), 3)
    assert "| in no mean, every seed failed | beta | beta |" in to_markdown(overall_table(only))


def test_an_undefined_metric_is_in_no_mean_and_counted_with_the_failed(tmp_path):
    """icl at n = 50, 200, 1,000 has log loss 0.5, 0.4, 0.33 on every seed; ttt@200 has 0.45 and nothing."""
    curve = {50: 0.5, 200: 0.4, 1000: 0.33}
    rows = [record(cell("alpha", "icl@n", n, s), 0.2, loss) for n, loss in curve.items() for s in (0, 1)]
    rows += [record(cell("alpha", "ttt@n+k", 200, s), 0.2, loss) for s, loss in ((0, 0.45), (1, math.nan))]
    (only,) = summaries(store_of(tmp_path, rows))
    pair = next(p for p in only.pairs if p.metric == "log_loss")
    assert (pair.base, pair.error, pair.seeds, pair.failed) == (0.4, 0.45, 1, 1)
    (effect,) = only.effects["log_loss"]
    assert effect.context.rows == pytest.approx(math.sqrt(50 * 200)), "half way from 0.5 to 0.4, in log n"
    arms = {arm.name: arm for arm in only.arms["log_loss"]}
    assert (arms["ttt@n+k"].failed, arms["ttt@n+k"].rank, arms["icl@n"].rank) == (1, 2.0, 1.0)
    assert next(p for p in only.pairs if p.metric == "accuracy").seeds == 2


def test_bencheval_marks_a_cell_without_its_metric(tmp_path):
    rows = [record(cell("alpha", arm, seed=s), 0.2 + 0.1 * s) for arm in ("icl@n", "ttt@n+k") for s in (0, 1)]
    del rows[-1].row.metrics["roc_auc"]
    frame, remarks = bencheval_frame(store_of(tmp_path, rows))
    there = frame[frame.imputed]
    assert there[["seed", "metric_error"]].values.tolist() == [[1, pytest.approx(0.3)]]
    assert any("1 cells, failed or without a defined error" in remark for remark in remarks)


def lost(at):
    return (at.table, at.arm) == ("beta", "ttt@n+k")


def test_the_reference_n_is_where_most_arms_ran(tmp_path):
    arms = [record(cell("banana", arm, n)) for arm in ("icl@n", "ttt@n+k") for n in (100, 400)]
    (only,) = summaries(store_of(tmp_path, [*arms, record(cell("banana", "gbt", 400))]))
    assert only.reference_n == 400


def test_bencheval_tells_test_sizes_apart(tmp_path):
    both = [record(cell(test_asked=size)) for size in (0, 250)]
    assert len(bencheval_frame(store_of(tmp_path, both))[0]) == 2


def test_the_front_is_what_no_arm_beats():
    points = [("dear", 1000.0, 0.1), ("bad", 500.0, 0.3), ("good", 200.0, 0.2), ("free", 0.0, 0.4)]
    assert [name for name, _, _ in front(points)] == ["free", "good", "dear"]
    assert front([("a", 1.0, 0.2), ("b", 1.0, 0.1), ("c", 2.0, 0.1)]) == [("b", 1.0, 0.1)]


def test_every_arm_is_a_point_of_error_against_rows_and_latency(summary):
    pages = [str(figure) for figure in front_charts(summary)]
    assert len(pages) == 4
    for page, metric in zip(pages, ("accuracy", "accuracy", "log_loss", "log_loss"), strict=True):
        for arm in summary.arms[metric]:
            assert f"{arm.name}: {arm.error:.4f}" in page
    assert "icl@n, n = 1,000:" in pages[0]


def test_the_arm_for_each_wish(summary):
    rows = {row[0]: row[2] for row in choice_table(summary).rows if row[1] == "error rate"}
    lowest = min(summary.arms["accuracy"], key=lambda arm: arm.error)
    assert rows["the lowest error"] == lowest.name
    assert rows["the lowest error from 200 rows"] in ("icl@n", "ttt@n+k")
    assert rows["the lowest error without training"] == "icl@n+k"


def test_rows_that_tell_their_test_rows_widen_the_interval(tmp_path):
    rows = [
        record(cell("alpha", arm, 200, seed), error)
        for seed in (0, 1, 2)
        for arm, error in (("icl@n", 0.3), ("ttt@n+k", 0.2 + seed / 100))
    ]
    told = [replace(one, row=replace(one.row, test_rows=2400)) for one in rows]
    plain, wide = (
        summaries(read_store(fill(tmp_path / name, lines)))[0].pairs[0].difference
        for name, lines in (("plain", rows), ("told", told))
    )
    assert wide.high - wide.low == pytest.approx((plain.high - plain.low) * (1 + 3 * 2) ** 0.5)
