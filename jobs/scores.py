"""What an evaluation found, as tables: for the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_HEADINGS = {
    "auc": "AuC",
    "auc_rebalanced": "rebalanced AuC",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "delta_e": "ΔE2000",
    "delta_e_p90": "ΔE2000 p90",
    "colourfulness": "colourfulness",
    "colourfulness_difference": "against truth",
    "chroma": "chroma",
    "top1": "top-1",
}
_FOUR_DIGITS = {"ssim"}


def in_words(document: dict[str, Any]) -> str:
    """An aligned table, with what it was measured on."""
    table = _table(document, "values")
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([_about(document), "", *lines])


def in_markdown(document: dict[str, Any]) -> str:
    """The table, the differences from gray, and what each column means."""
    parts = ["# Evaluation", _about(document), "\n".join(_markdown(_table(document, "values")))]
    if any(row["against_gray"] for row in document["rows"]):
        parts += ["## Difference from gray, picture by picture", "\n".join(_markdown(_table(document, "against_gray")))]
    parts += ["## Columns", "\n".join(f"- {_HEADINGS[name]}: {words}." for name, words in document["measures"].items())]
    parts += ["## Rows", "\n".join(_rows_explained(document))]
    return "\n\n".join([*parts, "## Data", "\n".join(f"- {line}" for line in document["sources"])]) + "\n"


def _about(document: dict[str, Any]) -> str:
    kind = "held-out " if document["held_out"] else ""
    return (
        f"{document['pictures']} {kind}pictures of {', '.join(document['data'])} at {document['size']}². "
        f"Rebalanced by the {document['weights']}. {_spread(**document['bootstrap'])}"
    )


def _spread(replicates: int, drawn: str) -> str:
    if not replicates:
        return "Too few for intervals."
    return f"±: half of the 95 % interval, of {replicates} bootstrap replicates over {drawn}."


def _table(document: dict[str, Any], part: str) -> list[list[str]]:
    measured = [row for row in document["rows"] if row[part]]
    names = [name for name in document["measures"] if any(name in row[part] for row in measured)]
    rows = ([row["name"], *(_cell(name, row[part].get(name)) for name in names)] for row in measured)
    return [["", *(_HEADINGS[name] for name in names)], *rows]


def _cell(name: str, found: dict[str, float | None] | None) -> str:
    if found is None:
        return "–"
    digits = 4 if name in _FOUR_DIGITS else 2
    value, low, high = found["value"], found["low"], found["high"]
    spread = "" if low is None or high is None else f" ±{(high - low) / 2:.{digits}f}"
    return f"{value:.{digits}f}{spread}"


def _markdown(table: list[list[str]]) -> Iterator[str]:
    heading, *rows = ([cell.replace("|", "\\|") for cell in row] for row in table)
    yield f"| {' | '.join(heading)} |"
    yield "|---" * len(heading) + "|"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _rows_explained(document: dict[str, Any]) -> Iterator[str]:
    yield "- gray: no colour. random: the colour of another picture, stretched to fit."
    for row in document["rows"]:
        if row["kind"] == "model":
            temperature = "" if row["temperature"] is None else f", T = {row['temperature']:g}"
            yield f"- {row['name']}: {row['network']}{temperature}, SHA-256 {row['sha256']}."
