"""docs/ledger-format.md against the files: an auditor with that page and a cryptography library, without our code."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from synclave_shared.audit import ledgers
from synclave_shared.ledger import actors, files, replay, verify
from synclave_shared.ledger.entry import BODIES
from tests.ledger.story import SITES, Story

PAGE = (Path(__file__).parents[2] / "docs" / "ledger-format.md").read_text(encoding="utf-8")
STORY = Story().whole()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    STORY.write(tmp_path)
    return tmp_path


def check(public_key: str, message: bytes, signature: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key)).verify(signature, message)


def key_id(name: str, algorithm: int, public_key: str) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + base64.b64decode(public_key)).digest()[:4]


def read_bundle(data: bytes) -> list[bytes]:
    entries = []
    while data:
        (length,) = struct.unpack(">H", data[:2])
        entries.append(data[2 : 2 + length])
        data = data[2 + length :]
    return entries


def canonical(value: Any) -> bytes:
    # What RFC 8785 comes to for ASCII keys and no fractions.
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def root_of(hashes: list[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    k = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + root_of(hashes[:k]) + root_of(hashes[k:])).digest()


def test_the_page_is_enough_to_verify_a_ledger(folder: Path) -> None:
    text = (folder / "checkpoint").read_text(encoding="utf-8")
    body, _, lines = text.partition("\n\n")
    body += "\n"
    origin, size, root, _ = body.split("\n")
    entries = read_bundle((folder / f"tile/entries/000.p/{size}").read_bytes())
    hashes = [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
    assert (folder / f"tile/0/000.p/{size}").read_bytes() == b"".join(hashes)
    assert root_of(hashes) == base64.b64decode(root)

    keys, newest = {}, {}
    for data in entries:
        entry = json.loads(data)
        assert canonical(entry) == data
        assert entry["previous"] == newest.get(entry["actor"], "")
        newest[entry["actor"]] = hashlib.sha256(b"\x00" + data).hexdigest()
        signature = base64.b64decode(entry.pop("signature"))
        check(entry["key"], b"synclave-entry/v1\n" + canonical(entry), signature)
        if entry["kind"] == "key-registered":
            keys[entry["actor"]] = entry["body"]["public_key"]
        assert keys[entry["actor"]] == entry["key"]
        if entry["kind"] == "plan-proposed":
            plan = canonical(entry["body"]["plan"])
            assert hashlib.sha256(plan).hexdigest() == entry["body"]["plan_digest"] == entry["run"]
            check(keys["coordinator"], b"synclave-plan/v1\n" + plan, base64.b64decode(entry["body"]["signature"]))
            assert origin == f"synclave/{entry['run'][:16]}"

    witnesses = set()
    for line in lines.splitlines():
        dash, name, blob = line.split(" ")
        data = base64.b64decode(blob)
        assert dash == "—"
        if name == origin:
            assert data[:4] == key_id(origin, 1, keys["coordinator"])
            check(keys["coordinator"], body.encode(), data[4:])
        else:
            assert data[:4] == key_id(name, 4, keys[name])
            (seconds,) = struct.unpack(">Q", data[4:12])
            check(keys[name], f"cosignature/v1\ntime {seconds}\n{body}".encode(), data[12:])
            witnesses.add(name)
    assert witnesses == set(SITES)


def test_the_pages_example_has_the_lines_of_a_real_checkpoint(folder: Path) -> None:
    shown = re.search(r"## Checkpoint\n\n```\n(.*?)```", PAGE, re.DOTALL)
    assert shown
    forms = (
        r"synclave/[0-9a-f]{16}",
        r"25",
        r"[A-Za-z0-9+/]{43}=",
        r"",
        r"— synclave/[0-9a-f]{16} \S+",
        r"— berlin \S+",
    )
    for text in (shown.group(1), (folder / "checkpoint").read_text(encoding="utf-8")):
        for form, line in zip(forms, text.splitlines(), strict=False):
            assert re.fullmatch(form, line)


def test_the_pages_first_entry_is_that_of_the_vectors() -> None:
    bundle = (Path(__file__).parent / "vectors/valid/ledger/tile/entries/000.p/12").read_bytes()
    entry = read_bundle(bundle)[0]
    lines, leaf = re.findall(r"```\n(\{.*?|[0-9a-f]{64})\n```", PAGE.partition("## Test vectors")[2], re.DOTALL)
    assert lines.replace("\n", "").encode() == entry
    assert leaf == hashlib.sha256(b"\x00" + entry).hexdigest()
    assert f"{len(entry)} bytes" in PAGE
    assert f"`{bundle[:2].hex(' ')}`" in PAGE
    message = re.sub(r"\n,\"signature\":[^\n]*", "", lines).replace("\n", "").encode()
    fields = json.loads(entry)
    check(fields["key"], b"synclave-entry/v1\n" + message, base64.b64decode(fields["signature"]))


def test_every_kind_and_every_field_is_on_the_page() -> None:
    for kind, body in BODIES.items():
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{kind}` |"))
        assert [name for name in body.model_fields if f"`{name}`" not in row] == []


def test_every_finding_is_on_the_page_and_no_other() -> None:
    source = "".join(
        Path(str(module.__file__)).read_text(encoding="utf-8") for module in (actors, files, ledgers, replay, verify)
    )
    raised = set(re.findall(r"find\(\s*\"([a-z-]+)\"", source))
    raised |= set(re.findall(r"code = \"([a-z-]+)\" if .* else \"(?:[a-z-]+)\"", source))
    raised |= set(re.findall(r"code = \"(?:[a-z-]+)\" if .* else \"([a-z-]+)\"", source))
    raised |= set(re.findall(r"\(\"([a-z]+-[a-z-]+)\", (?:f\"|\"|explanation)", source))
    raised |= set(re.findall(r"Finding\(\s*code=\"([a-z-]+)\"", source))
    table = PAGE.partition("| code | meaning |")[2].partition("\n\n")[0]
    listed = {code for line in table.splitlines()[2:] for code in re.findall(r"`([a-z-]+)`", line.split("|")[1])}
    assert raised == listed
