"""The Markdown of ``bench.gpu``: tables of what was measured, with what failed beside them."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

__all__ = ["markdown"]

GIB = 2**30


def table(heads: list[str], lines: Iterable[list[str]]) -> list[str]:
    """A table; nothing without lines."""
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *rows, ""] if rows else []


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def gib(value: float | None) -> str:
    return "-" if value is None else f"{value / GIB:.1f}"


def rows_of(document: dict[str, Any], start: str) -> list[dict[str, Any]]:
    """Rows of the sections whose names begin so, failed ones and limits left out."""
    found = [row for name, one in document["sections"].items() if name.startswith(start) for row in one["rows"]]
    return [row for row in found if "limits" not in row and "failed" not in row]


def codes(document: dict[str, Any]) -> list[str]:
    found = rows_of(document, "codes-")
    alone = [row for row in found if row["what"] == "alone"]
    whole = {(r["columns"], r["model"], r["precision"]): r for r in found if r["what"] == "end to end"}
    lines = []
    for row in alone:
        end = whole.get((row["columns"], row["model"], row["precision"])) if "least_s" in row else None
        least = "-" if "least_s" not in row else f"{row['least_s'] / row['tile_s']:.0%} ({row['bound']})"
        lines.append(
            [
                f"{row['columns']:,}",
                row["model"],
                row["precision"],
                row["sampler"],
                str(row["calls"]),
                f"{row['patients_per_s']:,.0f}",
                least,
                "-" if end is None else f"{end['patients_per_s']:,.0f}",
            ]
        )
    heads = ["columns", "model", "precision", "sampler", "network calls", "patients / s", "share of the limit"]
    return table([*heads, "patients / s, to Parquet"], lines)


def reference(document: dict[str, Any]) -> list[str]:
    lines = [
        [f"{row['columns']:,}", row["precision"], str(row["calls"]), f"{row['patients_per_s']:,.0f}"]
        for row in rows_of(document, "reference")
    ]
    return table(["columns", "precision", "network calls", "patients / s"], lines)


def networks(document: dict[str, Any]) -> list[str]:
    lines = []
    for row in rows_of(document, "networks"):
        what = [f"{row['title']} ({row['parameters'] / 1e6:.1f} M)", row["precision"], row["way"]]
        if "refused" in row:
            lines.append([*what, "-", "cannot", "-"])
            continue
        ratios = [turn["private"] / turn["plain"] for turn in row["turns"]]
        low, middle, high = statistics.quantiles(ratios, n=4)
        plain = statistics.median(turn["plain"] for turn in row["turns"])
        memory = row["memory_bytes"]
        more = f"{memory[row['way']] / memory['plain']:.2f}" if memory else "-"
        lines.append([*what, f"{1e3 * plain:.1f} ms", f"{middle:.2f} ({low:.2f} to {high:.2f})", more])
    heads = ["network (trainable parameters)", "precision", "clipping", "plain step", "private / plain", "memory"]
    return table(heads, lines)


def noise_time(row: dict[str, Any]) -> str:
    """What the secret noise of so many parameters takes."""
    told = f"{row['parameters'] / 1e6:.1f} M: {row['seconds']:.2f} s"
    if "threads" in row:
        told += f" ({row['seconds_on_threads']:.2f} s on {row['threads']} cores)"
    return told


def language(document: dict[str, Any]) -> list[str]:
    found = rows_of(document, "language")
    lines = [
        [
            row["training"],
            row["precision"],
            f"{row['notes']} x {row['length']}",
            f"{row['tokens_per_s']['plain']:,.0f}",
            "refused" if row["ratio"] is None else f"{row['tokens_per_s']['private']:,.0f}",
            "-" if row["ratio"] is None else f"{row['ratio']:.2f}",
            ", ".join(gib(peak) for peak in row["peak_bytes"].values()),
            share(row["share_of_limit"]),
        ]
        for row in found
        if "noise" not in row
    ]
    heads = ["training", "precision", "notes x tokens", "tokens / s, plain", "private", "time, private / plain"]
    text = table([*heads, "peak GiB, plain and private", "plain step's share of the limit"], lines)
    for row in found:
        if "noise" in row:
            told = [noise_time(row[kind]) for kind in ("full", "lora")]
            text += [f"Secret noise of a step, on one core of the host: {', '.join(told)}.", ""]
    return text


def unmasking(document: dict[str, Any]) -> list[str]:
    found = rows_of(document, "unmasking")
    slow = {row["precision"]: row["notes_per_s"] for row in found if row["calls"] == row["places"]}
    lines = []
    for row in found:
        base = slow.get(row["precision"])
        lines.append(
            [
                row["precision"],
                f"{row['calls']}{' (one word at a time)' if row['calls'] == row['places'] else ''}",
                f"{row['notes_per_s']:,.1f}",
                "-" if base is None else f"{row['notes_per_s'] / base:.1f}",
                gib(row["peak_bytes"]),
                share(row["share_of_limit"]),
            ]
        )
    heads = ["precision", "network calls", "notes / s", "times one word at a time", "peak GiB", "share of the limit"]
    return table(heads, lines)


def series(document: dict[str, Any]) -> list[str]:
    found = rows_of(document, "series")
    alone = {(row["model"], row["precision"]): row["patients_per_s"] for row in found if row["guide"] is None}
    lines = [
        [
            row["model"],
            row["precision"],
            row["guide"] or "none",
            str(row["calls"]),
            f"{row['patients_per_s']:,.0f}",
            f"{alone[row['model'], row['precision']] / row['patients_per_s']:.2f}",
        ]
        for row in found
    ]
    return table(["model", "precision", "clinical model", "network calls", "stays / s", "time / unguided"], lines)


def limits(document: dict[str, Any]) -> list[str]:
    """Median over the processes, each of which measured them for itself."""
    found = [row["limits"] for one in document["sections"].values() for row in one["rows"] if "limits" in row]
    if not found:
        return []
    rates = {
        kind: statistics.median(one["flops_per_s"][kind] for one in found) / 1e12 for kind in found[0]["flops_per_s"]
    }
    copied = statistics.median(one["bytes_per_s"] for one in found) / 1e12
    told = ", ".join(f"{kind} {rate:,.2f}" for kind, rate in rates.items())
    return [f"Limits measured on the device: copy {copied:.2f} TB/s; matrix product, TFLOP/s: {told}.", ""]


PARTS = {
    "Patients of code tables": codes,
    "The published sampler, 1,000 ancestral steps": reference,
    "A private step beside a plain one": networks,
    "A masked language model of BERT-base size, trained": language,
    "Notes of such a model": unmasking,
    "Stays": series,
}


def markdown(document: dict[str, Any]) -> str:
    """All of it."""
    machine = document["machine"]
    told = f"Machine: {machine['device']}"
    if "driver" in machine:
        told += f" (driver {machine['driver'].split(', ')[1]}, CUDA {machine['cuda']})"
    told += (
        f", {machine['cores']} cores, Python {machine['python']}, torch {machine['torch']}; seed {document['seed']}."
    )
    if document["quick"]:
        told += " Tried in small: these figures say nothing."
    lines = [told, "", *limits(document)]
    if "tests" in document:
        lines += [f"Tests that need a GPU: {document['tests']['said']}", ""]
    for later in document.get("again", []):
        where = "the same kind of machine" if later["machine"] == machine else later["machine"]["device"]
        lines += [f"Measured again later, on {where}: {', '.join(later['sections'])}.", ""]
        if later["tests"]:
            lines += [f"Tests run again there: {later['tests']['said']}", ""]
    for title, part in PARTS.items():
        if text := part(document):
            lines += [f"{title}:", "", *text]
    for name, one in document["sections"].items():
        failures = [one["failed"]] if "failed" in one else []
        failures += [row["failed"] for row in one["rows"] if "failed" in row]
        lines += [f"Failed, {name}: {failure}" for failure in failures]
    return "\n".join(lines).rstrip() + "\n"
