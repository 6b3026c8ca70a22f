"""Receipts: what they prove to somebody who has nothing else, and that nothing in them can be changed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synclave_shared.canonical import canonical_bytes
from synclave_shared.errors import LedgerError
from synclave_shared.ledger.entry import COORDINATOR
from synclave_shared.ledger.receipt import MAX_RECEIPT_BYTES, ReceiptReport, check_receipt, make_receipt
from synclave_shared.ledger.store import Ledger
from tests.ledger.story import Story, key_of

KEY = key_of(COORDINATOR).public_text
INDEX = 5


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Story().whole().write(tmp_path_factory.mktemp("receipts") / "ledger")


@pytest.fixture(scope="module")
def receipt(ledger: Ledger) -> bytes:
    return of(ledger, INDEX)


def of(ledger: Ledger, index: int) -> bytes:
    note = ledger.checkpoint()
    return make_receipt(ledger.entry(index), index, ledger.inclusion_proof(index), note, KEY).to_bytes()


def changed(receipt: bytes, **changes: Any) -> bytes:
    return canonical_bytes({**json.loads(receipt), **changes}) + b"\n"


def codes(report: ReceiptReport) -> list[str]:
    assert report.valid == (not report.findings)
    return [finding.code for finding in report.findings]


def test_every_entry_of_a_ledger_has_a_receipt_that_holds(ledger: Ledger) -> None:
    for index in range(ledger.size):
        data = of(ledger, index)
        report = check_receipt(data, coordinator_key=KEY)
        assert report.valid, report.findings
        assert report.entry is not None
        assert report.entry.to_bytes() == ledger.entry(index)
        assert report.checkpoint is not None
        assert (report.index, report.checkpoint.size, report.checkpoint.origin) == (index, ledger.size, ledger.origin)
        assert report.checkpoint.root.hex() == ledger.root
        assert len(data) < MAX_RECEIPT_BYTES


def test_the_checkpoint_in_it_has_one_signature(ledger: Ledger, receipt: bytes) -> None:
    assert len(ledger.checkpoint().splitlines()) > 5, "the ledger's checkpoint has co-signatures"
    assert len(json.loads(receipt)["checkpoint"].splitlines()) == 5


def test_no_bit_of_a_proof_can_be_flipped(receipt: bytes) -> None:
    proof = json.loads(receipt)["proof"]
    for place, node in enumerate(proof):
        for bit in range(256):
            other = bytearray.fromhex(node)
            other[bit // 8] ^= 1 << bit % 8
            flipped = [*proof[:place], other.hex(), *proof[place + 1 :]]
            assert codes(check_receipt(changed(receipt, proof=flipped))) == ["inclusion-invalid"]


@given(place=st.integers(min_value=0), mask=st.integers(min_value=1, max_value=255))
def test_no_byte_of_a_receipt_can_be_changed(receipt: bytes, place: int, mask: int) -> None:
    data = bytearray(receipt)
    data[place % len(data)] ^= mask
    assert not check_receipt(bytes(data), coordinator_key=KEY, site_key=None).valid


@given(data=st.binary(max_size=300))
def test_nothing_makes_the_check_raise(data: bytes) -> None:
    assert codes(check_receipt(data)) == ["receipt-malformed"]


def test_what_is_changed_is_named(ledger: Ledger, receipt: bytes) -> None:
    document = json.loads(receipt)
    entry, note = document["entry"], document["checkpoint"]
    assert codes(check_receipt(changed(receipt, index=INDEX + 1))) == ["inclusion-invalid"]
    assert codes(check_receipt(changed(receipt, proof=document["proof"][:-1]))) == ["inclusion-invalid"]
    assert codes(check_receipt(changed(receipt, proof=[*document["proof"], "0" * 64]))) == ["inclusion-invalid"]
    other_entry = json.loads(ledger.entry(INDEX + 1))
    assert codes(check_receipt(changed(receipt, entry=other_entry))) == ["inclusion-invalid"]
    later = {**entry, "time": "2030-01-01T00:00:00Z"}
    assert codes(check_receipt(changed(receipt, entry=later))) == ["signature-invalid", "inclusion-invalid"]
    unknown = {**entry, "kind": "gift"}
    assert codes(check_receipt(changed(receipt, entry=unknown))) == ["entry-malformed", "inclusion-invalid"]
    assert codes(check_receipt(changed(receipt, checkpoint="nothing"))) == ["checkpoint-malformed"]
    grown = note.replace(f"\n{ledger.size}\n", f"\n{ledger.size + 1}\n")
    assert "checkpoint-signature-invalid" in codes(check_receipt(changed(receipt, checkpoint=grown)))
    assert codes(check_receipt(changed(receipt, checkpoint=ledger.checkpoint()))) == ["checkpoint-signature-invalid"]


def test_another_key_than_the_one_known_is_named(receipt: bytes) -> None:
    entry = json.loads(receipt)["entry"]
    stranger = key_of("stranger").public_text
    assert codes(check_receipt(receipt, coordinator_key=KEY, site_key=entry["key"])) == []
    assert codes(check_receipt(receipt, coordinator_key=stranger)) == ["coordinator-unexpected"]
    assert codes(check_receipt(receipt, site_key=stranger)) == ["site-key-unexpected"]
    assert codes(check_receipt(changed(receipt, coordinator_key=stranger))) == ["checkpoint-signature-invalid"]


def test_a_receipt_has_one_form(receipt: bytes) -> None:
    document = json.loads(receipt)
    forms = [
        json.dumps(document).encode() + b"\n",
        receipt[:-1],
        receipt + b"\n",
        receipt.replace(b'{"checkpoint"', b'{"index":0,"checkpoint"'),
        changed(receipt, remark="hello"),
        changed(receipt, format="synclave-receipt/v2"),
        changed(receipt, index=-1),
        b" " * (MAX_RECEIPT_BYTES + 1),
    ]
    for data in forms:
        assert codes(check_receipt(data)) == ["receipt-malformed"]


def test_no_receipt_is_made_of_a_checkpoint_that_the_coordinator_did_not_sign(ledger: Ledger) -> None:
    with pytest.raises(LedgerError):
        make_receipt(ledger.entry(0), 0, ledger.inclusion_proof(0), ledger.checkpoint(), key_of("berlin").public_text)
