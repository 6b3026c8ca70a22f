"""Checks every reply of a site before a byte of it is used. What is wrong has a closed name; nothing is repaired.

A site is believed to be who it is because its ledger entries are signed with the key that the plan names, or with one
that this key handed over to: a reply that counts must carry the signed release of the very bytes that came with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from synclave_shared.canonical import sha256_hex
from synclave_shared.errors import LedgerError, ProtocolError
from synclave_shared.fixed_point import MAX_MAGNITUDE, SCALE_BITS, from_fixed
from synclave_shared.ledger.entry import (
    BudgetChanged,
    KeyRegistered,
    KeyRotated,
    PlanAccepted,
    PlanRefused,
    SignedEntry,
    SpendReserved,
    UpdateReleased,
    parse_entry,
)
from synclave_shared.plan import TrainPlan
from synclave_shared.privacy.mechanism import GaussianSum
from synclave_shared.protocol import Envelope, Reply, decode_update, parse_reply

__all__ = [
    "FINDINGS",
    "Finding",
    "SiteReply",
    "norm_bound",
    "raise_unless_ok",
    "read_reply",
    "read_update",
    "released_update",
]

FINDINGS: Final = {
    "no-reply": "the site did not answer in time",
    "malformed": "the reply is not one of the protocol",
    "failed": "something went wrong at the site; its own log says what",
    "refused": "the site's policy refused",
    "wrong-site": "the reply speaks for another site",
    "wrong-key": "the reply states another key than the plan does",
    "entry-invalid": "a ledger entry in the reply is malformed, wrongly signed, of another plan, or out of its order",
    "release-missing": "no signed release of these bytes for this round: forged, altered, or replayed from another one",
    "wrong-size": "the update has another number of coordinates than the model",
    "norm-exceeded": "the release is longer than the plan's public numbers allow",
    "magnitude-exceeded": "a released number is larger than fixed point may carry",
}
"""Why a reply did not count: closed codes, and what each means."""

NORM_TOLERANCE: Final = 1e-3
"""Relative slack of the bound on an update's norm: float32 arithmetic and the rounding to fixed point at the site."""

NOMINAL_EXCESS: Final = 1.5
"""How many times its nominal patients a hospital may have: the nominal number is rounded and a year old, say."""

NOISE_TAIL_STD: Final = 6.0
"""The norm of n Gaussian noises exceeds std * (sqrt(n) + t) with probability below exp(-t^2 / 2): here, 2e-8."""

_SITE_KINDS: Final = (PlanAccepted, PlanRefused, BudgetChanged, SpendReserved, UpdateReleased)


