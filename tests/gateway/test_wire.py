"""Envelopes survive Flower's protobuf, and nothing else passes for one."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto
from hypothesis import given
from hypothesis import strategies as st

from synclave_shared.errors import ProtocolError
from synclave_shared.protocol import Envelope
from synclave_shared.wire import from_records, to_records


@given(st.binary(max_size=300), st.binary(max_size=3000))
def test_it_comes_back_from_the_bytes_on_the_wire(header: bytes, payload: bytes) -> None:
    data = recorddict_to_proto(to_records(Envelope(header, payload))).SerializeToString()
    assert from_records(recorddict_from_proto(RecordDictProto.FromString(data))) == Envelope(header, payload)


HEADER = ConfigRecord({"bytes": b"{}"})


def payload(**changes: object) -> ArrayRecord:
    fields = {"dtype": "uint8", "shape": (3,), "stype": "synclave.bytes", "data": b"abc"} | changes
    return ArrayRecord({"bytes": Array(**fields)})  # type: ignore[arg-type]


WRONG = {
    "empty": RecordDict(),
    "no-header": RecordDict({"synclave.payload": payload()}),
    "another-record": RecordDict({"synclave.header": HEADER, "weights": payload()}),
    "header-of-another-kind": RecordDict({"synclave.header": MetricRecord({"bytes": 1})}),
    "header-with-more-keys": RecordDict({"synclave.header": ConfigRecord({"bytes": b"{}", "epsilon": 9.0})}),
    "header-as-text": RecordDict({"synclave.header": ConfigRecord({"bytes": "{}"})}),
    "header-too-long": RecordDict({"synclave.header": ConfigRecord({"bytes": bytes(2**22 + 1)})}),
    "payload-of-another-kind": RecordDict({"synclave.header": HEADER, "synclave.payload": HEADER}),
    "payload-as-numpy": RecordDict({"synclave.header": HEADER, "synclave.payload": ArrayRecord([np.zeros(3)])}),
    "payload-of-floats": RecordDict({"synclave.header": HEADER, "synclave.payload": payload(dtype="float32")}),
    "payload-pickled": RecordDict({"synclave.header": HEADER, "synclave.payload": payload(stype="numpy.ndarray")}),
    "payload-of-another-size": RecordDict({"synclave.header": HEADER, "synclave.payload": payload(shape=(4,))}),
    "payload-empty": RecordDict({"synclave.header": HEADER, "synclave.payload": payload(shape=(0,), data=b"")}),
}


@pytest.mark.parametrize("name", WRONG)
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(ProtocolError):
        from_records(WRONG[name])
