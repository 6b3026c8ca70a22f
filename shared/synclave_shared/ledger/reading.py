"""Reading many entries fast: what was read once need not be understood again.

Nearly all entries of a ledger are of four kinds and differ in digests, a round, a time and a signature alone.
:class:`EntryReader` understands the first of a shape by :func:`~synclave_shared.ledger.entry.parse_entry`, and takes
later ones from their bytes. Why that accepts nothing else:

- The outer pattern spells out the canonical form around the body, with values from the sets that the types allow and
  that are written in one way. Whatever does not match goes to ``parse_entry``.
- Two bodies have one shape if they are equal but for digests and rounds under their names, each written as a valid one
  in the same place (there the shape has a zero byte, which no canonical JSON has). A name in quotes cannot stand inside
  a string of JSON, where quotes are escaped. None of the four kinds of body has a rule about what these values are, or
  between them and others.

So ``parse_entry`` accepts both or neither. A property test compares the two.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, TypeVar

from synclave_shared.canonical import FrozenModel
from synclave_shared.ledger.entry import BODIES, MAX_ENTRY_BYTES, SignedEntry, parse_entry

__all__ = ["EntryReader"]

Model = TypeVar("Model", bound=FrozenModel)

MAX_SHAPES: Final = 10_000
"""An adversary's ledger may have a new shape in every entry; memory stays bounded."""

_HEX: Final = rb"[0-9a-f]{64}"
_ENTRY: Final = re.compile(
    rb'\{"actor":"([A-Za-z0-9][A-Za-z0-9_-]{0,62})","body":(\{.*\}),"key":"([A-Za-z0-9+/]{43}=)",'
    rb'"kind":"(spend-reserved|update-released|aggregate|snapshot)","previous":"(' + _HEX + rb'|)",'
    rb'"run":"(' + _HEX + rb'|)","signature":"([A-Za-z0-9+/]{86}==)",'
    rb'"time":"(([0-9]{4}-[0-9]{2}-[0-9]{2})T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)","version":1\}',
    re.DOTALL,
)
_VARYING: Final = re.compile(
    rb'"((?:plan|update|aggregate|snapshot)_digest)":"(' + _HEX + rb')"|"(round)":(10000|[1-9][0-9]{0,3}|0)(?=[,}])'
)


@lru_cache(maxsize=4096)
def _is_date(text: bytes) -> bool:
    try:
        datetime.strptime(text.decode("ascii"), "%Y-%m-%d")
    except ValueError:
        return False
    return True


class EntryReader:
    """Reads entries as :func:`~synclave_shared.ledger.entry.parse_entry` does, and remembers the shapes of bodies."""

    def __init__(self) -> None:
        self._shapes: dict[tuple[bytes, bytes], dict[str, Any]] = {}

    def read(self, data: bytes) -> SignedEntry:
        """The entry that ``data`` is the canonical JSON of.

        Raises:
            LedgerError: if it is not one.
        """
        match = _ENTRY.fullmatch(data)
        if match is None or len(data) > MAX_ENTRY_BYTES or b"\0" in data:
            return parse_entry(data)
        actor, body, key, kind, previous, run, signature, time, date = match.groups()
        values: dict[str, Any] = {}

        def take(found: re.Match[bytes]) -> bytes:
            name, digest, _, number = found.groups()
            if name is None:
                values["round"] = int(number)
                return b'\0"round"'
            values[name.decode("ascii")] = digest.decode("ascii")
            return b'\0"' + name + b'"'

        shape = kind, _VARYING.sub(take, body)
        known = self._shapes.get(shape)
        if known is None or not _is_date(date):
            entry = parse_entry(data)
            if len(self._shapes) < MAX_SHAPES:
                self._shapes[shape] = dict(entry.body)
            return entry
        kind_text = kind.decode("ascii")
        return _made(
            SignedEntry,
            {
                "version": 1,
                "kind": kind_text,
                "actor": actor.decode("ascii"),
                "run": run.decode("ascii"),
                "previous": previous.decode("ascii"),
                "time": time.decode("ascii"),
                "body": _made(BODIES[kind_text], {**known, **values}),
                "key": key.decode("ascii"),
                "signature": signature.decode("ascii"),
            },
        )


def _made(model: type[Model], values: dict[str, Any]) -> Model:
    """An object of all of its fields' values, which are known to be valid."""
    # What model_construct does, without its loop over the fields, which would take longer than all else here.
    made = model.__new__(model)
    for name, value in (
        ("__dict__", values),
        ("__pydantic_fields_set__", set(values)),
        ("__pydantic_extra__", None),
        ("__pydantic_private__", None),
    ):
        object.__setattr__(made, name, value)
    return made
