"""How ``synclave-site check-data`` shows its report. What it shows stays at the site: cells may be patients' data."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from synclave_shared.data.faults import FAULT_CODES, NOTICE_CODES, CheckReport
from synclave_shared.data.modality import AnySchema
from synclave_shared.data.series.schema import SeriesSchema

__all__ = ["draw_report"]

_NAMED_COLUMNS = 3


def draw_report(out: Console, schema: AnySchema, report: CheckReport) -> None:
    """Print the faults place by place, then what the folder holds.

    Args:
        out: where to print.
        schema: the schema that was checked against.
        report: what was found.
    """
    if report.faults:
        out.print(_faults(report))
        _explain_codes(out, report)
    out.print(_contents(schema, report))
    if isinstance(schema, SeriesSchema) and report.channels:
        out.print(_channels(schema, report))
    if report.notices:
        out.print(_applied_rules(report))
    if report.ok:
        out.print(f"[green]No faults: the data fit the schema {escape(schema.name)}.[/green]")
        return
    hidden = report.fault_count - len(report.faults)
    more = f" ({len(report.faults)} listed, {hidden} more of the same kinds)" if hidden else ""
    out.print(
        f"[red]{report.fault_count} {'fault' if report.fault_count == 1 else 'faults'}{more}.[/red]"
        " Correct the tables and check again; nothing was changed."
    )


def _faults(report: CheckReport) -> Table:
    table = Table(title="What does not fit", title_justify="left", show_lines=False)
    table.add_column("File", style="bold", overflow="fold")
    table.add_column("Row", style="cyan", justify="right", no_wrap=True)
    table.add_column("Column", style="cyan", overflow="fold")
    table.add_column("Fault", style="red", no_wrap=True)
    table.add_column("Expected", style="green", overflow="fold")
    table.add_column("Found", style="yellow", overflow="fold")
    for fault in report.faults:
        table.add_row(
            escape(fault.file),
            "" if fault.row is None else str(fault.row),
            escape(fault.column or ""),
            fault.code,
            escape(fault.expected),
            escape(fault.found),
        )
    return table


def _explain_codes(out: Console, report: CheckReport) -> None:
    totals: Counter[str] = Counter()
    for (_file, _column, code), count in report.fault_counts.items():
        totals[code] += count
    for code, count in totals.most_common():
        out.print(f"  [red]{code}[/red] x {count}: {FAULT_CODES[code]}")
    out.print()


def _contents(schema: AnySchema, report: CheckReport) -> Table:
    table = Table(title=f"{escape(report.path)} read by schema {escape(schema.name)}", title_justify="left")
    table.add_column("What", style="bold")
    table.add_column("Number", justify="right")
    # With a fault in the tables it is not known who is a patient and who is not.
    table.add_row("patients", str(report.patients) if report.ok else "-")
    for value, count in report.label_counts.items():
        table.add_row(f"  {escape(schema.label.name)} = {escape(value)}", str(count))
    if isinstance(schema, SeriesSchema):
        table.add_row("channels", str(len(schema.channels)))
        table.add_row(f"steps of {schema.grid.step_minutes} minutes", str(schema.horizon))
        if report.channels:
            table.add_row(
                "  within the patients' stays, on average", f"{report.channels[0].steps / report.patients:.1f}"
            )
    columns = "columns beside the channels" if isinstance(schema, SeriesSchema) else "columns of the model"
    table.add_row(columns, str(schema.width))
    for group in schema.groups:
        table.add_row(f"  {escape(group.name)} ({group.kind})", str(group.stop - group.start))
    for file, rows in report.rows.items():
        table.add_row(f"rows of {escape(file)}", str(rows))
    return table


def _channels(schema: SeriesSchema, report: CheckReport) -> Table:
    table = Table(title="Channels", title_justify="left")
    table.add_column("Channel", style="bold", overflow="fold")
    table.add_column("Public bounds", overflow="fold")
    for name in ("Values", "Out of bounds", "Steps observed"):
        table.add_column(name, justify="right", no_wrap=True)
    for channel, count in zip(schema.channels, report.channels, strict=True):
        beyond = count.dropped + count.clipped
        done = "dropped" if channel.outside == "drop" else "clipped"
        table.add_row(
            channel.name,
            escape(channel.inside),
            str(count.values),
            f"{beyond} {done}" if beyond else "",
            f"{count.observed / count.steps:.1%}",
        )
    return table


def _applied_rules(report: CheckReport) -> Table:
    """One line per file and rule: a table of many columns would otherwise fill pages. ``--json`` has them all."""
    table = Table(title="What the schema's own rules did", title_justify="left")
    table.add_column("File", style="bold", overflow="fold")
    table.add_column("Rule", overflow="fold")
    table.add_column("Columns", overflow="fold")
    table.add_column("Number", justify="right", no_wrap=True)
    columns: dict[tuple[str, str], list[str]] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for notice in report.notices:
        place = (notice.file, notice.code)
        columns.setdefault(place, []).extend([] if notice.column is None else [notice.column])
        counts[place] += notice.count
    for (file, code), names in columns.items():
        shown = ", ".join(names[:_NAMED_COLUMNS])
        more = len(names) - _NAMED_COLUMNS
        table.add_row(
            escape(file),
            NOTICE_CODES[code],
            escape(shown) + (f" and {more} more" if more > 0 else ""),
            str(counts[file, code]),
        )
    return table
