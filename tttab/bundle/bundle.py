"""A bundle: a folder with adapted weights, the context rows they belong to, and a manifest.

A crash, Ctrl-C or a full disk at any moment leaves the old bundle whole (`staging`), and two writers end with
one of their bundles (`claim`). Reading checks every hash and never runs code from a file. Many threads may
use one bundle.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import threading
import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tttab.blend.blending import Blend, BlendedPredictor
from tttab.blend.trees import Trees
from tttab.bundle.context_file import read_context
from tttab.bundle.manifest import (
    AGAIN,
    ATTACHMENT,
    FORMAT,
    MANIFEST,
    check_replaceable,
    read_manifest,
    versions,
)
from tttab.bundle.packing import weights_file
from tttab.bundle.staging import Writer, staged
from tttab.contracts import Context, Predictor, Session
from tttab.core import ModelInfo
from tttab.data.levels import levels_of
from tttab.errors import BundleError, DataError, ModelError
from tttab.metrics import decided
from tttab.system.claim import Claim, claimed
from tttab.system.files import plain
from tttab.text import shell_word

if TYPE_CHECKING:
    import pandas as pd

    from tttab.data.schema import Schema

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""What `answers` gives beside the mean of a regression bundle."""
READ_ATTEMPTS = 5
"""Readers try again where a writer has replaced the bundle under them."""
RESERVED = ("weights", "moved", "context", "held", "trees", "manifest", "made", "new_made")
"""Names that no attachment may have."""


@dataclass
class Bundle:
    """A model adapted to a table, with the rows it reads: in memory, saved or loaded."""

    session: Session
    """The adapted model."""
    x: pd.DataFrame
    """The n context rows, as `schema.apply` gives them."""
    y: np.ndarray
    """Shape (n,): class codes, or values."""
    schema: Schema
    record: dict[str, Any] = field(default_factory=dict)
    """How it came to be, plain data: table, split, adaptation, metrics."""
    notes: tuple[str, ...] = ()
    """What a reader should know before trusting predictions, a sentence each."""
    blend: Blend | None = None
    """Trees that the predictions are mixed with; None: the model predicts alone."""
    held: tuple[pd.DataFrame, np.ndarray] | None = None
    """Labelled rows that chose the step, in the form of x and y: an update is judged on them too."""

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._context: Context | None = None
        self._server: Predictor | None = None

    @property
    def context(self) -> Context:
        """The context rows, prepared by the session; made once, whoever asks first."""
        with self._lock:
            if self._context is None:
                self._context = self.session.context(self.x, self.y, len(self.schema.classes))
            return self._context

    @property
    def server(self) -> Predictor:
        """The predictor with the context's key-value cache; made once, whoever asks first."""
        with self._lock:
            if self._server is None:
                model = self.session.serve(self.context)
                self._server = model if self.blend is None else BlendedPredictor(model, self.blend)
            return self._server

    @property
    def threshold(self) -> float | None:
        """From which probability on a row counts as of the second of two classes; None: the likelier one."""
        return self.record.get("threshold", {}).get("value")

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Return what is predicted for raw rows: probabilities of shape (rows, classes).

        Raises:
            DataError: a column is missing, or a cell is not of its column's kind.
        """
        read = self.schema.read(frame)
        for remark in read.remarks:
            warnings.warn(remark, UserWarning, stacklevel=2)
        return self.server.predict(read.x)

    def answers(self, x: pd.DataFrame) -> pd.DataFrame:
        """Return what `tttab predict` writes for rows that `schema.read` gave.

        Column `prediction` is the likeliest class, or what the threshold decides, then the probability per
        class, `p(CLASS)`; or the mean, then quantiles, `q0.05` and so on.
        """
        import pandas as pd

        if not self.schema.classes:
            quantiles = self.server.predict_quantiles(x, QUANTILES)
            named = {f"q{level:g}": quantiles[:, number] for number, level in enumerate(QUANTILES)}
            return pd.DataFrame({"prediction": self.server.predict(x), **named})
        p = self.server.predict(x)
        classes = np.array(self.schema.classes, dtype=object)
        columns = {f"p({name})": p[:, number] for number, name in enumerate(classes)}
        return pd.DataFrame({"prediction": classes[decided(p, self.threshold)], **columns})

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what can be built again: the prepared context and the cache, and the lock."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()


@contextmanager
def bundle_folder(
    directory: str | os.PathLike[str], *, waiting: Callable[[str], None] | None = None
) -> Generator[Claim]:
    """Hold a folder from before the training until the bundle is saved in it: `save_bundle(claim, …)`.

    That it can be written, that no other process writes there and that no foreign manifest would be
    replaced is proven here. Nothing is left where no bundle is saved.

    Args:
        directory: made if it is not there.
        waiting: told once, in a sentence, if another writer is waited for; by default a warning.

    Raises:
        RequestError: another process writes there, or what lies there is not ours.
        OSError: the folder cannot be made or written.
    """
    settings = {} if waiting is None else {"waiting": waiting}
    with claimed(directory, **settings) as claim:
        check_replaceable(directory)
        yield claim


def room_for(session: Session) -> int:
    """Return the bytes of disk that saving a session's weights takes, generously."""
    return 2 * sum(weight.numel() * weight.element_size() for weight in session.parameters("all"))


