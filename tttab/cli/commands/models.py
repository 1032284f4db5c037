"""`tttab models`: list the known model files, download official ones, and check hashes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tttab.cli import completion, options, output

if TYPE_CHECKING:
    from tttab.models.catalog import KnownModel

models = typer.Typer(name="models", help="List, download and verify model files.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="A name of `tttab models list`.", autocompletion=completion.models)]

_SHORT = {
    "trained on synthetic tables only": "synthetic",
    "trained on synthetic tables, then further on real tables": "real too",
    "trained on real tables too (older downloads), or a copy of its base file (newer ones)": "see docs",
    "trained on what is not recorded here: see its model page": "not recorded",
}
"""What a model has seen, in a word: a terminal is narrow."""


def register(app: typer.Typer) -> None:
    """Add the command group to `app`."""
    app.add_typer(models, rich_help_panel="Data and models")


@models.command("list")
def list_models(
    here: Annotated[bool, typer.Option("--here", help="Only files that are on this machine.")] = False,
    as_json: options.Json = False,
) -> None:
    """Show the known files: size, licence, training data, and where they are on disk.

    Example: [bold]tttab models list --here[/]
    """
    with output.waiting("looking for model files", quiet=as_json):
        facts = [_facts(model) for model in _known()]
    shown = [fact for fact in facts if fact["here"] or not here]
    if as_json:
        output.print_json({"models": shown})
        return
    rows = [
        (f["name"], f["task"], "yes" if f["here"] else "no", f["megabytes"], f["license"], f["provenance"],
         f["file"])
        for f in shown
    ]  # fmt: skip
    columns = ("name", "task", "here", "MB", "licence", "trained on", "file")
    if output.stdout().is_terminal:  # what does not fit a line stands in the pipe and in the JSON
        rows = [
            (*row[:4], row[4].split(", ")[-1].removeprefix("Apache 2.0 with "), _SHORT[row[5]])
            for row in rows
        ]
        columns = columns[:6]
    output.print_table(columns, rows, left=("task", "here", "licence", "trained on", "file"))
    folders = sorted({fact["folder"] for fact in facts})
    output.note(f"looked for in: {', '.join(folders)} (TABPFN_MODEL_CACHE_DIR changes tabpfn's)")


@models.command("get")
def get_model(name: Name, as_json: options.Json = False) -> None:
    """Download an official file from the model hub; gated files need an accepted licence.

    Example: [bold]tttab models get tabpfn-v2[/]
    """
    from tttab.models.catalog import download, local_path, verify

    rows = []
    for model in _called(name):
        if model.release is not None:
            output.note(f"{model.file}: {model.release.license} ({model.release.license_url})", quiet=as_json)
            if model.release.non_commercial:
                output.warn("the licence allows research and evaluation only, no production use")
        there = local_path(model).is_file()
        if not there:
            with output.waiting(f"downloading {model.file}", quiet=as_json):
                download(model)
        digest, verdict = verify(model)
        if not there and verdict == "remembered":
            output.note(
                f"{model.file}: the hub stated no SHA-256 to compare with; this one is remembered",
                quiet=as_json,
            )
        rows.append({**_facts(model), "sha256": digest, "verdict": verdict, "downloaded": not there})
    _print(rows, as_json)


@models.command("login")
def log_in(name: Name = "tabpfn-v3.5", as_json: options.Json = False) -> None:
    """Accept the licence of a gated TabPFN, through tabpfn's own log-in; tabpfn keeps the token.

    Example: [bold]tttab models login tabpfn-v2.5[/]
    """
    from tttab.models.catalog import family_of

    model = _called(name)[0]
    if model.release is None or not model.release.gated:
        output.print_summary(f"{model.name} needs no log-in: tttab models get {model.name}")
        return
    output.note(f"{model.name}: {model.release.license} ({model.release.license_url})", quiet=as_json)
    family_of(model).login(model)
    if as_json:
        output.print_json({"name": model.name, "state": "accepted"})
        return
    output.print_summary(f"The licence of {model.name} is accepted: tttab models get {model.name}")


@models.command("verify")
def verify_models(
    name: Annotated[
        str | None,
        typer.Argument(help="One model (default: all that are here).", autocompletion=completion.models),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check the hashes of model files against the package's record, the hub's hash, or the first seen.

    Example: [bold]tttab models verify[/]
    """
    from tttab.errors import BadAnswer
    from tttab.models.catalog import local_path, verify

    candidates = _called(name) if name else _known()
    # A name may mean a classifier and a regressor, of which one is here; if none is, `verify` says so.
    chosen = [model for model in candidates if local_path(model).is_file()] or candidates * bool(name)
    rows = []
    for model in chosen:
        digest, verdict = verify(model)
        rows.append({**_facts(model), "sha256": digest, "verdict": verdict})
    _print(rows, as_json)
    changed = [row["file"] for row in rows if row["verdict"].startswith("changed")]
    if changed:
        raise BadAnswer(
            f"{len(changed)} files are not those on record: {', '.join(changed)}",
            "remove an official file and fetch it again: tttab models get NAME",
        )


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        output.print_json({"models": rows})
        return
    columns = ("name", "task", "MB", "sha256", "verdict", "path")
    lines = [(r["name"], r["task"], r["megabytes"], r["sha256"], r["verdict"], r["path"]) for r in rows]
    output.print_table(columns, lines, left=("name", "task", "sha256", "verdict", "path"))


def _known() -> tuple[KnownModel, ...]:
    from tttab.models.catalog import KNOWN

    return KNOWN


def _called(name: str) -> list[KnownModel]:
    """Return the models of a name: a classifier, a regressor or both.

    Raises:
        RequestError: there is none.
    """
    from difflib import get_close_matches

    from tttab.errors import RequestError
    from tttab.models import names

    found = [model for model in _known() if model.name == name]
    if found:
        return found
    close = get_close_matches(name, names()[1:], n=1)
    raise RequestError(
        f"no model is called {name!r}", f"did you mean {close[0]}?" if close else "tttab models list"
    )


def _facts(model: KnownModel) -> dict[str, Any]:
    from tttab.models.catalog import local_path

    path = local_path(model)
    here = path.is_file()
    return {
        "name": model.name,
        "task": model.task,
        "file": model.file,
        "version": model.release.version if model.release else None,
        "license": model.license,
        "license_url": model.release.license_url if model.release else None,
        "provenance": model.provenance,
        "here": here,
        "megabytes": round(path.stat().st_size / 1e6, 1) if here else model.megabytes,
        "folder": str(path.parent),
        "path": str(path),
    }
