"""How ``synclave-site self-test`` shows its report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from synclave_client.settings import SiteSettings

if TYPE_CHECKING:
    from synclave_client.training.private import SelfTestReport

__all__ = ["draw_self_test", "self_test_document"]


def self_test_document(site: SiteSettings, report: SelfTestReport) -> dict[str, Any]:
    """The report as plain values."""
    return {
        "name": site.name,
        "passed": True,
        "device": site.device,
        "clipping": site.performance.clipping,
        "precision": site.performance.precision,
        "parameters": report.parameters,
        "layers": [{"name": name, "class": kind} for name, kind in report.layers],
        "invented_patients": report.patients,
        "norm_deviation": report.norm_deviation,
        "sum_deviation": report.sum_deviation,
        "seconds": round(report.seconds, 3),
    }


def draw_self_test(out: Console, document: dict[str, Any]) -> None:
    """Print what was compared and how well it agreed."""
    table = Table(title=f"Clipping self-test of site {escape(document['name'])}", title_justify="left")
    table.add_column("What", style="bold")
    table.add_column("Found", overflow="fold")
    table.add_row("device", document["device"])
    table.add_row("clipping", f"{document['clipping']}, {document['precision']}")
    table.add_row("model", f"{document['parameters']:,} parameters")
    for layer in document["layers"]:
        table.add_row("  layer", f"{layer['name']} ({layer['class']})")
    table.add_row("invented patients", str(document["invented_patients"]))
    table.add_row("norms, off by at most", f"{document['norm_deviation']:.1e} of one backward pass per patient")
    table.add_row("clipped sum, off by", f"{document['sum_deviation']:.1e}")
    table.add_row("seconds", f"{document['seconds']:.2f}")
    out.print(table)
    out.print("[green]Passed.[/green] Patients are clipped exactly, none depends on another, nobody gives zeros.")