def save_bundle(
    directory: str | os.PathLike[str] | Claim, bundle: Bundle, attachments: Mapping[str, Writer] | None = None
) -> Path:
    """Write `bundle` to a folder, whole or not at all, and return the manifest's path.

    Args:
        directory: made if it is not there; or what `bundle_folder` holds. Files of other origin in it are
            left alone.
        attachments: further files of the bundle: a name such as `predictions.csv` and a function
            that writes it to the path it is given. They are hashed and replaced with the rest.

    Raises:
        BundleError: the weights or the context cannot be written, or an attachment's name is not allowed.
        RequestError: another process writes there, or what lies there is not ours.
        OSError: the folder cannot be written to; the old bundle in it is whole.
    """
    weights = f"weights.{bundle.session.suffix}"
    writers = {
        weights: _weights_writer(bundle),
        "context.parquet": _rows_writer(bundle.schema, bundle.x, bundle.y),
    }
    if bundle.blend is not None:
        writers["trees.safetensors"] = _trees_writer(bundle.blend)
    if bundle.held is not None:
        writers["held.parquet"] = _rows_writer(bundle.schema, *bundle.held)
    for name, writer in (attachments or {}).items():
        if not ATTACHMENT.fullmatch(name) or name.split(".")[0] in RESERVED:
            raise BundleError(f"{name!r} cannot be the name of a bundle's file", "predictions.csv")
        writers[name] = writer
    description = _description(bundle)
    json.dumps(description, allow_nan=False)  # what cannot be written must not leave files behind
    held = nullcontext(directory) if isinstance(directory, Claim) else bundle_folder(directory)
    with held as claim, staged(claim.folder) as staging:
        staging.publish({**description, "files": staging.write(writers)})
        claim.kept = True
    return claim.folder / MANIFEST


def schema_in(manifest: dict[str, Any], directory: str | os.PathLike[str]) -> Schema:
    """Return what new rows of a bundle must look like, from its manifest alone.

    Raises:
        BundleError: the manifest describes no schema.
    """
    from tttab.data.schema import schema_from_dict

    try:
        return schema_from_dict(manifest["schema"])
    except DataError as error:
        raise _unusable(directory, error) from error


def load_bundle(directory: str | os.PathLike[str], *, device: str = "auto") -> Bundle:
    """Read a bundle, checking the hash of every file it needs.

    Args:
        directory: the folder.
        device: where the model runs; another type than the one it was adapted on is noted.

    Raises:
        BundleError: there is no bundle, or it is damaged, incomplete or was tampered with.
        RequestError: there is no such device.
    """
    return _while_replaced(Path(directory), lambda manifest: _load(Path(directory), manifest, device))


def _weights_writer(bundle: Bundle) -> Writer:
    def write(path: Path) -> None:
        from safetensors import SafetensorError

        try:
            bundle.session.save(str(path), {"tttab": _model_record(bundle.session)})
        except SafetensorError as error:
            raise BundleError(f"the weights cannot be written: {error}", "free some disk space") from error

    return write


def _trees_writer(blend: Blend) -> Writer:
    def write(path: Path) -> None:
        from safetensors.numpy import save

        path.write_bytes(save(blend.trees.to_arrays()))

    return write


def _rows_writer(schema: Schema, x: pd.DataFrame, y: np.ndarray) -> Writer:
    def write(path: Path) -> None:
        frame = x.reset_index(drop=True)
        classes = np.array(schema.classes, dtype=object)
        frame[schema.target] = classes[y] if len(classes) else np.asarray(y, float)
        try:
            with open(path, "wb") as stream:  # pyarrow takes no path that is not UTF-8
                frame.to_parquet(stream, index=False)
        except UnicodeError as error:
            raise BundleError(
                f"a text of the table is not UTF-8: {error}", "str.encode('utf-8', 'replace').decode()"
            ) from error

    return write


