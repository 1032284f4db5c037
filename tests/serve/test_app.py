"""The HTTP application: what it answers, what it refuses, and how requests share a call of the model."""

from __future__ import annotations

import asyncio
import io
import json
import threading

import numpy as np
import pandas as pd
import pyarrow
import pytest
from fastapi.testclient import TestClient

from tttab.bundle import Bundle
from tttab.data import Origin, schema_of, table_from_frame
from tttab.serve.app import Limits, application
from tttab.serve.batching import Batches, Busy, predict_together
from tttab.serve.bodies import ARROW, CSV, JSON, MOST_ROWS, PARQUET
from tttab.testing import ToySession


def frame(rows=40, seed=0):
    rng = np.random.default_rng(seed)
    job = rng.choice(["clerk", "cook"], rows)
    return pd.DataFrame({"age": rng.normal(40, 9, rows).round(1), "job": job})


def bundle_of(seed=0, classes=("no", "yes")):
    rows = frame(seed=seed)
    kind = np.array(classes)[(rows["age"] > 40).astype(int)]
    table = table_from_frame(rows.assign(kind=kind), Origin("people", "file"))
    return Bundle(ToySession(), table.x, table.y, schema_of(table))


@pytest.fixture(scope="module")
def bundle():
    return bundle_of()


@pytest.fixture
def client(bundle):
    with TestClient(application({"people": bundle})) as client:
        yield client


def records(rows):
    return json.loads(rows.to_json(orient="records"))


def expected(bundle, rows):
    return bundle.answers(bundle.schema.apply(rows))


def table_bytes(rows):
    sink, table = io.BytesIO(), pyarrow.Table.from_pandas(rows, preserve_index=False)
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


BODIES = {
    JSON: lambda rows: json.dumps({"rows": records(rows)}).encode(),
    CSV: lambda rows: rows.to_csv(index=False).encode(),
    PARQUET: lambda rows: rows.to_parquet(index=False),
    ARROW: table_bytes,
}
READERS = {
    JSON: lambda content: pd.DataFrame(json.loads(content)["predictions"]),
    CSV: lambda content: pd.read_csv(io.BytesIO(content)),
    PARQUET: lambda content: pd.read_parquet(io.BytesIO(content)),
    ARROW: lambda content: pyarrow.ipc.open_stream(content).read_pandas(),
}


@pytest.mark.parametrize("answer", READERS)
@pytest.mark.parametrize("kind", BODIES)
def test_every_form_of_rows_gets_the_same_predictions_in_every_form(client, bundle, kind, answer):
    rows = frame(7, seed=1)
    got = client.post(
        "/predict", content=BODIES[kind](rows), headers={"content-type": kind, "accept": answer}
    )
    assert got.status_code == 200, got.text
    found, wanted = READERS[answer](got.content), expected(bundle, rows)
    assert list(found) == list(wanted) == ["prediction", "p(no)", "p(yes)"]
    assert found["prediction"].tolist() == wanted["prediction"].tolist()
    assert np.allclose(found[["p(no)", "p(yes)"]], wanted[["p(no)", "p(yes)"]], atol=1e-6)


def test_rows_may_be_a_bare_list_with_gaps_and_columns_in_any_order(client, bundle):
    rows = [{"job": "cook", "age": 31}, {"age": None, "job": "clerk"}, {"job": "cook"}]
    got = client.post("/predict", json=rows).json()
    wanted = expected(bundle, pd.DataFrame({"age": [31, None, None], "job": ["cook", "clerk", "cook"]}))
    assert [row["prediction"] for row in got["predictions"]] == wanted["prediction"].tolist()


def test_texts_that_the_table_never_had_are_remarked_on(client):
    got = client.post("/predict", json={"rows": [{"age": 30, "job": "pilot"}]})
    assert got.status_code == 200
    assert "1 cell holds an unknown text" in got.json()["remarks"][0]


