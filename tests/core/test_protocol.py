"""The closed protocol: what is not exactly a known message is dropped with an explanation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synclave_shared import protocol
from synclave_shared.canonical import sha256_hex
from synclave_shared.errors import ProtocolError
from synclave_shared.protocol import CheckpointPresentation, Envelope, HelloRequest, Reply, RoundRequest

NOTHING_SEEN = CheckpointPresentation(note="note", previous_size=0, entries=())


def test_a_round_request_survives_the_way() -> None:
    payload = protocol.encode_model(np.array([1.5, -2.0], dtype=np.float32))
    request = RoundRequest(plan_digest="a" * 64, round=3, payload_digest=sha256_hex(payload), checkpoint=NOTHING_SEEN)
    envelope = Envelope.of(request, payload)
    assert protocol.parse_request(envelope) == request
    assert protocol.decode_model(envelope.payload, 2).tolist() == [1.5, -2.0]


@given(st.binary(max_size=200))
def test_no_bytes_get_past_the_parsers_by_accident(header: bytes) -> None:
    for parse in (protocol.parse_request, protocol.parse_reply):
        with pytest.raises(ProtocolError):
            parse(Envelope(header=header))


def test_a_payload_that_does_not_match_its_digest_is_dropped() -> None:
    envelope = Envelope.of(Reply(status="ok", payload_digest=sha256_hex(b"right")), b"wrong")
    with pytest.raises(ProtocolError, match="digest"):
        protocol.parse_reply(envelope)


def test_a_payload_where_none_belongs_is_dropped() -> None:
    with pytest.raises(ProtocolError, match="digest"):
        protocol.parse_request(Envelope.of(HelloRequest(), b"smuggled"))


@pytest.mark.parametrize(
    "field", [{"noise_multiplier": "0.1"}, {"clip_norm": "100"}, {"selection_rate": "1"}, {"path": "/etc/passwd"}]
)
def test_a_message_cannot_carry_privacy_settings(field: dict[str, str]) -> None:
    request = RoundRequest(plan_digest="a" * 64, round=1, payload_digest=protocol.EMPTY_DIGEST, checkpoint=NOTHING_SEEN)
    document = request.model_dump(mode="json") | field
    with pytest.raises(ProtocolError, match="Extra inputs"):
        protocol.parse_request(Envelope(header=protocol.canonical_bytes(document)))


def test_oversized_headers_are_dropped_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_HEADER_BYTES", 10)
    with pytest.raises(ProtocolError, match="at most"):
        protocol.parse_request(Envelope.of(HelloRequest()))


@pytest.mark.parametrize("payload", [b"", b"1234567", b"\0" * 12])
def test_vectors_of_another_size_are_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="coordinates"):
        protocol.decode_model(payload, 2)
    with pytest.raises(ProtocolError, match="coordinates"):
        protocol.decode_update(payload, 2)


def test_a_model_with_nan_is_refused() -> None:
    with pytest.raises(ProtocolError, match="finite"):
        protocol.decode_model(protocol.encode_model(np.array([np.nan], dtype=np.float32)), 1)


@given(st.lists(st.integers(-(2**62), 2**62), max_size=20))
def test_updates_survive_the_way(values: list[int]) -> None:
    vector = np.array(values, dtype=np.int64)
    assert protocol.decode_update(protocol.encode_update(vector), len(values)).tolist() == values


def test_a_failure_carries_a_code_and_no_text() -> None:
    reply = protocol.parse_reply(protocol.failed("data"))
    assert (reply.status, reply.code) == ("failed", "data")
    with pytest.raises(ValueError, match="code"):
        protocol.failed("Patient 17 has HIV")
