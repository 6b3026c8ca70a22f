"""One folder per corruption: what verification says of it, by us and by an outsider, and that the script makes it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from synclave_shared.ledger.checkpoint import parse_note
from synclave_shared.ledger.merkle import leaf_hash, verify_consistency, verify_inclusion
from synclave_shared.ledger.verify import verify_ledger
from tests.ledger.make_vectors import VECTORS, vectors, write_vectors
from tests.ledger.outsider import Outsider, Wrong
from tests.ledger.story import files_of

CASES = sorted(path.name for path in VECTORS.iterdir() if path.is_dir())
SOUND = {"valid", "valid-rotated-key"}
BY_ACCOUNTANT = {"budget-understated"}
PROOFS: dict[str, Any] = json.loads((VECTORS / "proofs.json").read_text(encoding="utf-8"))
MAX_BYTES = 300_000


def seen_in(case: str) -> str:
    path = VECTORS / case / "seen"
    return path.read_text(encoding="utf-8") if path.exists() else ""


@pytest.mark.parametrize("case", CASES)
def test_each_corruption_yields_its_findings_and_no_other(case: str) -> None:
    expected = json.loads((VECTORS / case / "expected.json").read_text(encoding="utf-8"))
    seen = [parse_note(seen_in(case))] if seen_in(case) else []
    report = verify_ledger(VECTORS / case / "ledger", seen=seen)
    found = [
        [finding.code, finding.file if finding.entry is None else finding.entry]
        for finding in report.findings
        if finding.severity == "error"
    ]
    assert sorted(found, key=str) == sorted(expected["errors"], key=str)
    assert report.valid == (case in SOUND)


@pytest.mark.parametrize("case", sorted(set(CASES) - BY_ACCOUNTANT))
def test_an_outsider_with_the_page_alone_comes_to_the_same_verdict(case: str) -> None:
    outsider = Outsider(VECTORS / case / "ledger", seen_in(case))
    if case in SOUND:
        outsider.verify()
    else:
        with pytest.raises(Wrong):
            outsider.verify()


def test_the_script_makes_the_same_files_again(tmp_path: Path) -> None:
    write_vectors(tmp_path)
    assert set(CASES) == set(vectors())
    assert files_of(tmp_path) == files_of(VECTORS)
    assert sum(len(content) for content in files_of(tmp_path).values()) < MAX_BYTES


def decoded(value: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [base64.b64decode(node) for node in item]
        if isinstance(item, list)
        else (base64.b64decode(item) if isinstance(item, str) else item)
        for name, item in value.items()
    }


def flips(value: bytes) -> list[bytes]:
    number = int.from_bytes(value, "big")
    return [(number ^ (1 << bit)).to_bytes(len(value), "big") for bit in range(8 * len(value))]


@pytest.mark.parametrize("case", PROOFS["inclusions"], ids=lambda case: str(case["index"]))
def test_a_flipped_bit_anywhere_in_an_inclusion_proof_is_seen(case: dict[str, Any]) -> None:
    index, leaf, proof = (decoded(case)[name] for name in ("index", "leaf_hash", "proof"))
    size, root = PROOFS["size"], base64.b64decode(PROOFS["root"])
    assert verify_inclusion(leaf, index, size, proof, root)
    assert not any(verify_inclusion(other, index, size, proof, root) for other in flips(leaf))
    assert not any(verify_inclusion(leaf, index, size, proof, other) for other in flips(root))
    assert not any(verify_inclusion(leaf, place, size, proof, root) for place in range(-1, 2 * size) if place != index)
    for place, node in enumerate(proof):
        for other in flips(node):
            assert not verify_inclusion(leaf, index, size, [*proof[:place], other, *proof[place + 1 :]], root)


@pytest.mark.parametrize("case", PROOFS["consistencies"], ids=lambda case: str(case["old_size"]))
def test_a_flipped_bit_anywhere_in_a_consistency_proof_is_seen(case: dict[str, Any]) -> None:
    old_size, old_root, proof = (decoded(case)[name] for name in ("old_size", "old_root", "proof"))
    size, root = PROOFS["size"], base64.b64decode(PROOFS["root"])
    assert verify_consistency(old_size, size, proof, old_root, root)
    assert not any(verify_consistency(old_size, size, proof, other, root) for other in flips(old_root))
    assert not any(verify_consistency(old_size, size, proof, old_root, other) for other in flips(root))
    for place, node in enumerate(proof):
        for other in flips(node):
            assert not verify_consistency(old_size, size, [*proof[:place], other, *proof[place + 1 :]], old_root, root)


def test_the_proofs_are_about_the_sound_ledger() -> None:
    ledger = VECTORS / "valid" / "ledger"
    bundle = (ledger / f"tile/entries/000.p/{PROOFS['size']}").read_bytes()
    length = int.from_bytes(bundle[:2], "big")
    assert leaf_hash(bundle[2 : 2 + length]) == base64.b64decode(PROOFS["inclusions"][0]["leaf_hash"])
    assert (ledger / "checkpoint").read_text(encoding="utf-8").split("\n")[1:3] == [str(PROOFS["size"]), PROOFS["root"]]
