"""What ``synclave-site ledger`` and ``receipts`` show and write: this site's copies of ledgers, and what they prove."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from synclave_client.settings import SiteSettings
from synclave_client.vault.journal import Journal
from synclave_client.vault.ledger_copies import SeenLedger
from synclave_shared.errors import ConfigurationError
from synclave_shared.ledger.entry import SignedEntry, parse_entry
from synclave_shared.ledger.folder import new_folder, write_ledger
from synclave_shared.ledger.merkle import MerkleTree, leaf_hash
from synclave_shared.ledger.receipt import make_receipt

__all__ = ["draw_ledgers", "draw_receipts", "find_ledger", "ledgers_document", "receipts_document"]

_DIGEST_SHOWN = 12
"""Hex digits of a plan's digest: enough to tell a site's plans apart."""


def find_ledger(journal: Journal, plan: str) -> SeenLedger:
    """The one ledger whose plan's digest begins with ``plan``.

    Raises:
        ConfigurationError: if there is none, or more than one.
    """
    found = [seen for seen in journal.ledgers.all() if seen.plan.startswith(plan)]
    if len(found) != 1:
        raise ConfigurationError(
            expected="the digest of one plan whose ledger this site has seen",
            found=f"{plan or 'no --plan'}, which fits {len(found)}: {', '.join(seen.plan[:16] for seen in found)}",
            remedy="Name one with --plan; `synclave-site ledger` lists them.",
        )
    return found[0]


def ledgers_document(settings: SiteSettings, journal: Journal, plan: str, folder: Path | None) -> dict[str, Any]:
    """List this site's copies of ledgers as plain values, and write one as a folder if asked to.

    Args:
        settings: the site's settings.
        journal: its journal, opened for reading.
        plan: only those whose plan's digest begins so.
        folder: where to write the one that ``plan`` means; None writes nothing.

    Raises:
        ConfigurationError: if a folder is given and no single ledger is meant, or it cannot be written.
    """
    names = {spend.digest: spend.name for spend in journal.plan_spends()}
    if folder is not None:
        seen = find_ledger(journal, plan)
        entries = journal.ledgers.entries(seen.plan)
        write_ledger(folder, entries, seen.note, seen.witnessed)
    return {
        "name": settings.name,
        "ledgers": [
            {
                "plan": seen.plan,
                "plan_name": names.get(seen.plan),
                "size": seen.size,
                "root": seen.root,
                "seen_at": seen.seen_at,
                "own_entries": sum(entry.index is not None for entry in journal.ledgers.own(seen.plan)),
            }
            for seen in journal.ledgers.all()
            if seen.plan.startswith(plan)
        ],
        "exported_to": None if folder is None else str(folder),
    }


def draw_ledgers(out: Console, document: dict[str, Any]) -> None:
    """Print the document of :func:`ledgers_document` as a table."""
    if not document["ledgers"]:
        out.print(f"Site {escape(document['name'])} has seen no ledger yet.")
        return
    table = Table(title=f"Ledgers of which {escape(document['name'])} has a copy", title_justify="left")
    for heading in ("Plan", "Digest", "Seen last (UTC)"):
        table.add_column(heading, overflow="fold")
    for heading in ("Entries", "Own"):
        table.add_column(heading, justify="right")
    for ledger in document["ledgers"]:
        table.add_row(
            escape(ledger["plan_name"] or "(not accepted)"),
            ledger["plan"][:_DIGEST_SHOWN],
            ledger["seen_at"].removesuffix("+00:00").replace("T", " "),
            str(ledger["size"]),
            str(ledger["own_entries"]),
        )
    out.print(table)
    if document["exported_to"]:
        folder = escape(document["exported_to"])
        out.print(f"Written to {folder}. Next: synclave-audit verify {folder}", soft_wrap=True)


def receipts_document(settings: SiteSettings, journal: Journal, plan: str, folder: Path | None) -> dict[str, Any]:
    """List this site's entries with their places in its ledgers, and write their receipts if asked to.

    Args:
        settings: the site's settings.
        journal: its journal, opened for reading.
        plan: only entries in ledgers whose plan's digest begins so.
        folder: new folder for one file per entry; None writes nothing.

    Raises:
        ConfigurationError: if the folder holds something or cannot be written.
    """
    receipts: list[dict[str, Any]] = []
    files: dict[str, bytes] = {}
    open_entries = 0
    for seen in journal.ledgers.all():
        if not seen.plan.startswith(plan):
            continue
        tree = MerkleTree(leaf_hash(content) for content in journal.ledgers.entries(seen.plan))
        for own in journal.ledgers.own(seen.plan):
            if own.index is None:
                open_entries += 1
                continue
            entry = parse_entry(own.content)
            file = f"{seen.plan[:_DIGEST_SHOWN]}-{own.index:06d}-{entry.kind}.json"
            proof = [node.hex() for node in tree.inclusion_proof(own.index)]
            receipt = make_receipt(own.content, own.index, proof, seen.note, seen.coordinator_key)
            files[file] = receipt.to_bytes()
            receipts.append(_listed(entry, own.index, seen) | {"file": file if folder else None})
    if folder is not None:
        new_folder(folder, files)
    return {
        "name": settings.name,
        "receipts": receipts,
        "entries_without": open_entries,
        "exported_to": None if folder is None else str(folder),
    }


def _listed(entry: SignedEntry, index: int, seen: SeenLedger) -> dict[str, Any]:
    return {
        "plan": seen.plan,
        "index": index,
        "ledger_size": seen.size,
        "kind": entry.kind,
        "round": getattr(entry.body, "round", None),
        "time": entry.time,
    }


def draw_receipts(out: Console, document: dict[str, Any]) -> None:
    """Print the document of :func:`receipts_document` as a table."""
    if document["receipts"]:
        table = Table(title=f"Entries of {escape(document['name'])} with a receipt", title_justify="left")
        for heading in ("Plan", "Kind", "Signed (UTC)"):
            table.add_column(heading, overflow="fold")
        for heading in ("Round", "Entry", "of"):
            table.add_column(heading, justify="right")
        for receipt in document["receipts"]:
            table.add_row(
                receipt["plan"][:_DIGEST_SHOWN],
                receipt["kind"],
                receipt["time"].removesuffix("Z").replace("T", " "),
                "" if receipt["round"] is None else str(receipt["round"]),
                str(receipt["index"]),
                str(receipt["ledger_size"]),
            )
        out.print(table)
    else:
        out.print(f"No ledger that {escape(document['name'])} has seen holds an entry of it yet.")
    if document["entries_without"]:
        out.print(f"{document['entries_without']} more are signed and wait to be seen in a ledger.")
    if document["exported_to"]:
        folder = escape(document["exported_to"])
        out.print(f"Written to {folder}. Next: synclave-audit receipt {folder}/FILE", soft_wrap=True)
