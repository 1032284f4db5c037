"""The parts of a bundle that hold no rows, written and read: weights, trees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tttab.blend.blending import Blend
from tttab.blend.trees import Trees
from tttab.bundle.manifest import AGAIN, checked_bytes
from tttab.bundle.staging import Writer
from tttab.contracts import Session
from tttab.errors import BundleError
from tttab.text import shell_word

if TYPE_CHECKING:
    from tttab.data.schema import Schema


def bytes_writer(content: bytes) -> Writer:
    """Return what writes these bytes."""

    def write(path: Path) -> None:
        path.write_bytes(content)

    return write


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

    again = f"{AGAIN}{shell_word(directory)}"
    content = checked_bytes(directory, manifest["files"]["trees"], again)
    try:
        arrays = load(content)
    except SafetensorError as error:
        raise BundleError(f"the trees in {directory} cannot be read: {error}", again) from error
    trees = Trees.from_arrays(arrays, len(schema.classes), levels)
    return Blend(trees, float(manifest["blend"]["weight"]))
