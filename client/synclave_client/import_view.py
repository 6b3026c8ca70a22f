"""How ``synclave-site import-meds`` tells what it did. It counts private data, so what it shows stays at the site."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from synclave_shared.data.meds.importing import LEFT_OUT, ImportReport

__all__ = ["draw_import"]

_NAMED_CODES = 12


def draw_import(out: Console, report: ImportReport, schema: Path) -> None:
    """Print what was read, written and left out, and the next step.

    Args:
        out: where to print.
        report: what the import did.
        schema: the schema's file, for the next step.
    """
    table = Table(title=escape(f"MEDS dataset {report.dataset}".rstrip()), title_justify="left")
    table.add_column("What", style="bold", overflow="fold")
    table.add_column("Number", justify="right", no_wrap=True)
    table.add_row("split", escape(report.split) or "all")
    table.add_row(f"events read, in {report.files} {'file' if report.files == 1 else 'files'}", str(report.events))
    if report.births_and_deaths:
        table.add_row("births and deaths, told in subjects.parquet", str(report.births_and_deaths))
    for written, rows in report.rows.items():
        table.add_row(f"rows written to {written}.parquet", str(rows))
    for reason, number in report.left_out.items():
        table.add_row(f"left out: {LEFT_OUT[reason]}", str(number))
    for code, number in list(report.unread.items())[:_NAMED_CODES]:
        table.add_row(f"  {escape(code)}", str(number))
    if len(report.unread) > _NAMED_CODES:
        more = list(report.unread.values())[_NAMED_CODES:]
        table.add_row(f"  {len(more)} more kinds", str(sum(more)))
    out.print(table)
    out.print(f"[green]Written: {escape(report.out)}[/green]", soft_wrap=True)
    out.print(f"Next: synclave-site check-data --schema {escape(str(schema))} {escape(report.out)}", soft_wrap=True)
