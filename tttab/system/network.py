"""Whether a server accepts a connection within a given time."""

from __future__ import annotations

import socket
import threading


def obstacle(host: str, port: int, seconds: float) -> str:
    """Return why `host` takes no connection within `seconds`; nothing if it does."""
    outcome: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
            outcome.append("")
        except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
            outcome.append(getattr(error, "strerror", None) or str(error))

    # A thread, because no timeout ends a name look-up; a daemon, because the process must end without it.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else f"no answer in {seconds:g} s"
