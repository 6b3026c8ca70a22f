"""``synclave sample``: what a person writes, and what they see while patients are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from synclave_server.snapshots import read_snapshot
from synclave_shared.data.schema import Schema
from synclave_shared.errors import ConfigurationError

__all__ = ["label_counts", "run_sample"]


def label_counts(options: Sequence[str], label: str, values: Sequence[str], patients: int) -> dict[str, int] | None:
    """Read ``NAME=VALUE[:COUNT]`` options.

    Args:
        options: as written; a value without a count stands for all patients that no other option counts.
        label: the schema's label.
        values: its values.
        patients: how many patients are asked for.

    Returns:
        Exact counts, or None if there is no option.

    Raises:
        ConfigurationError: if an option is malformed, names another label or value, or the counts do not add up.
    """
    if not options:
        return None
    counts: dict[str, int] = {}
    rest: str | None = None
    for option in options:
        name, _, wanted = option.partition("=")
        # A label value may itself contain a colon: the longest value that fits is meant.
        value, _, count = (wanted, "", "") if wanted in values else wanted.rpartition(":")
        if (
            name != label
            or value not in values
            or value in counts
            or value == rest
            or (count and not count.isdecimal())
        ):
            raise ConfigurationError(
                expected=f"--label {label}=VALUE or {label}=VALUE:COUNT, VALUE one of {', '.join(values)}, each once",
                found=option,
                remedy="Correct the option.",
            )
        if count:
            counts[value] = int(count)
        elif rest is None:
            rest = value
        else:
            raise ConfigurationError(
                expected="a count for all label values but one",
                found=f"none for {rest} and {value}",
                remedy="Write NAME=VALUE:COUNT.",
            )
    if rest is not None:
        counts[rest] = patients - sum(counts.values())
    if sum(counts.values()) != patients or min(counts.values()) < 0:
        raise ConfigurationError(
            expected=f"label counts that add up to {patients} patients",
            found=", ".join(f"{value}: {count}" for value, count in counts.items()),
            remedy="Correct the counts or the number of patients.",
        )
    return counts


def run_sample(
    snapshot: Path,
    patients: int,
    *,
    out: Path,
    labels: Sequence[str],
    sampler: str | None,
    steps: int | None,
    guidance: Decimal,
    seed: int,
    devices: Sequence[str],
    batch_size: int,
    console: Console,
) -> dict[str, Any]:
    """Draw patients with a progress bar; returns the provenance with the file's path.

    Raises:
        ConfigurationError: if the request cannot be fulfilled.
        SnapshotError: if the snapshot is damaged.
    """
    from synclave_server.sampling.engine import sample
    from synclave_server.sampling.request import DEFAULT_SAMPLER, DEFAULT_STEPS
    from synclave_shared.diffusion.samplers import evaluations

    label = Schema.from_json_bytes(read_snapshot(snapshot).schema).label
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("patients", total=patients)
        provenance = sample(
            snapshot,
            patients,
            out=out,
            label_counts=label_counts(labels, label.name, label.values, patients),
            sampler=sampler or DEFAULT_SAMPLER,
            steps=steps or DEFAULT_STEPS,
            seed=seed,
            guidance=guidance,
            batch_size=batch_size,
            devices=devices,
            progress=lambda done, _: progress.update(task, completed=done),
        )
    calls = evaluations(provenance.request.sampler, provenance.request.steps)
    return {"out": str(out.resolve()), "network_calls": calls, **provenance.model_dump(mode="json")}
