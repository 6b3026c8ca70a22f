from __future__ import annotations

import contextlib
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from synclave_shared.canonical import sha256_hex
from synclave_shared.errors import LedgerError
from synclave_shared.ledger.entry import (
    BODIES,
    COORDINATOR,
    MAX_ENTRY_BYTES,
    PlanAccepted,
    PlanProposed,
    PlanRefused,
    RunClosed,
    SignedEntry,
    SpendReserved,
    parse_entry,
    sign_entry,
)
from synclave_shared.ledger.keys import verify_signature
from synclave_shared.ledger.merkle import leaf_hash
from synclave_shared.plan import Federation, Privacy, SiteEntry, TrainPlan
from tests.ledger.story import START, Story, key_of, make_plan

STORY = Story().whole()
REFUSED = sign_entry(
    "plan-refused",
    "berlin",
    STORY.plan.digest,
    PlanRefused(plan_digest=STORY.plan.digest, refusal="paused"),
    key_of("berlin"),
    START,
    previous="",
)


def begun_otherwise() -> list[SignedEntry]:
    story = Story()
    story.rotate("berlin", key_of("berlin again"), "2027-11-21T08:00:00Z")
    story.change_budget("berlin", "2")
    story.sample()
    return story.entries


def test_every_kind_is_written_and_read_back_byte_for_byte() -> None:
    more = begun_otherwise()
    entries = [*STORY.entries, *more, REFUSED]
    assert {entry.kind for entry in entries} == set(BODIES)
    for entry in entries:
        again = parse_entry(entry.to_bytes())
        assert again == entry
        assert again.to_bytes() == entry.to_bytes()
        assert again.verify()
        assert type(again.body) is BODIES[entry.kind]
        assert entry.leaf == leaf_hash(entry.to_bytes()).hex()


def floats_in(value: Any) -> bool:
    if isinstance(value, dict):
        return any(floats_in(item) for item in value.values())
    return any(floats_in(item) for item in value) if isinstance(value, list) else isinstance(value, float)


def test_entries_hold_no_floats() -> None:
    for entry in STORY.entries:
        assert not floats_in(json.loads(entry.to_bytes()))


def test_the_time_is_utc_in_whole_seconds() -> None:
    assert REFUSED.time == "2026-11-21T08:00:00Z"


def test_a_signature_is_on_the_entry_and_on_nothing_else() -> None:
    entry = STORY.entries[0]
    for changes in ({"time": "2026-11-21T08:00:01Z"}, {"actor": "oslo"}, {"run": "0" * 64}, {"kind": entry.kind + ""}):
        changed = entry.model_copy(update=changes)
        assert changed.verify() == (changed == entry)
    unsigned = json.loads(entry.to_bytes())
    signature = unsigned.pop("signature")
    plain = json.dumps(unsigned, separators=(",", ":"), sort_keys=True).encode()
    assert not verify_signature(entry.key, plain, signature)
    assert verify_signature(entry.key, b"synclave-entry/v1\n" + plain, signature)


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e | {"extra": 1},
        lambda e: e | {"kind": "unknown"},
        lambda e: e | {"kind": "aggregate"},
        lambda e: e | {"version": 2},
        lambda e: e | {"actor": "Berlin!"},
        lambda e: e | {"run": "abc"},
        lambda e: e | {"time": "2026-13-21T08:00:00Z"},
        lambda e: e | {"time": "2026-11-21T08:00:00.5Z"},
        lambda e: e | {"time": "2026-11-21 08:00:00"},
        lambda e: e | {"key": "abc"},
        lambda e: e | {"body": e["body"] | {"refusal": "because"}},
        lambda e: e | {"body": e["body"] | {"more": 1}},
        lambda e: e | {"body": None},
        lambda e: e | {"body": 1.5},
        lambda e: {name: value for name, value in e.items() if name != "body"},
    ],
)
def test_entries_that_do_not_fit_are_refused(change: Any) -> None:
    document = change(json.loads(REFUSED.to_bytes()))
    data = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    with pytest.raises(LedgerError):
        parse_entry(data)


def test_only_the_canonical_form_is_an_entry() -> None:
    document = json.loads(REFUSED.to_bytes())
    assert parse_entry(json.dumps(document, separators=(",", ":"), sort_keys=True).encode()) == REFUSED
    for other in (
        json.dumps(document, sort_keys=True).encode(),
        json.dumps(dict(reversed(list(document.items()))), separators=(",", ":")).encode(),
        REFUSED.to_bytes() + b"\n",
        b"\xef\xbb\xbf" + REFUSED.to_bytes(),
    ):
        with pytest.raises(LedgerError):
            parse_entry(other)


