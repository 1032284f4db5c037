"""An OpenML on loopback: the XML, ARFF and Parquet that the real one serves, and its bad days.

Formats follow OpenML's REST API v1 (`/api/v1/xml/data/ID`, `/data/features/ID`, `/task/ID`, split ARFF)
and the object store behind `parquet_url`. A fault is a list of behaviours for a path, used up one per
request: `(seconds, status, body)`, `"truncate"` or `"hang up"`.
"""

from __future__ import annotations

import hashlib
import io
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd

NAMESPACE = 'xmlns:oml="http://openml.org/openml"'


@dataclass
class DataSet:
    """One data set to serve."""

    number: int
    name: str
    frame: pd.DataFrame
    target: str | None = None
    row_id: str | None = None
    ignored: tuple[str, ...] = ()
    status: str = "active"
    parquet: bool = False
    md5: str | None = None
    """Said checksum; None: the right one."""
    nominal: dict[str, list[str]] = field(default_factory=dict)
    """Levels declared in the ARFF header where they are more than those in the data."""

    @property
    def arff(self) -> str:
        lines = [f"% {self.name}", f"@RELATION {quoted(self.name)}", ""]
        for name in self.frame.columns:
            lines.append(f"@ATTRIBUTE {quoted(name)} {self.arff_type(name)}")
        lines += ["", "@DATA"]
        for row in self.frame.itertuples(index=False):
            lines.append(",".join("?" if pd.isna(value) else quoted(value) for value in row))
        return "\n".join(lines) + "\n"

    def arff_type(self, name: str) -> str:
        values = self.frame[name]
        if isinstance(values.dtype, pd.CategoricalDtype):
            levels = self.nominal.get(name, list(values.cat.categories))
            return "{" + ",".join(quoted(level) for level in levels) + "}"
        if pd.api.types.is_numeric_dtype(values.dtype):
            return "INTEGER" if pd.api.types.is_integer_dtype(values.dtype) else "REAL"
        return "STRING"

    @property
    def parquet_bytes(self) -> bytes:
        stream = io.BytesIO()
        self.frame.to_parquet(stream, index=False)
        return stream.getvalue()

    def description(self, root: str) -> str:
        optional = {
            "default_target_attribute": [self.target] if self.target else [],
            "row_id_attribute": [self.row_id] if self.row_id else [],
            "ignore_attribute": list(self.ignored),
            "parquet_url": [f"{root}/datasets/0000/{self.number}/dataset_{self.number}.pq"] * self.parquet,
        }
        extra = "".join(
            f"  <oml:{tag}>{value}</oml:{tag}>\n" for tag, values in optional.items() for value in values
        )
        return (
            f"<oml:data_set_description {NAMESPACE}>\n"
            f"  <oml:id>{self.number}</oml:id>\n"
            f"  <oml:name>{self.name}</oml:name>\n"
            "  <oml:version>1</oml:version>\n"
            "  <oml:description>Served on loopback.</oml:description>\n"
            "  <oml:description_version>1</oml:description_version>\n"
            "  <oml:format>ARFF</oml:format>\n"
            "  <oml:creator>a test</oml:creator>\n"
            "  <oml:upload_date>2014-04-06T23:21:47</oml:upload_date>\n"
            "  <oml:licence>Public</oml:licence>\n"
            f"  <oml:url>{root}/data/v1/download/{self.number}/{self.name}.arff</oml:url>\n"
            f"  <oml:file_id>{self.number}</oml:file_id>\n"
            f"{extra}"
            "  <oml:visibility>public</oml:visibility>\n"
            f"  <oml:status>{self.status}</oml:status>\n"
            "  <oml:processing_date>2020-11-20 20:12:09</oml:processing_date>\n"
            f"  <oml:md5_checksum>{self.md5 or hashlib.md5(self.arff.encode()).hexdigest()}"
            "</oml:md5_checksum>\n"
            "</oml:data_set_description>\n"
        )

    @property
    def features(self) -> str:
        parts = []
        for index, name in enumerate(self.frame.columns):
            values = self.frame[name]
            kind = {"INTEGER": "numeric", "REAL": "numeric", "STRING": "string"}.get(self.arff_type(name))
            levels = [] if kind else list(values.cat.categories)
            parts.append(
                "  <oml:feature>\n"
                f"    <oml:index>{index}</oml:index>\n"
                f"    <oml:name>{name}</oml:name>\n"
                f"    <oml:data_type>{kind or 'nominal'}</oml:data_type>\n"
                + "".join(f"    <oml:nominal_value>{level}</oml:nominal_value>\n" for level in levels)
                + f"    <oml:is_target>{str(name == self.target).lower()}</oml:is_target>\n"
                f"    <oml:is_ignore>{str(name in self.ignored).lower()}</oml:is_ignore>\n"
                f"    <oml:is_row_identifier>{str(name == self.row_id).lower()}</oml:is_row_identifier>\n"
                f"    <oml:number_of_missing_values>{values.isna().sum()}</oml:number_of_missing_values>\n"
                "  </oml:feature>\n"
            )
        return f"<oml:data_features {NAMESPACE}>\n{''.join(parts)}</oml:data_features>\n"


