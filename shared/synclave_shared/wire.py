"""Envelopes as Flower carries them: the header in a config record, the payload as one array of bytes.

The payload goes into an ``ArrayRecord`` because Flower sends arrays in chunks and config values whole. Both halves are
raw bytes with a closed shape: nothing is unpickled, and ``numpy``'s own file format is not involved either. This is
the only module of ``synclave_shared`` that knows Flower.
"""

from __future__ import annotations

from typing import Final

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from synclave_shared.errors import ProtocolError
from synclave_shared.protocol import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, Envelope

__all__ = ["MESSAGE_TYPE", "from_records", "to_records"]

MESSAGE_TYPE: Final = "query"
"""Flower's message category for all our requests: it is the one without a meaning for learning."""

_HEADER: Final = "synclave.header"
_PAYLOAD: Final = "synclave.payload"
_KEY: Final = "bytes"
_STYPE: Final = "synclave.bytes"


def to_records(envelope: Envelope) -> RecordDict:
    """Pack an envelope; an empty payload has no array record."""
    records = RecordDict({_HEADER: ConfigRecord({_KEY: envelope.header})})
    if envelope.payload:
        array = Array("uint8", (len(envelope.payload),), _STYPE, envelope.payload)
        records[_PAYLOAD] = ArrayRecord({_KEY: array})
    return records


def from_records(records: RecordDict) -> Envelope:
    """Unpack an envelope.

    Raises:
        ProtocolError: if there is any record, key, type or size but the expected ones.
    """
    try:
        if not {_HEADER} <= set(records) <= {_HEADER, _PAYLOAD}:
            raise ValueError(f"records {sorted(records)[:4]}")
        header = _single(records[_HEADER], ConfigRecord)
        if not isinstance(header, bytes) or len(header) > MAX_HEADER_BYTES:
            raise ValueError("a header that is no byte string or too long")
        if _PAYLOAD not in records:
            return Envelope(header=header)
        array = _single(records[_PAYLOAD], ArrayRecord)
        if not isinstance(array, Array) or (array.dtype, array.stype) != ("uint8", _STYPE):
            raise ValueError("a payload that is no array of bytes")
        if tuple(array.shape) != (len(array.data),) or not 0 < len(array.data) <= MAX_PAYLOAD_BYTES:
            raise ValueError(f"a payload of {len(array.data)} bytes with shape {tuple(array.shape)[:4]}")
        return Envelope(header=header, payload=array.data)
    except ValueError as error:
        raise ProtocolError(
            expected="one header and at most one payload, both within their bounds",
            found=str(error),
            remedy="The message was dropped; check that both sides run the same version of Synclave.",
        ) from None


def _single(record: object, kind: type[ConfigRecord] | type[ArrayRecord]) -> object:
    """The one value of a record that must be of ``kind`` and hold nothing else."""
    if not isinstance(record, kind) or list(record) != [_KEY]:
        raise ValueError(f"an unexpected {type(record).__name__}")
    return record[_KEY]
