"""The parts of a bundle that hold no rows, written and read: weights, trees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tttab.blend.blending import Blend
from tttab.blend.trees import Trees
from tttab.bundle.manifest import checked_bytes, rewrite_hint
from tttab.bundle.staging import Writer
from tttab.contracts import Session
from tttab.errors import BundleError

if TYPE_CHECKING:
    from tttab.data.schema import Schema


def bytes_writer(content: bytes) -> Writer:
    """Return what writes these bytes."""
    return lambda path: path.write_bytes(content)


def weights_writer(session: Session) -> Writer:
    """Return what writes a session's weights, with what they depend on."""

    def write(path: Path) -> None:
        from safetensors import SafetensorError

        try:
            session.save(str(path), {"tttab": model_record(session)})
        except SafetensorError as error:
            raise BundleError(f"the weights cannot be written: {error}", "free some disk space") from error

    return write


def trees_writer(blend: Blend) -> Writer:
    """Return what writes trees as arrays."""
    from safetensors.numpy import save

    return bytes_writer(save(blend.trees.to_arrays()))


def model_record(session: Session) -> dict[str, Any]:
    """Return what the weights depend on besides their file: column embeddings differ by device and dtype."""
    weight = session.parameters("all")[0]
    return {"seed": session.seed, "device": weight.device.type, "dtype": str(weight.dtype).split(".")[-1]}


def read_blend(directory: Path, manifest: dict[str, Any], schema: Schema, levels: tuple[int, ...]) -> Blend:
    """Return the trees that a bundle is mixed with.

    Raises:
        BundleError: their file is missing, was changed or holds none.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    content = checked_bytes(directory, manifest["files"]["trees"])
    try:
        arrays = load(content)
    except SafetensorError as error:
        message = f"the trees in {directory} cannot be read: {error}"
        raise BundleError(message, rewrite_hint(directory)) from error
    trees = Trees.from_arrays(arrays, len(schema.classes), levels)
    return Blend(trees, float(manifest["blend"]["weight"]))