@dataclass
class Task:
    """A task with prescribed splits: test rows of fold i are those whose number is i modulo `folds`."""

    number: int
    data_set: DataSet
    target: str
    kind: str = "Supervised Classification"
    folds: int = 3

    def description(self, root: str) -> str:
        type_id = {"Supervised Classification": 1, "Supervised Regression": 2, "Clustering": 5}[self.kind]
        return (
            f"<oml:task {NAMESPACE}>\n"
            f"  <oml:task_id>{self.number}</oml:task_id>\n"
            f"  <oml:task_name>Task {self.number}: {self.data_set.name} ({self.kind})</oml:task_name>\n"
            f"  <oml:task_type_id>{type_id}</oml:task_type_id>\n"
            f"  <oml:task_type>{self.kind}</oml:task_type>\n"
            '  <oml:input name="source_data">\n    <oml:data_set>\n'
            f"      <oml:data_set_id>{self.data_set.number}</oml:data_set_id>\n"
            f"      <oml:target_feature>{self.target}</oml:target_feature>\n"
            "    </oml:data_set>\n  </oml:input>\n"
            '  <oml:input name="estimation_procedure">\n    <oml:estimation_procedure>\n'
            "      <oml:id>1</oml:id>\n      <oml:type>crossvalidation</oml:type>\n"
            f"      <oml:data_splits_url>{root}/api_splits/get/{self.number}/Task_{self.number}_splits.arff"
            "</oml:data_splits_url>\n"
            '      <oml:parameter name="number_repeats">1</oml:parameter>\n'
            f'      <oml:parameter name="number_folds">{self.folds}</oml:parameter>\n'
            '      <oml:parameter name="percentage"></oml:parameter>\n'
            '      <oml:parameter name="stratified_sampling">true</oml:parameter>\n'
            "    </oml:estimation_procedure>\n  </oml:input>\n"
            '  <oml:input name="cost_matrix">\n    <oml:cost_matrix></oml:cost_matrix>\n  </oml:input>\n'
            '  <oml:input name="evaluation_measures">\n    <oml:evaluation_measures>\n'
            "      <oml:evaluation_measure>predictive_accuracy</oml:evaluation_measure>\n"
            "    </oml:evaluation_measures>\n  </oml:input>\n"
            "</oml:task>\n"
        )

    @property
    def splits(self) -> str:
        lines = [
            f"@RELATION {self.data_set.name}_splits", "@ATTRIBUTE type {TRAIN,TEST}",
            "@ATTRIBUTE rowid INTEGER", "@ATTRIBUTE repeat INTEGER", "@ATTRIBUTE fold INTEGER", "@DATA",
        ]  # fmt: skip
        for fold in range(self.folds):
            for row in range(len(self.data_set.frame)):
                lines.append(f"{'TEST' if row % self.folds == fold else 'TRAIN'},{row},0,{fold}")
        return "\n".join(lines) + "\n"


class OpenMLServer:
    """Serves data sets and tasks until `close`; `requests` lists the paths asked for."""

    def __init__(self, data_sets: list[DataSet], tasks: list[Task]) -> None:
        self.data_sets = {item.number: item for item in data_sets}
        self.tasks = {item.number: item for item in tasks}
        self.faults: dict[str, list] = {}
        self.requests: list[str] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.root = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        """Return (status, content type, body)."""
        parts = path.strip("/").split("/")
        number = next((int(part) for part in parts if part.isdigit() and part != "0000"), -1)
        data_set, task = self.data_sets.get(number), self.tasks.get(number)
        xml, text = "text/xml; charset=utf-8", "text/plain; charset=utf-8"
        if path.startswith("/api/v1/xml/data/features/") and data_set:
            return 200, xml, data_set.features.encode()
        if path.startswith("/api/v1/xml/data/") and data_set:
            return 200, xml, data_set.description(self.root).encode()
        if path.startswith("/api/v1/xml/task/") and task:
            return 200, xml, task.description(self.root).encode()
        if path.startswith("/data/v1/download/") and data_set:
            return 200, text, data_set.arff.encode()
        if path.startswith("/api_splits/get/") and task:
            return 200, text, task.splits.encode()
        if path.startswith("/datasets/") and data_set and data_set.parquet:
            return 200, "application/octet-stream", data_set.parquet_bytes
        code, message = (151, "Unknown task") if "/task/" in path else (111, "Unknown dataset")
        return 412, xml, error(code, message)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_HEAD(self):
                self.do_GET(body_wanted=False)

            def do_GET(self, body_wanted=True):
                path = self.path.split("?")[0]
                server.requests.append(path)
                status, kind, body = server.answer(path)
                faults = server.faults.get(path, [])
                fault = faults.pop(0) if faults else None
                if fault == "hang up":
                    self.close_connection = True
                    return
                if isinstance(fault, tuple):
                    seconds, status, replaced = fault
                    time.sleep(seconds)
                    body = body if replaced is None else replaced
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
                self.send_header("Last-Modified", "Fri, 20 Nov 2020 20:12:09 GMT")
                self.end_headers()
                if body_wanted:
                    self.wfile.write(body[: len(body) // 2] if fault == "truncate" else body)
                if fault == "truncate":
                    self.close_connection = True

        return Handler


def error(code: int, message: str) -> bytes:
    """Return OpenML's XML for an error."""
    return (
        f"<oml:error {NAMESPACE}>\n  <oml:code>{code}</oml:code>\n"
        f"  <oml:message>{message}</oml:message>\n</oml:error>\n"
    ).encode()


def quoted(value) -> str:
    """Return a value as ARFF writes it."""
    text = str(value)
    return f"'{text}'" if any(mark in text for mark in " ,{}%<>'\"") else text
