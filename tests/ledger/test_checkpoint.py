from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synclave_shared.errors import LedgerError
from synclave_shared.ledger.checkpoint import (
    Checkpoint,
    Note,
    cosignature_line,
    cosignature_time,
    is_operator_signature,
    open_checkpoint,
    parse_line,
    parse_note,
    sign_checkpoint,
)
from synclave_shared.ledger.keys import SigningKey, decode_base64, encode_base64

# The examples of the C2SP tlog-checkpoint and tlog-cosignature specifications.
PUBLISHED_CHECKPOINT = (
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa"
    " Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)
PUBLISHED_WITNESS = (
    "— witness.example.com/w1"
    " jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)

KEY = SigningKey.from_seed(b"o" * 32)
SITE = SigningKey.from_seed(b"s" * 32)
OTHER = SigningKey.from_seed(b"x" * 32)
CHECKPOINT = Checkpoint(origin="synclave/0123456789abcdef", size=42, root=bytes(range(32)))
NOTE = Note(checkpoint=CHECKPOINT, signatures=(sign_checkpoint(CHECKPOINT, KEY),)).text
TIME = datetime(2026, 11, 21, 8, 0, 0, 999_999, tzinfo=UTC)


def test_the_published_note_reads_and_writes_to_the_same_text() -> None:
    text = PUBLISHED_CHECKPOINT + PUBLISHED_WITNESS
    note = parse_note(text)
    assert note.checkpoint.size == 20852163
    assert note.text == text
    witness = note.signatures[1]
    assert (witness.name, len(witness.signature)) == ("witness.example.com/w1", 72)
    assert int.from_bytes(witness.signature[:8], "big") == 1679315147


def test_own_signatures_are_believed_and_others_are_not() -> None:
    note = open_checkpoint(NOTE, origin=CHECKPOINT.origin, operator_key=KEY.public_text)
    assert note.checkpoint == CHECKPOINT
    with pytest.raises(LedgerError, match="signature"):
        open_checkpoint(NOTE, origin=CHECKPOINT.origin, operator_key=OTHER.public_text)
    with pytest.raises(LedgerError, match="synclave/other"):
        open_checkpoint(NOTE, origin="synclave/other", operator_key=KEY.public_text)
    assert not is_operator_signature(CHECKPOINT, note.signatures[0], "no key")


def test_a_cosignature_holds_for_one_key_one_time_and_one_checkpoint() -> None:
    line = parse_line(cosignature_line(CHECKPOINT, "berlin", SITE, TIME))
    assert cosignature_time(CHECKPOINT, line, SITE.public_text) == int(TIME.timestamp())
    assert cosignature_time(CHECKPOINT, line, OTHER.public_text) is None
    larger = Checkpoint(origin=CHECKPOINT.origin, size=43, root=CHECKPOINT.root)
    assert cosignature_time(larger, line, SITE.public_text) is None
    later = parse_line(cosignature_line(CHECKPOINT, "berlin", SITE, TIME + timedelta(seconds=1)))
    mixed = type(line)(name="berlin", key_id=line.key_id, signature=later.signature[:8] + line.signature[8:])
    assert cosignature_time(CHECKPOINT, mixed, SITE.public_text) is None


def test_the_operator_signature_is_no_cosignature_of_the_same_key() -> None:
    operator = sign_checkpoint(CHECKPOINT, KEY)
    assert cosignature_time(CHECKPOINT, operator, KEY.public_text) is None
    witness = parse_line(cosignature_line(CHECKPOINT, CHECKPOINT.origin, KEY, TIME))
    assert not is_operator_signature(CHECKPOINT, witness, KEY.public_text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        CHECKPOINT.body,
        NOTE[:-1],
        NOTE + "\n",
        NOTE.replace("\n42\n", "\n042\n"),
        NOTE.replace("\n42\n", "\n-42\n"),
        NOTE.replace("\n42\n", "\n42 \n"),
        NOTE.replace("\n42\n", "\n٤٢\n"),
        NOTE.replace("\n42\n", f"\n{10**30}\n"),
        NOTE.replace("\n42\n", "\n42\nextension\n"),
        NOTE.replace("— ", "- "),
        NOTE.replace("\n", "\r\n"),
        NOTE.replace("synclave/", "synclave+"),
        NOTE.replace("=\n\n", "\n\n"),
        CHECKPOINT.body + "\n— name QUJD\n",
        CHECKPOINT.body + "\n— name ====\n",
        "x" * 3_000_000,
    ],
)
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(LedgerError):
        parse_note(text)


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=200), st.integers(0, len(NOTE) - 1).map(lambda p: NOTE[:p] + "\x00" + NOTE[p + 1 :])))
def test_reading_a_note_gives_back_its_text_or_a_ledger_error(text: str) -> None:
    try:
        note = parse_note(text)
    except LedgerError:
        return
    assert note.text == text


def test_no_single_changed_byte_of_a_note_is_still_believed() -> None:
    data = NOTE.encode()
    for position in range(len(data)):
        for bit in (0, 1, 5, 7):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            try:
                open_checkpoint(bytes(changed).decode(), origin=CHECKPOINT.origin, operator_key=KEY.public_text)
            except (LedgerError, UnicodeDecodeError):
                continue
            pytest.fail(f"byte {position} bit {bit}")


def test_key_id_is_the_truncated_hash_of_name_type_and_key() -> None:
    import hashlib

    raw = decode_base64(KEY.public_text, 32)
    expected = hashlib.sha256(CHECKPOINT.origin.encode() + b"\n\x01" + raw).digest()[:4]
    assert sign_checkpoint(CHECKPOINT, KEY).key_id == expected
    line = parse_line(cosignature_line(CHECKPOINT, "berlin", SITE, TIME))
    assert line.key_id == hashlib.sha256(b"berlin\n\x04" + decode_base64(SITE.public_text)).digest()[:4]
    assert encode_base64(line.key_id + line.signature) in line.line
