"""The report's files: the page, its numbers, and what a public registry asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from synclave_shared import __version__
from synclave_shared.audit.report.checks import checked, keys, limits, recompute, software, standard
from synclave_shared.audit.report.claims_view import claims
from synclave_shared.audit.report.facts import Facts, facts_document
from synclave_shared.audit.report.markup import Markup, element, joined, trusted
from synclave_shared.audit.report.overview import findings, opening, participants, tiles
from synclave_shared.audit.report.registry import registry_document
from synclave_shared.audit.report.spending import mechanisms, spends
from synclave_shared.errors import LedgerError

__all__ = ["render", "write_report"]

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""The page loads nothing and runs nothing, even if something in it tried."""

CONTENTS: Final = (
    ("findings", "What is wrong"),
    ("who", "Who took part"),
    ("spends", "What was spent"),
    ("mechanisms", "What was done to the data"),
    ("claims", "What is claimed"),
    ("checks", "What was checked"),
    ("keys", "The keys"),
    ("software", "Software"),
    ("limits", "What this does not show"),
    ("standard", "NIST SP 800-226"),
    ("recompute", "How to compute it again"),
)


def render(facts: Facts) -> str:
    """The page. The same ledger and options give the same bytes: no time and no path is in it."""
    style = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _policy(),
        element("title", f"Privacy audit of {', '.join(reading.report.origin for reading in facts.ledgers.readings)}"),
        element("style", trusted(style)),
    )
    main = element(
        "main",
        opening(facts),
        tiles(facts),
        element(
            "nav", element("ol", [element("li", element("a", title, href=f"#{place}")) for place, title in CONTENTS])
        ),
        findings(facts),
        participants(facts),
        spends(facts),
        mechanisms(facts),
        claims(facts),
        checked(facts),
        keys(facts),
        software(facts),
        limits(facts),
        standard(facts),
        recompute(facts),
        element("footer", f"Made by synclave-audit {__version__}, offline, from {facts.here} alone."),
    )
    return f"<!doctype html>\n{element('html', head, element('body', main), lang='en').text}\n"


def _policy() -> Markup:
    return joined(trusted(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"/>'))


def write_report(facts: Facts, folder: Path) -> tuple[Path, ...]:
    """Write ``index.html``, ``report.json`` and ``registry.json`` into a new or empty folder.

    Returns:
        Their paths.

    Raises:
        LedgerError: if the folder holds anything.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise LedgerError(
            expected="a new or an empty folder for the report",
            found=f"{folder} with something in it",
            remedy="Choose another folder, or empty this one.",
        )
    contents = {
        "index.html": render(facts),
        # For programs, on one line: a million entries are named in seconds and half the bytes.
        "report.json": _json(facts_document(facts), indent=None),
        "registry.json": _json(registry_document(facts), indent=2),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name).write_text(text, encoding="utf-8")
    return tuple(folder / name for name in contents)


def _json(document: object, *, indent: int | None) -> str:
    return json.dumps(document, indent=indent, allow_nan=False) + "\n"