class Finding(Exception):  # noqa: N818 - not an error of the program but of a reply, with a closed name
    """Why a reply does not count.

    Attributes:
        code: one of :data:`FINDINGS`.
        detail: with ``failed`` and ``refused``, the closed code the site gave.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        if code not in FINDINGS:
            raise ValueError(f"unknown finding {code!r}")
        self.code = code
        self.detail = detail
        super().__init__(f"{code} ({detail})" if detail else code)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteReply:
    """A reply whose origin is established.

    Attributes:
        site: the site's name.
        reply: the header.
        entries: its ledger entries, each verified; they belong into the ledger whatever else is wrong.
        payload: the bytes that came with it.
    """

    site: str
    reply: Reply
    entries: tuple[SignedEntry, ...]
    payload: bytes


def read_reply(envelope: Envelope, plan: TrainPlan, site: str, keys: Iterable[str] = ()) -> SiteReply:
    """Establish that a reply is one of ``site`` and that all of its entries may enter the ledger.

    The status is not judged here: a refusal carries entries as well.

    Args:
        envelope: the reply.
        plan: the plan; a site states the key with which it names the site, whatever key counts now.
        site: the site's name.
        keys: keys that the ledger knows as the site's, beside the plan's.

    Raises:
        Finding: ``malformed``, ``wrong-site``, ``wrong-key``, ``entry-invalid``, or ``failed`` if the reply comes from
            the site's gateway, which has no name to give.
    """
    try:
        reply = parse_reply(envelope)
    except ProtocolError:
        raise Finding("malformed") from None
    if reply.status == "failed" and reply.site is None:
        raise Finding("failed", reply.code)
    if reply.site != site:
        raise Finding("wrong-site")
    key = plan.site(site).public_key
    if reply.public_key != key:
        raise Finding("wrong-key")
    return SiteReply(
        site=site,
        reply=reply,
        entries=_read_entries(reply.entries, plan, site, {key, *keys}),
        payload=envelope.payload,
    )


def _read_entries(texts: Iterable[str], plan: TrainPlan, site: str, keys: set[str]) -> tuple[SignedEntry, ...]:
    """Which of the keys counts at which entry, the ledger decides (:meth:`Notary.append`): a reply may come twice."""
    entries = []
    for text in texts:
        entries.append(_read_entry(text, plan, site, keys))
        body = entries[-1].body
        if isinstance(body, KeyRotated):
            keys.add(body.public_key)
    return tuple(entries)


def _read_entry(text: str, plan: TrainPlan, site: str, keys: set[str]) -> SignedEntry:
    try:
        entry = parse_entry(text.encode("utf-8"))
    except LedgerError:
        raise Finding("entry-invalid", "malformed") from None
    if entry.actor != site or entry.key not in keys or not entry.verify():
        raise Finding("entry-invalid", "signature")
    if isinstance(entry.body, KeyRegistered):
        if entry.run or entry.body.name != site or {entry.key, entry.body.public_key} != {plan.site(site).public_key}:
            raise Finding("entry-invalid", "registration")
    elif isinstance(entry.body, KeyRotated):
        if entry.run or entry.body.name != site or entry.body.public_key == entry.key:
            raise Finding("entry-invalid", "rotation")
    elif not isinstance(entry.body, _SITE_KINDS) or {entry.run, entry.body.plan_digest} != {plan.digest}:
        raise Finding("entry-invalid", "kind")
    return entry


def raise_unless_ok(answer: SiteReply) -> None:
    """Judge the status.

    Raises:
        Finding: ``refused`` or ``failed``, with the site's closed code.
    """
    if answer.reply.status != "ok":
        raise Finding(answer.reply.status, answer.reply.code)


def released_update(answer: SiteReply, plan: TrainPlan, round_number: int, size: int) -> NDArray[np.float64]:
    """The update of a round's reply, once everything about it is as the plan says.

    Args:
        answer: the reply.
        plan: the plan.
        round_number: the round that was asked for.
        size: number of coordinates that the release must have.

    Returns:
        The released values, float64 [size].

    Raises:
        Finding: ``refused``, ``failed``, ``release-missing``, ``wrong-size``, ``magnitude-exceeded`` or
            ``norm-exceeded``.
    """
    raise_unless_ok(answer)
    digest = sha256_hex(answer.payload)
    if not any(
        isinstance(entry.body, UpdateReleased)
        and entry.body.round == round_number
        and entry.body.update_digest == digest
        for entry in answer.entries
    ):
        raise Finding("release-missing")
    return read_update(answer.payload, plan, answer.site, round_number, size)


def norm_bound(plan: TrainPlan, site: str, round_number: int, size: int) -> float:
    """The largest L2 norm that a site's release may have, by public numbers alone.

    In a training round it is the plan's bound on updates. In a round that sums over patients it is what a hospital of
    :data:`NOMINAL_EXCESS` times the site's nominal size can sum up to, each of its patients clipped, and the noise.

    Args:
        plan: the plan.
        site: the site's name.
        round_number: the round.
        size: number of coordinates of the release.

    Raises:
        PlanError: if the plan has no such round.
    """
    mechanism = plan.mechanism(round_number)
    if not isinstance(mechanism, GaussianSum):
        return float(plan.federation.update_norm) * (1 + NORM_TOLERANCE)
    clip_norm = float(mechanism.clip_norm)
    noise_std = float(mechanism.noise_multiplier) * clip_norm
    patients = plan.site(site).nominal_patients * NOMINAL_EXCESS
    return (clip_norm * patients + noise_std * (math.sqrt(size) + NOISE_TAIL_STD)) * (1 + NORM_TOLERANCE)


def read_update(payload: bytes, plan: TrainPlan, site: str, round_number: int, size: int) -> NDArray[np.float64]:
    """Decode released bytes and check their bounds.

    Raises:
        Finding: ``wrong-size``, ``magnitude-exceeded`` or ``norm-exceeded``.
    """
    try:
        fixed = decode_update(payload, size)
    except ProtocolError:
        raise Finding("wrong-size") from None
    limit = int(MAX_MAGNITUDE) << SCALE_BITS
    # Not np.abs: the smallest int64 has no positive counterpart.
    if fixed.size and (int(fixed.max()) > limit or int(fixed.min()) < -limit):
        raise Finding("magnitude-exceeded")
    values = from_fixed(fixed)
    if float(np.linalg.norm(values)) > norm_bound(plan, site, round_number, size):
        raise Finding("norm-exceeded")
    return values