HOSTILE_VALUES = [
    "1E-999999999",
    "1E999999999",
    "abc",
    "",
    "NaN",
    "Infinity",
    "-1",
    "0",
    " 1",
    "1_0",
    "٣",
    "1." + "0" * 60,
]


@pytest.mark.parametrize("value", HOSTILE_VALUES)
def test_hostile_numbers_are_refused_and_cost_nothing(value: str) -> None:
    reserved = next(entry for entry in STORY.entries if isinstance(entry.body, SpendReserved))
    document = json.loads(reserved.to_bytes())
    document["body"]["mechanism"]["noise_multiplier"] = value
    with pytest.raises(LedgerError):
        parse_entry(json.dumps(document, separators=(",", ":"), sort_keys=True).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"1" * 60_000,
        b'"\\ud800"',
        b"x" * 70_000,
    ],
)
def test_bytes_that_are_no_entry_are_a_ledger_error(data: bytes) -> None:
    with pytest.raises(LedgerError):
        parse_entry(data)


@settings(max_examples=200)
@given(st.integers(0, len(STORY.entries) - 1), st.data())
def test_a_changed_byte_is_refused_or_breaks_the_signature(index: int, draw: st.DataObject) -> None:
    data = bytearray(STORY.entries[index].to_bytes())
    position = draw.draw(st.integers(0, len(data) - 1))
    data[position] ^= draw.draw(st.integers(1, 255))
    with contextlib.suppress(LedgerError):
        assert not parse_entry(bytes(data)).verify()


PLAN_ENTRY = next(entry for entry in STORY.entries if isinstance(entry.body, PlanProposed))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    )
)
def test_any_json_in_the_place_of_a_plan_is_an_entry_or_a_ledger_error(value: Any) -> None:
    document = json.loads(PLAN_ENTRY.to_bytes())
    document["body"]["plan"] = value
    try:
        entry = parse_entry(
            json.dumps(document, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode(
                "utf-8", "surrogatepass"
            )
        )
    except LedgerError:
        return
    assert isinstance(value, dict)
    assert not entry.verify()


def test_a_plan_of_thousands_of_rounds_is_accepted_in_a_short_entry() -> None:
    plan = make_plan(rounds=5000)
    accepted = Story(plan).accept("berlin")
    assert len(accepted.to_bytes()) < 2000
    assert isinstance(accepted.body, PlanAccepted)
    assert [getattr(each, "steps", None) for each in accepted.body.planned] == [None, 25_000]
    assert parse_entry(accepted.to_bytes()) == accepted


def roster(sites: int, name: str = "site") -> TrainPlan:
    keys = [key_of(f"site-{number}").public_text for number in range(sites)]
    return TrainPlan(
        name="wide",
        coordinator_key=key_of(COORDINATOR).public_text,
        schema_name="diabetes",
        schema_digest=sha256_hex(b"schema"),
        privacy=Privacy(noise_multiplier=Decimal(1), selection_rate=Decimal("0.01")),
        federation=Federation(rounds=1, steps_per_round=1),
        sites=tuple(
            SiteEntry(name=f"{name}-{number}", public_key=key, nominal_patients=20_000)
            for number, key in enumerate(keys)
        ),
    )


def test_a_plan_of_500_sites_fits_and_a_longer_one_is_refused_when_it_is_made_or_signed() -> None:
    assert len(Story(roster(500)).propose().to_bytes()) <= MAX_ENTRY_BYTES
    with pytest.raises(ValidationError, match="at most 500"):
        roster(501)
    with pytest.raises(LedgerError, match="65535 bytes"):
        Story(roster(500, name="n" * 59)).propose()


def test_a_body_of_another_kind_cannot_be_signed() -> None:
    body = RunClosed(plan_digest=STORY.plan.digest, rounds=1)
    with pytest.raises(LedgerError):
        sign_entry("snapshot", COORDINATOR, STORY.plan.digest, body, key_of(COORDINATOR), previous="")
    with pytest.raises(LedgerError):
        sign_entry("nothing", COORDINATOR, STORY.plan.digest, body, key_of(COORDINATOR), previous="")
