"""Chains against the definition: an entry counts if its own signature verifies, or if a signed one vouches for it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synclave_shared.ledger import chains as module
from synclave_shared.ledger.chains import Chains
from synclave_shared.ledger.entry import SignedEntry
from synclave_shared.ledger.keys import encode_base64
from synclave_shared.ledger.merkle import leaf_hash
from tests.ledger.story import Story, key_of

STORY = Story().whole()
NO_SIGNATURE = encode_base64(bytes(64))


def naive(entries: list[SignedEntry]) -> set[int]:
    """By the definition, from the last entry to the first."""
    signed: set[int] = set()
    for index in reversed(range(len(entries))):
        entry = entries[index]
        following = next(
            (
                i
                for i in range(index + 1, len(entries))
                if (entries[i].actor, entries[i].key) == (entry.actor, entry.key)
            ),
            None,
        )
        vouched = following in signed and following is not None and entries[following].previous == entry.leaf
        if entry.verify() or vouched:
            signed.add(index)
    return set(range(len(entries))) - signed


def unsigned(entries: list[SignedEntry]) -> frozenset[int]:
    contents = [entry.to_bytes() for entry in entries]
    chains = Chains()
    for index, (entry, content) in enumerate(zip(entries, contents, strict=True)):
        chains.add(index, entry, leaf_hash(content))
    return chains.unsigned(lambda index: contents[index])


@given(
    forged=st.sets(st.integers(0, 24), max_size=6),
    dropped=st.sets(st.integers(0, 24), max_size=3),
    swapped=st.sets(st.integers(0, 23), max_size=2),
    relinked=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_the_newest_signatures_tell_as_much_as_all(
    forged: set[int], dropped: set[int], swapped: set[int], relinked: bool
) -> None:
    entries: list[SignedEntry] = []
    for index, entry in enumerate(STORY.entries):
        changed = entry.model_copy(update={"signature": NO_SIGNATURE}) if index in forged else entry
        if relinked:
            # A site that vouches for what it did not sign: its own signatures stay valid.
            last = next((each for each in reversed(entries) if each.actor == entry.actor), None)
            changed = resigned(changed, last.leaf if last else "", valid=index not in forged)
        entries.append(changed)
    for index in swapped:
        entries[index], entries[index + 1] = entries[index + 1], entries[index]
    entries = [entry for index, entry in enumerate(entries) if index not in dropped]
    assert unsigned(entries) == naive(entries)


def resigned(entry: SignedEntry, previous: str, *, valid: bool) -> SignedEntry:
    draft = entry.model_copy(update={"previous": previous})
    content = draft.to_bytes()
    start = content.index(b',"signature":')
    message = b"synclave-entry/v1\n" + content[:start] + content[content.index(b',"time":', start) :]
    signature = key_of(entry.actor).sign_text(message) if valid else NO_SIGNATURE
    return draft.model_copy(update={"signature": signature})


def test_a_sound_ledger_takes_one_signature_per_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[bytes] = []
    real = module.parse_entry

    def counted(content: bytes) -> SignedEntry:
        looked_at.append(content)
        return real(content)

    monkeypatch.setattr(module, "parse_entry", counted)
    assert unsigned(STORY.entries) == frozenset()
    assert len(looked_at) == 3
