"""`tttab inspect`: show a bundle's manifest and check the hashes of its files, without opening the model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from tttab.cli import options, output
from tttab.text import shell_word


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("inspect", rich_help_panel="Adapt")(inspect)


def inspect(
    bundle: options.Bundle,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the manifest as JSON.", rich_help_panel=options.OUTPUT)
    ] = False,
    card: Annotated[
        bool, typer.Option("--card", help="Print a model card in Markdown.", rich_help_panel=options.OUTPUT)
    ] = False,
) -> None:
    """Show a bundle's manifest and check the hash of each of its files; exit code 1 if one differs.

    Example: [bold]tttab inspect churn[/], or [bold]tttab inspect churn --card > README.md[/]
    """
    from tttab.bundle.card import model_card
    from tttab.bundle.manifest import MANIFEST, check_files, read_manifest
    from tttab.errors import BadAnswer, BundleError

    try:
        manifest = read_manifest(bundle)
        files = check_files(bundle)
    except BundleError as error:
        if not (bundle / MANIFEST).exists():
            raise
        raise BadAnswer(error.message, error.hint) from error
    if card:
        return output.print_lines(model_card(manifest).rstrip("\n"))
    if as_json:
        verdicts = [{"role": role, "file": file, "verdict": verdict} for role, file, verdict in files]
        output.print_json({"manifest": manifest, "check": verdicts})
    else:
        lines = [
            *_lines(manifest),
            *((f"file: {role}", f"{file}: {verdict}") for role, file, verdict in files),
        ]
        output.print_table(("what", "value"), lines, left=("what", "value"))
    bad = [file for _, file, verdict in files if verdict != "ok"]
    if bad:
        raise BadAnswer(f"{len(bad)} of {len(files)} files differ from those written: {', '.join(bad)}",
                        f"tttab adapt TABLE --target Y --out {shell_word(bundle)}")  # fmt: skip
    if not as_json:
        output.print_summary(f"All {len(files)} files are those that were written.")


def _lines(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the manifest as (what, value) lines, nested names joined by a space."""
    base, model, schema = manifest["base"], manifest["model"], manifest["schema"]
    classes = schema.get("classes", [])
    lines = [
        ("format", f"{manifest['format']}, written {manifest['created']} by tttab {manifest['tttab']}"),
        ("task", manifest["task"] + (f": {', '.join(map(str, classes))}" if classes else "")),
        ("target", str(schema.get("target"))),
        ("features", f"{len(schema.get('columns', []))}: {_some_columns(schema)}"),
        ("context rows", _rows(manifest)),
        ("base model", f"{base['name']}, {base['file']} ({base['provenance']})"),
        ("base sha256", base["sha256"]),
        ("base licence", base.get("license") or "not known"),
        ("adapted on", f"{model['device']}, {model['dtype']}, model seed {model['seed']}"),
    ]
    if "packed" in manifest:
        lines.append(("packed", "what training moved; the rest is the base's file"))
    if "held" in manifest:
        lines.append(("held-out rows", f"{manifest['held']['rows']:,}, unencrypted"))
    if "blend" in manifest:
        lines.append(("trees' share", f"{manifest['blend']['weight']:.0%} of each prediction"))
    lines += _record_lines(manifest["record"])
    lines.append(("versions", ", ".join(f"{name} {value}" for name, value in manifest["versions"].items())))
    return lines


def _rows(manifest: dict[str, Any]) -> str:
    if "cache" not in manifest["files"]:
        return f"the bundle contains its {manifest['rows']:,} context rows, unencrypted"
    return (
        f"{manifest['rows']:,}, not in the bundle; what was made of them is (keys, values, scales), from "
        "which cells can be estimated"
    )


def _some_columns(schema: dict[str, Any], most: int = 8) -> str:
    names = [str(column.get("name")) for column in schema.get("columns", [])]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _record_lines(record: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield what the writer recorded, less what is empty; nested names are joined by a space."""
    if isinstance(record, dict):
        if set(record) >= {"before", "after"}:
            record = _pairs(record)
        elif record.get("rates"):  # they race in the place of `lr`
            record = {key: value for key, value in record.items() if key != "lr"}
        for key, value in record.items():
            if (key, name) != ("history", "estimator"):
                yield from _record_lines(value, f"{name} {key.replace('_', ' ')}".strip())
    elif record not in (None, "", []):
        yield name, _value(record)


def _pairs(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of figures before and after training with both of a figure in one line."""
    before, after = record["before"], record["after"]
    rest = {key: value for key, value in record.items() if key not in ("before", "after")}
    if not isinstance(before, dict) or not isinstance(after, dict):
        return rest | {"": f"{_value(before)} before, {_value(after)} after"}
    return rest | {
        key: f"{_value(value)} before, {_value(after.get(key))} after" for key, value in before.items()
    }


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
