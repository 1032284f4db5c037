"""`tttab serve`: the process and the socket around the HTTP application of `tttab.serve`."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tttab.cli import options, output
from tttab.text import shown

if TYPE_CHECKING:
    import torch

    from tttab.bundle import Bundle

TOKEN = "TTTAB_SERVE_TOKEN"
GRACE = 10
"""Seconds that open requests have after Ctrl-C."""
MOST_CLIENTS = 2_000
"""Open connections; further ones are answered 503."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("serve", rich_help_panel="Adapt")(serve)


def serve(
    bundles: Annotated[list[Path], typer.Argument(help="Folders that `tttab adapt` wrote.")],
    host: Annotated[
        str, typer.Option(help=f"Address to listen on; any but the loopback address needs ${TOKEN}.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any free port.")] = 8000,
    device: options.Device = "auto",
    max_body: Annotated[str, typer.Option(help="Largest size of a request, such as 16M.")] = "16M",
    max_waiting: Annotated[
        int, typer.Option(min=1, help="Largest number of waiting rows; beyond it the answer is 503.")
    ] = 20_000,
) -> None:
    """Serve bundles over HTTP: POST rows to /predict; /docs describes the interface.

    Example: [bold]tttab serve churn --port 8000[/]
    """
    from tttab.errors import MissingExtra
    from tttab.system.resources import keep_freed_memory, parse_bytes

    try:
        import uvicorn

        from tttab.serve.app import Limits, application
    except ImportError as error:
        raise MissingExtra(error.name or "fastapi", "serve") from error
    limits = Limits(body=parse_bytes(max_body, "--max-body 16M"), waiting=max_waiting)
    keep_freed_memory()
    folders_by_name, token = _by_name(bundles), os.environ.get(TOKEN, "")
    with _listening(host, port, token) as listener:
        weights: dict[str, torch.Tensor] = {}  # each once, whichever bundles hold it
        opened = {name: _open(folder, device, weights) for name, folder in folders_by_name.items()}
        app = application(opened, token=token, limits=limits)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            limit_concurrency=MOST_CLIENTS,
            timeout_graceful_shutdown=GRACE,
        )
        place = f"http://{_address(listener)}"
        output.note(
            f"serving {', '.join(map(shown, folders_by_name))} on {place}; {place}/docs; Ctrl-C ends it"
        )
        uvicorn.Server(config).run(sockets=[listener])


def _by_name(folders: list[Path]) -> dict[str, Path]:
    """Return the bundles by their folders' names."""
    from tttab.errors import RequestError
    from tttab.system.files import home_path

    found: dict[str, Path] = {}
    for folder in map(home_path, folders):
        name = folder.resolve().name
        if name in found:
            raise RequestError(f"two bundles are called {name!r}", "give one of the folders another name")
        found[name] = folder
    return found


def _open(folder: Path, device: str, weights: dict[str, torch.Tensor]) -> Bundle:
    from tttab.bundle import load_bundle

    with output.waiting(f"opening {shown(folder)}"):
        bundle = load_bundle(folder, device=device)
        bundle.session.share_weights(weights)
        bundle.warm_up()  # the cache is built before the first request
    for remark in bundle.notes:
        output.warn(remark)
    return bundle


def _listening(host: str, port: int, token: str) -> socket.socket:
    """Return a socket that listens, before any model is opened.

    Raises:
        RequestError: others could reach it without a token, or the address cannot be had.
    """
    from tttab.errors import RequestError

    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=MOST_CLIENTS)
    except OSError as error:
        reason = error.strerror or error
        raise RequestError(
            f"{shown(host)}:{port} cannot be listened on: {reason}", "--port 0 takes any that is free"
        ) from error
    if not token and not listener.getsockname()[0].startswith(("127.", "::1")):
        listener.close()
        raise RequestError(
            f"whoever reaches {shown(host)} could ask without a token",
            f"{TOKEN}=… tttab serve, or --host 127.0.0.1",
        )
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
