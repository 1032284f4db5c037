"""What `--json` prints, as types: the published form of a document, from which its JSON schema is made."""

from __future__ import annotations

from typing import Any, NotRequired

from typing_extensions import TypedDict


class Dataset(TypedDict):
    """The table."""

    name: str
    source: str
    openml_id: int | None
    fingerprint: str
    target: str
    rows: int
    features: int
    classes: list[str]
    notes: list[str]


class Rows(TypedDict):
    """How many rows play which part."""

    n: int
    k: int
    test: int
    notes: list[str]


class Model(TypedDict):
    """The model file, and where it ran."""

    name: str
    file: str
    sha256: str
    provenance: str
    parameters: int
    device: str


class Arm(TypedDict):
    """One method; the fields from `held_out` on are there where something was trained."""

    arm: str
    n_context: int
    k: int
    metrics: dict[str, float | None]
    seconds: dict[str, float]
    ms_per_1000_rows: float | None
    cache_bytes: int | None
    steps: int
    accepted: bool | None
    held_out: NotRequired[dict[str, float | None]]
    chunk: NotRequired[int | None]
    precision: NotRequired[str]
    rate: NotRequired[float]
    softened: NotRequired[bool]
    stopped: NotRequired[str]
    vetoed: NotRequired[list[int]]


class Run(TypedDict):
    """What `tttab run --json` prints."""

    dataset: Dataset
    request: dict[str, Any]
    split: Rows
    model: Model
    arms: list[Arm]
    peak_rss_mb: float
    versions: dict[str, str]
    warnings: list[str]


class Found(TypedDict):
    """What the labelled rows say, nats per row; `docs/howto/advise.md` explains each."""

    rows: int
    loss: float
    vectors: float
    trees: float
    longer: float


class Advice(TypedDict):
    """What `tttab advise --json` prints."""

    dataset: Dataset
    request: dict[str, Any]
    split: Rows
    model: Model
    evidence: Found
    sentence: str
    seconds: float


DOCUMENTS: dict[str, type] = {"run": Run, "advise": Advice}
"""By the command that prints them."""


def json_schema(name: str) -> dict[str, Any]:
    """Return the JSON schema of what `tttab NAME --json` prints; `name` is one of `DOCUMENTS`."""
    from pydantic import TypeAdapter

    found = TypeAdapter(DOCUMENTS[name]).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