def _description(bundle: Bundle) -> dict[str, Any]:
    import tttab

    description = {
        "format": FORMAT,
        "tttab": tttab.__version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "task": bundle.schema.task,
        "base": _base_record(bundle.session.info),
        "model": _model_record(bundle.session),
        "rows": len(bundle.y),
        "schema": bundle.schema.to_dict(),
        "record": bundle.record,
        "versions": versions(bundle.session.package),
    }
    if bundle.blend is not None:
        description["blend"] = {"weight": bundle.blend.weight}
    if bundle.held is not None:
        description["held"] = {"rows": len(bundle.held[1])}
    return plain(description)


def _base_record(info: ModelInfo) -> dict[str, Any]:
    """Return the base model without how it was found, which names folders of this machine."""
    return {name: value for name, value in asdict(info).items() if name != "chosen"}


def _model_record(session: Session) -> dict[str, Any]:
    """Return what the weights depend on besides their file: column embeddings differ by device and dtype."""
    weight = session.parameters("all")[0]
    return {"seed": session.seed, "device": weight.device.type, "dtype": str(weight.dtype).split(".")[-1]}


def _load(directory: Path, manifest: dict[str, Any], device: str) -> Bundle:
    from tttab.models import open_model

    again = f"{AGAIN}{shell_word(directory)}"
    schema = schema_in(manifest, directory)
    context = _checked_bytes(directory, manifest["files"]["context"], again)
    held = _checked_bytes(directory, manifest["files"]["held"], again) if "held" in manifest else None
    try:
        x, y = read_context(context, schema, manifest["rows"])
        kept = None if held is None else read_context(held, schema, manifest["held"]["rows"])
        digest, seed = manifest["files"]["weights"]["sha256"], manifest["model"]["seed"]
        with weights_file(directory, manifest) as path:
            session = open_model(str(path), schema.task, device=device, seed=seed, expected_sha256=digest)
    except (DataError, ModelError) as error:
        raise _unusable(directory, error) from error
    session.info = replace(_base_of(manifest), parameters=session.info.parameters)
    blend = _read_blend(directory, manifest, schema, levels_of(x)) if "blend" in manifest else None
    return Bundle(session, x, y, schema, manifest["record"], _mismatches(manifest, session), blend, kept)


def _unusable(directory: str | os.PathLike[str], error: DataError | ModelError) -> BundleError:
    return BundleError(
        f"the bundle in {directory} cannot be used: {error.message}", f"{AGAIN}{shell_word(directory)}"
    )


def _read_blend(directory: Path, manifest: dict[str, Any], schema: Schema, levels: tuple[int, ...]) -> Blend:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    again = f"{AGAIN}{shell_word(directory)}"
    content = _checked_bytes(directory, manifest["files"]["trees"], again)
    try:
        arrays = load(content)
    except SafetensorError as error:
        raise BundleError(f"the trees in {directory} cannot be read: {error}", again) from error
    trees = Trees.from_arrays(arrays, len(schema.classes), levels)
    return Blend(trees, float(manifest["blend"]["weight"]))


def _checked_bytes(directory: Path, about: Mapping[str, Any], again: str) -> bytes:
    """Return a file's content, read once: what is hashed is what is used."""
    path = directory / about["file"]
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError) as error:
        raise BundleError(f"{path} is missing", again) from error
    if hashlib.sha256(content).hexdigest() != about["sha256"]:
        raise BundleError(f"{path} was changed: its hash is not the manifest's", again)
    return content


def _base_of(manifest: dict[str, Any]) -> ModelInfo:
    base = manifest["base"]
    names = ("name", "file", "sha256", "provenance")
    given = {name: base[name] for name in names} | {"license": base.get("license", "")}
    return ModelInfo(**given, task=manifest["task"])


def _mismatches(manifest: dict[str, Any], session: Session) -> tuple[str, ...]:
    was, now = manifest["model"], _model_record(session)
    notes = [
        f"the weights were adapted with {what} {was[what]} and are used with {now[what]}: column embeddings "
        "differ between them, so predictions may be worse"
        for what in ("device", "dtype")
        if session.random_embeddings and was[what] != now[what]
    ]
    package = session.package
    wrote, here = manifest["versions"].get(package), versions(package)[package]
    if wrote != here:
        notes.append(
            f"the bundle was written with {package} {wrote}, this is {here}: preprocessing may differ"
        )
    return tuple(notes)


def _while_replaced(directory: Path, read: Callable[[dict[str, Any]], Bundle]) -> Bundle:
    """Read a bundle; start over where another process has put a new one in its place meanwhile."""
    for attempt in range(READ_ATTEMPTS):
        manifest = read_manifest(directory)
        try:
            return read(manifest)
        except (BundleError, FileNotFoundError):
            if attempt == READ_ATTEMPTS - 1 or read_manifest(directory)["sha256"] == manifest["sha256"]:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")
