"""The fast way to read entries accepts exactly what the strict one accepts, with the same result."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from synclave_shared.errors import LedgerError
from synclave_shared.ledger.entry import MAX_ENTRY_BYTES, SignedEntry, parse_entry
from synclave_shared.ledger.reading import EntryReader
from tests.ledger.story import Story, key_of

STORY = Story().whole()
STORY.rotate("berlin", key_of("berlin again"))
STORY.change_budget("berlin", "2")
STORY.reserve("berlin", 1, dataset='Ä "quoted", \\ and \u2028 {"round":7}')
STORY.sample()
CONTENTS = [entry.to_bytes() for entry in STORY.entries]
QUICK = [
    entry.to_bytes() for entry in STORY.entries if entry.kind in {"spend-reserved", "update-released", "aggregate"}
]


def outcome(read: Callable[[bytes], SignedEntry], data: bytes) -> SignedEntry | None:
    try:
        return read(data)
    except LedgerError:
        return None


def warm() -> EntryReader:
    """A reader that knows every shape of the story."""
    reader = EntryReader()
    for content in CONTENTS:
        reader.read(content)
    return reader


def assert_alike(reader: EntryReader, data: bytes) -> None:
    slow = outcome(parse_entry, data)
    for fast in (outcome(reader.read, data), outcome(EntryReader().read, data)):
        assert fast == slow
        if slow is not None and fast is not None:
            assert fast.to_bytes() == data
            assert type(fast.body) is type(slow.body)
            assert fast.model_dump() == slow.model_dump()


def test_every_entry_is_read_alike_the_first_and_the_second_time() -> None:
    reader = warm()
    for content in CONTENTS:
        assert_alike(reader, content)


PIECES = [
    *(b'"round":0', b'"round":1', b'"round":01', b'"round":10000', b'"round":10001', b'"round":-1', b'"round":1.0'),
    *(b'"round":1e3', b'"round":true', b'"round":"1"', b'"round":\0', b'\0"round"', b'\0"plan_digest"', b'"round":1,'),
    *(b'"plan_digest":""', b'"plan_digest":"' + b"A" * 64 + b'"', b'"plan_digest":"' + b"f" * 64 + b'"', b'"sites":[]'),
    *(b'"kind":"aggregate"', b'"kind":"snapshot"', b'"kind":"spend-reserved"', b'"kind":"update-released"'),
    *(b"2026-02-29T", b"2024-02-29T", b"2026-13-01T", b"0000-01-01T", b"T24:00:00Z", b"T23:59:60Z", b"T23:59:59Z"),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\",
        b"\n",
        b" ",
        b"\xff",
        b"\xc3\xa4",
        b"\\u00e4",
        b"/",
        b"0",
        b"null",
    ),
    *(b'"actor":"oslo"', b'"actor":""', b'"actor":"' + b"n" * 64 + b'"', b'"version":2}', b'"version":1}', b'"x":1,'),
]
SPANS = st.tuples(st.integers(0, 10_000), st.integers(0, 90), st.sampled_from(PIECES) | st.binary(max_size=3))


@given(content=st.sampled_from([*QUICK, *CONTENTS]), changes=st.lists(SPANS, min_size=1, max_size=3))
@settings(max_examples=1500, deadline=None)
def test_changed_bytes_are_read_alike(content: bytes, changes: list[tuple[int, int, bytes]]) -> None:
    reader = warm_reader()
    for start, length, piece in changes:
        start %= len(content) + 1
        content = content[:start] + piece + content[start + length :]
    assert_alike(reader, content)


@given(
    content=st.sampled_from(QUICK),
    piece=st.sampled_from(PIECES),
    field=st.sampled_from(
        ["round", "plan_digest", "update_digest", "aggregate_digest", "time", "kind", "actor", "sites"]
    ),
)
@settings(max_examples=800, deadline=None)
def test_whole_fields_are_exchanged_and_read_alike(content: bytes, piece: bytes, field: str) -> None:
    start = content.find(b'"' + field.encode() + b'":')
    assume(start >= 0)
    stop = min(place for mark in b",}" if (place := content.find(mark, start)) >= 0)
    assert_alike(warm_reader(), content[:start] + piece + content[stop:])


@given(content=st.sampled_from(QUICK), number=st.integers(-2, 20_000), digest=st.text("0123456789abcdefA", min_size=63))
@settings(max_examples=400, deadline=None)
def test_other_rounds_and_digests_are_read_alike(content: bytes, number: int, digest: str) -> None:
    document = json.loads(content)
    for name in document["body"]:
        if name.endswith("_digest"):
            document["body"][name] = digest[:64]
    document["body"]["round"] = number
    changed = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert_alike(warm_reader(), changed)


_KEPT: list[EntryReader] = []


def warm_reader() -> EntryReader:
    """One reader for all examples: what it remembers of one must not mislead it about another."""
    if not _KEPT:
        _KEPT.append(warm())
    return _KEPT[0]


def test_what_is_too_long_is_no_entry() -> None:
    sites = json.dumps([f"site-{number:05d}" for number in range(6000)], separators=(",", ":")).encode()
    content = next(content for content in QUICK if b'"kind":"aggregate"' in content)
    long = content.replace(b'"sites":["berlin","oslo"]', b'"sites":' + sites)
    assert len(long) > MAX_ENTRY_BYTES
    with pytest.raises(LedgerError):
        warm_reader().read(long)