@pytest.mark.parametrize(
    ("kind", "body", "status", "words"),
    [
        (JSON, b"{", 422, "not JSON"),
        (JSON, b'{"rows": [NaN]}', 422, "NaN"),
        (JSON, b"[" * 100_000, 422, "not JSON"),
        (JSON, b'{"rows": []}', 422, "1 to"),
        (JSON, b'{"rows": 5}', 422, "list of objects"),
        (JSON, b'{"rows": [[1]]}', 422, "list of objects"),
        (JSON, b'{"rows": [{"age": {"a": 1}, "job": "cook"}]}', 422, "a cell must be"),
        (JSON, b'{"rows": [{"age": 1}]}', 422, "lack 1 of 2 columns"),
        (JSON, b'{"rows": [{"age": "old", "job": "cook"}]}', 422, "age"),
        (JSON, b"[" + b"{}," * MOST_ROWS + b"{}]", 422, "1 to 20,000"),
        (CSV, b"age,job\n1,cook,more\n", 422, "the body"),
        (CSV, b"\xff\xfe\0", 422, ""),
        (PARQUET, b"PAR1", 422, "the body"),
        (ARROW, b"nothing", 422, "Arrow"),
        ("application/x-pickle", b"cos\nsystem\n", 415, "Content-Type"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_in_words(client, kind, body, status, words):
    got = client.post("/predict", content=body, headers={"content-type": kind})
    assert got.status_code == status, got.text
    assert words in got.text and "Traceback" not in got.text and "/" + "tmp" not in got.text
    assert client.post("/predict", json={"rows": [{"age": 1, "job": "cook"}]}).status_code == 200


def test_schema_health_and_the_page(client):
    assert client.get("/health").json()["bundles"] == ["people"]
    schema = client.get("/schema").json()
    assert [column["name"] for column in schema["columns"]] == ["age", "job"]
    assert schema["classes"] == ["no", "yes"]
    assert "/predict" in client.get("/openapi.json").json()["paths"]
    assert client.get("/docs").status_code == 200


def test_metrics_count_requests_rows_and_refusals(client):
    client.post("/predict", json={"rows": [{"age": 1, "job": "cook"}] * 3})
    client.post("/predict", content=b"{", headers={"content-type": JSON})
    lines = client.get("/metrics").text.splitlines()
    assert 'tttab_requests_total{bundle="people",status="200"} 1.0' in lines
    assert 'tttab_requests_total{bundle="people",status="422"} 1.0' in lines
    assert 'tttab_rows_total{bundle="people"} 3.0' in lines
    assert 'tttab_seconds_count{bundle="people"} 2.0' in lines


def test_several_bundles_are_asked_by_name(bundle):
    other = bundle_of(1, ("left", "right"))
    rows = {"rows": [{"age": 30, "job": "cook"}]}
    with TestClient(application({"people": bundle, "hands": other})) as client:
        assert client.post("/predict", json=rows).status_code == 404
        assert client.post("/predict/nobody", json=rows).status_code == 404
        for name, classes in (("people", ("no", "yes")), ("hands", ("left", "right"))):
            answer = client.post(f"/predict/{name}", json=rows).json()["predictions"][0]
            assert set(answer) == {"prediction", *(f"p({kind})" for kind in classes)}
            assert client.get(f"/schema/{name}").json()["classes"] == list(classes)


def test_a_token_is_asked_for_everywhere_but_at_the_health_check(bundle):
    rows = {"rows": [{"age": 30, "job": "cook"}]}
    with TestClient(application({"people": bundle}, token="sesame")) as client:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "sesame"}):
            assert client.post("/predict", json=rows, headers=headers).status_code == 401
            assert client.get("/schema", headers=headers).status_code == 401
            assert client.get("/metrics", headers=headers).status_code == 401
        assert client.get("/health").status_code == 200
        good = {"authorization": "Bearer sesame"}
        assert client.post("/predict", json=rows, headers=good).status_code == 200


def test_a_request_that_is_too_large_is_refused_whether_it_says_so_or_not(bundle):
    with TestClient(application({"people": bundle}, limits=Limits(body=100))) as client:
        assert client.post("/predict", content=b"x" * 101).status_code == 413
        assert client.post("/predict", content=iter([b"x" * 60, b"x" * 60])).status_code == 413
        assert client.post("/predict", content=b"", headers={"content-length": "-5"}).status_code == 413


class Slow:
    """A bundle that waits for a sign, and notes how many rows each call had."""

    def __init__(self, bundle):
        self.x, self.schema, self._bundle = bundle.x, bundle.schema, bundle
        self.go, self.sizes = threading.Event(), []

    def answers(self, x):
        self.sizes.append(len(x))
        assert self.go.wait(20)
        return self._bundle.answers(x)


async def _while_running(queue, work):
    task = asyncio.create_task(queue.run())
    try:
        return await work
    finally:
        task.cancel()


def test_requests_that_wait_together_are_answered_by_one_call(bundle):
    slow, rows = Slow(bundle), [bundle.schema.apply(frame(count, seed=count)) for count in (3, 5, 7)]
    queue = Batches(slow, 1_000)

    async def work():
        first = asyncio.create_task(queue.predict(rows[0]))
        while not slow.sizes:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(queue.predict(x)) for x in rows[1:]]
        gone = asyncio.create_task(queue.predict(rows[2]))
        await asyncio.sleep(0.01)
        gone.cancel()
        slow.go.set()
        return [await first, *[await other for other in others]]

    answers = asyncio.run(_while_running(queue, work()))
    assert slow.sizes == [3, 12] and queue.calls == 2 and queue.waiting == 0
    for answer, x in zip(answers, rows, strict=True):
        pd.testing.assert_frame_equal(answer.reset_index(drop=True), bundle.answers(x))


def test_a_full_queue_refuses_and_serves_on(bundle):
    slow, x = Slow(bundle), bundle.schema.apply(frame(10))
    queue = Batches(slow, 15)

    async def work():
        running = asyncio.create_task(queue.predict(x))
        while not slow.sizes:
            await asyncio.sleep(0.001)
        waiting = asyncio.create_task(queue.predict(x))
        await asyncio.sleep(0.01)
        with pytest.raises(Busy):
            await queue.predict(x)
        slow.go.set()
        return len(await running) + len(await waiting)

    assert asyncio.run(_while_running(queue, work())) == 20


def test_a_fault_of_the_model_reaches_its_requests_and_no_others(bundle):
    class Faulty(Slow):
        def answers(self, x):
            if len(x) == 3:
                raise RuntimeError("broken")
            return self._bundle.answers(x)

    queue = Batches(Faulty(bundle), 100)

    async def work():
        with pytest.raises(RuntimeError, match="broken"):
            await queue.predict(bundle.schema.apply(frame(3)))
        return await queue.predict(bundle.schema.apply(frame(4)))

    assert len(asyncio.run(_while_running(queue, work()))) == 4


def test_rows_with_texts_of_their_own_are_answered_as_alone(bundle):
    """Levels that a request brings do not shift those of the others in its batch."""
    ones = [pd.DataFrame({"age": [30.0], "job": [job]}) for job in ("aviator", "cook", "zoologist")]
    frames = [bundle.schema.apply(one) for one in ones]
    for together, x in zip(predict_together(bundle, frames), frames, strict=True):
        pd.testing.assert_frame_equal(together.reset_index(drop=True), predict_together(bundle, [x])[0])
