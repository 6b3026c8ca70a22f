"""A verifier by somebody who has docs/ledger-format.md and nothing of ours: hashlib, json and a library for Ed25519.

It checks everything on that page that needs no privacy accountant, for ledgers of up to 256 entries. It stops at the
first thing that is wrong.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

OF_SITES = {"plan-accepted", "plan-refused", "budget-changed", "spend-reserved", "update-released"}
OF_COORDINATOR = {"plan-proposed", "aggregate", "snapshot", "run-closed", "samples-released"}


class Wrong(Exception):  # noqa: N818 - a verdict
    """What is wrong with the ledger."""


def require(condition: bool, what: str) -> None:
    if not condition:
        raise Wrong(what)


def check(public_key: str, message: bytes, signature: bytes, what: str) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True)).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise Wrong(f"{what}: signature") from None


def canonical(value: Any) -> bytes:
    # What RFC 8785 comes to for ASCII keys and no fractions.
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def leaf(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def root_of(hashes: list[bytes]) -> bytes:
    if len(hashes) == 1:
        return hashes[0]
    k = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + root_of(hashes[:k]) + root_of(hashes[k:])).digest()


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise Wrong(f"{path.name}: missing") from None


def split(data: bytes) -> list[bytes]:
    entries = []
    while data:
        require(len(data) > 2, "bundle")
        (length,) = struct.unpack(">H", data[:2])
        require(len(data) >= 2 + length, "bundle")
        entries.append(data[2 : 2 + length])
        data = data[2 + length :]
    return entries


def key_id(name: str, algorithm: int, public_key: str) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + base64.b64decode(public_key)).digest()[:4]


class Outsider:
    """Verifies one ledger folder; ``seen`` is a checkpoint that a site kept."""

    def __init__(self, folder: Path, seen: str = "") -> None:
        self.folder, self.seen = folder, seen
        self.roles: dict[str, str] = {}
        self.keys: dict[str, list[str]] = {}
        self.ends: dict[str, str] = {}
        self.newest: dict[str, str] = {}
        self.plans: dict[str, dict[str, Any]] = {}
        self.accepted: dict[tuple[str, str], dict[str, Any]] = {}
        self.rounds: set[tuple[str, ...]] = set()

    def verify(self) -> None:
        """Raise :class:`Wrong` at the first thing that is."""
        note = read(self.folder / "checkpoint").decode()
        self.origin, size, root = note.split("\n")[:3]
        entries = split(read(self.folder / f"tile/entries/000.p/{size}"))
        self.hashes = [leaf(entry) for entry in entries]
        require(len(entries) == int(size), "bundle")
        require(read(self.folder / f"tile/0/000.p/{size}") == b"".join(self.hashes), "tile")
        require(base64.b64encode(root_of(self.hashes)).decode() == root, "root")
        for entry in entries:
            self.entry(entry)
        require(next(iter(self.plans))[:16] == self.origin.removeprefix("synclave/"), "origin")
        self.note(note)
        for path in sorted((self.folder / "witness").glob("*")):
            self.note(path.read_text())
        if self.seen:
            self.note(self.seen)

    def note(self, text: str) -> None:
        body, _, lines = text.partition("\n\n")
        origin, size, root = body.split("\n")
        require(origin == self.origin and int(size) <= len(self.hashes), "another or a longer history")
        require(base64.b64encode(root_of(self.hashes[: int(size)])).decode() == root, "another history")
        names = []
        for line in lines.splitlines():
            dash, name, blob = line.split(" ")
            data, message = base64.b64decode(blob), f"{body}\n".encode()
            names.append(name)
            require(dash == "—", "line")
            if name == origin:
                require(data[:4] == key_id(name, 1, self.keys["coordinator"][-1]), "key id")
                check(self.keys["coordinator"][-1], message, data[4:], "checkpoint")
                continue
            (seconds,) = struct.unpack(">Q", data[4:12])
            held = [key for key in self.keys.get(name, ()) if data[:4] == key_id(name, 4, key)]
            require(bool(held), "co-signature")
            check(held[0], f"cosignature/v1\ntime {seconds}\n".encode() + message, data[12:], "co-signature")
        require(origin in names and len(names) == len(set(names)), "the coordinator's line")

    def entry(self, data: bytes) -> None:
        entry = json.loads(data)
        require(canonical(entry) == data and entry["version"] == 1, "canonical form")
        actor, kind, body = entry["actor"], entry["kind"], entry["body"]
        signature = base64.b64decode(entry.pop("signature"))
        check(entry["key"], b"synclave-entry/v1\n" + canonical(entry), signature, kind)
        if kind == "key-registered":
            require((actor, entry["key"], entry["run"]) == (body["name"], body["public_key"], ""), "registration")
            require(self.keys.setdefault(actor, [entry["key"]]) == [entry["key"]], "one key for one name")
            require(self.roles.setdefault(actor, body["role"]) == body["role"], "role")
            self.ends[actor] = body["not_after"]
        require(actor in self.keys and entry["key"] == self.keys[actor][-1], "key")
        require(entry["previous"] == self.newest.get(actor, ""), "chain")
        self.newest[actor] = leaf(data).hex()
        require(not self.ends[actor] or entry["time"] <= self.ends[actor], "expired key")
        if kind == "key-rotated":
            require(self.roles[actor] == "site" and actor == body["name"] and entry["run"] == "", "rotation")
            require(body["public_key"] not in self.keys[actor], "rotation")
            self.keys[actor].append(body["public_key"])
            self.ends[actor] = body["not_after"]
        elif kind != "key-registered":
            require(kind in (OF_SITES if self.roles[actor] == "site" else OF_COORDINATOR), "role")
            require(entry["run"] == body["plan_digest"], "run")
            self.act(actor, kind, body)

    def act(self, actor: str, kind: str, body: dict[str, Any]) -> None:
        digest = body["plan_digest"]
        if kind == "plan-proposed":
            plan = canonical(body["plan"])
            require(hashlib.sha256(plan).hexdigest() == digest, "plan digest")
            signature = base64.b64decode(body["signature"])
            check(body["plan"]["coordinator_key"], b"synclave-plan/v1\n" + plan, signature, "plan")
            self.plans[digest] = body["plan"]
        require(digest in self.plans, "plan")
        plan = self.plans[digest]
        named = {site["name"]: site["public_key"] for site in plan["sites"]}
        require((named | {"coordinator": plan["coordinator_key"]}).get(actor) in self.keys[actor], "roster")
        place = (digest, actor, str(body.get("round")))
        if kind == "plan-accepted":
            self.accepted[digest, actor] = body
        elif kind == "spend-reserved":
            require((digest, actor) in self.accepted, "acceptance")
            agreed = self.accepted[digest, actor]
            require(body["dataset"] == agreed["dataset"] and body["delta"] == agreed["budget"]["delta"], "budget")
            done, planned = dict(body["mechanism"]), [dict(mechanism) for mechanism in agreed["planned"]]
            for mechanism in (done, *planned):
                mechanism.pop("steps", None)
            require(done in planned and place not in self.rounds, "mechanism")
            self.rounds.add(place)
        elif kind == "update-released":
            require(place in self.rounds and (*place, "out") not in self.rounds, "release")
            self.rounds.add((*place, "out"))
        elif kind == "aggregate":
            for site in body["sites"]:
                require((digest, site, str(body["round"]), "out") in self.rounds, "aggregate")
            require(len(set(body["sites"])) >= plan["federation"]["minimum_sites"], "cohort")
            self.rounds.add((digest, str(body["round"])))
        elif kind == "snapshot":
            require((digest, str(body["round"])) in self.rounds, "snapshot")
            self.rounds.add((digest, body["snapshot_digest"]))
        elif kind == "samples-released":
            require((digest, body["snapshot_digest"]) in self.rounds, "samples")
