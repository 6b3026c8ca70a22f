"""Makes tests/ledger/vectors anew, bit for bit: ``python -m tests.ledger.make_vectors`` (fixed keys, fixed times).

One folder per corruption: ``ledger`` as it would be found, ``expected.json`` with what verification must say of it, and
where it takes part a checkpoint that a site kept (``seen``). ``valid`` is the sound ledger that the others spoil.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from synclave_shared.canonical import sha256_hex
from synclave_shared.ledger.checkpoint import (
    Checkpoint,
    Note,
    cosignature_line,
    parse_line,
    parse_note,
    sign_checkpoint,
)
from synclave_shared.ledger.entry import COORDINATOR
from synclave_shared.ledger.keys import SigningKey, encode_base64
from synclave_shared.ledger.merkle import MerkleTree, leaf_hash
from synclave_shared.ledger.tiles import encode_bundle, entries_path, tile_content, tile_path, witness_path
from synclave_shared.plan import Federation, Privacy, SiteEntry, TrainPlan
from synclave_shared.privacy.mechanism import PoissonGaussian
from tests.ledger.story import SITES, START, Story, key_of

VECTORS = Path(__file__).parent / "vectors"
OTHER_KEY = SigningKey.from_seed(b"k" * 32)
KEY_ENDS = "2026-11-21T12:00:00Z"


def make_plan(name: str = "vector") -> TrainPlan:
    """One round, two sites: the shortest ledger with an entry of nearly every kind."""
    return TrainPlan(
        name=name,
        coordinator_key=key_of(COORDINATOR).public_text,
        schema_name="toy",
        schema_digest=sha256_hex(b"schema"),
        privacy=Privacy(noise_multiplier=Decimal("1.5"), selection_rate=Decimal("0.02")),
        federation=Federation(rounds=1, steps_per_round=5, minimum_sites=2),
        sites=tuple(SiteEntry(name=site, public_key=key_of(site).public_text, nominal_patients=2000) for site in SITES),
    )


@dataclass
class Vector:
    """A ledger as a folder of files, and what is to be found in it.

    Attributes:
        about: what was done to it.
        entries: its entries' bytes.
        errors: (code, index of the entry or path of the file or None) of every error that verification must find.
        seen: a checkpoint that a site kept.
        spoil: changes the written files (path -> content).
        root_of: entries whose root the checkpoint states instead.
        witnessed: (site, entries) of each co-signed checkpoint.
        operator: who signs the checkpoint.
    """

    about: str
    entries: list[bytes]
    errors: list[tuple[str, int | str | None]] = field(default_factory=list)
    seen: str = ""
    spoil: Callable[[dict[str, bytes]], None] = lambda files: None
    root_of: list[bytes] | None = None
    witnessed: Sequence[tuple[str, list[bytes]]] | None = None
    operator: SigningKey = field(default_factory=lambda: key_of(COORDINATOR))

    def files(self) -> dict[str, bytes]:
        """Path -> content of every file of the folder ``ledger``."""
        size, tree = len(self.entries), tree_of(self.entries)
        checkpoint = checkpoint_of(self.root_of or self.entries, size)
        found = {
            entries_path(0, size): encode_bundle(self.entries),
            tile_path(0, 0, size): tile_content(tree, 0, 0, size),
            "checkpoint": signed(checkpoint, self.operator).text.encode(),
        }
        for site, entries in self.witnessed if self.witnessed is not None else [(s, self.entries) for s in SITES]:
            shown = checkpoint_of(entries, len(entries))
            path = witness_path(shown.size)
            note = parse_note(found[path].decode()) if path in found else signed(shown, self.operator)
            line = parse_line(cosignature_line(shown, site, key_of(site), START))
            found[path] = Note(checkpoint=shown, signatures=(*note.signatures, line)).text.encode()
        self.spoil(found)
        return found


def tree_of(entries: Sequence[bytes]) -> MerkleTree:
    return MerkleTree(leaf_hash(entry) for entry in entries)


def checkpoint_of(entries: Sequence[bytes], size: int) -> Checkpoint:
    return Checkpoint(origin=f"synclave/{make_plan().digest[:16]}", size=size, root=tree_of(entries).root())


def signed(checkpoint: Checkpoint, key: SigningKey) -> Note:
    return Note(checkpoint=checkpoint, signatures=(sign_checkpoint(checkpoint, key),))


def told(*steps: Callable[[Story], object], epsilon: str = "3", not_after: str = "") -> list[bytes]:
    """The whole training, and what ``steps`` add to it before its end."""
    return [entry.to_bytes() for entry in story(*steps, epsilon=epsilon, not_after=not_after).entries]


def story(*steps: Callable[[Story], object], epsilon: str = "3", not_after: str = "", name: str = "vector") -> Story:
    it = Story(make_plan(name), epsilon=epsilon)
    it.register(COORDINATOR, "coordinator")
    it.propose()
    for site in SITES:
        it.register(site, "site", not_after if site == "berlin" else "")
        it.accept(site)
    it.round(1)
    for step in steps:
        step(it)
    return it


def altered(content: bytes, old: bytes, new: bytes) -> bytes:
    if content.count(old) != 1:
        raise ValueError(f"{old!r} does not stand there once")
    return content.replace(old, new)


def flip(path: str, place: int) -> Callable[[dict[str, bytes]], None]:
    """Change the lowest bit of one byte."""

    def spoil(files: dict[str, bytes]) -> None:
        data = bytearray(files[path])
        data[place] ^= 1
        files[path] = bytes(data)

    return spoil


def vectors() -> Mapping[str, Vector]:
    """Every case by its name."""
    sound = told()
    size = len(sound)
    bundle, tile = entries_path(0, size), tile_path(0, 0, size)
    reserved, released = 6, 7  # of berlin; entry 5 is oslo's acceptance, 8 and 9 are oslo's round
    shorter = sound[:10]
    less_noise = PoissonGaussian(
        noise_multiplier=Decimal(3), clip_norm=Decimal(1), selection_rate=Decimal("0.02"), steps=5
    )
    foreign = story(name="another").entries[reserved]
    other_history = [*sound[:10], Story.snapshot(story(), 1).to_bytes()]
    forged = story()
    forged_entry = forged.entries[reserved].model_copy(update={"time": "2026-11-21T09:00:00Z"})

    def replaced(place: int, content: bytes) -> list[bytes]:
        return [*sound[:place], content, *sound[place + 1 :]]

    def wrong_key(it: Story) -> None:
        it.tell("update-released", "berlin", it.entries[released].body, key=OTHER_KEY)

    def retired(it: Story) -> None:
        it.rotate("berlin", OTHER_KEY)
        it.tell("update-released", "berlin", it.entries[released].body, key=key_of("berlin"))

    def seen_of(entries: list[bytes]) -> str:
        return signed(checkpoint_of(entries, len(entries)), key_of(COORDINATOR)).text

    def no_lines(files: dict[str, bytes]) -> None:
        kept = files[witness_path(size)].decode().splitlines(keepends=True)
        files["checkpoint"] = "".join([*kept[:4], kept[-1]]).encode()

    def remove_tile(files: dict[str, bytes]) -> None:
        del files[tile]

    def cut(files: dict[str, bytes]) -> None:
        files[bundle] = files[bundle][:-100]

    def without(path_entries: list[bytes]) -> Callable[[dict[str, bytes]], None]:
        return lambda files: files.update({bundle: encode_bundle(path_entries)})

    moved = [*sound[:reserved], sound[released], sound[reserved], *sound[released + 1 :]]
    rotated_keys = told(lambda it: it.rotate("berlin", OTHER_KEY), lambda it: it.close(1))
    return {
        "valid": Vector("A sound ledger of one round.", sound),
        "valid-rotated-key": Vector("A site replaced its key; nothing is wrong.", rotated_keys),
        "edited": Vector(
            "A byte of a reservation was changed in the bundle; the tile and the root still cover the original.",
            sound,
            [("entry-altered", reserved), ("previous-missing", released), ("release-unreserved", released)],
            spoil=without(replaced(reserved, altered(sound[reserved], b'"round":1', b'"round":2'))),
        ),
        "edited-and-rehashed": Vector(
            "The operator changed a reservation's time and made tree and checkpoint anew.",
            replaced(reserved, forged_entry.to_bytes()),
            [("previous-missing", released), ("release-unreserved", released), ("signature-invalid", reserved)],
        ),
        "deleted": Vector(
            "A reservation was cut out of the bundle.",
            sound,
            [("bundle-damaged", bundle), *(("entry-altered", place) for place in range(reserved, size - 1))],
            spoil=without([*sound[:reserved], *sound[reserved + 1 :]]),
        ),
        "dropped-site-entry": Vector(
            "The operator left out a reservation and made everything anew.",
            [*sound[:reserved], *sound[reserved + 1 :]],
            [("previous-missing", reserved), ("release-unreserved", reserved)],
        ),
        "reordered": Vector(
            "The operator put a release before its reservation and made everything anew.",
            moved,
            [("previous-missing", reserved), ("release-unreserved", reserved), ("previous-superseded", released)],
        ),
        "duplicated": Vector(
            "The operator put a reservation in twice.", [*sound, sound[reserved]], [("entry-repeated", size)]
        ),
        "truncated": Vector(
            "The ledger of an hour ago; a site kept the checkpoint of a later one.",
            shorter,
            [("history-truncated", None)],
            seen=seen_of(sound),
        ),
        "truncated-bundle": Vector("The end of the bundle is missing.", sound, [("bundle-damaged", bundle)], spoil=cut),
        "rewritten": Vector(
            "A site kept a checkpoint of another history.",
            sound,
            [("history-rewritten", None)],
            seen=seen_of(other_history),
        ),
        "forked": Vector(
            "A site co-signed another history than this one.",
            sound,
            [("fork", witness_path(len(other_history)))],
            witnessed=[("berlin", sound), ("oslo", other_history)],
        ),
        "replayed": Vector(
            "A reservation out of another plan's ledger was put into this one.",
            [*sound, foreign.to_bytes()],
            [("plan-unknown", size), ("previous-missing", size)],
        ),
        "wrong-key": Vector(
            "A release is signed by a key that the site never registered.", told(wrong_key), [("key-unknown", size)]
        ),
        "wrong-operator": Vector(
            "Another key than the coordinator's signed the checkpoints.",
            sound,
            [("checkpoint-signature-invalid", path) for path in ("checkpoint", witness_path(size))],
            operator=OTHER_KEY,
        ),
        "expired-key": Vector(
            "A site went on with a key beyond its last moment.",
            told(not_after=KEY_ENDS),
            [("key-expired", reserved), ("key-expired", released)],
        ),
        "retired-key": Vector(
            "A site's old key signed after it had been replaced.", told(retired), [("key-retired", size + 1)]
        ),
        "rotated-to-an-old-key": Vector(
            "A site replaced its key by the same one.",
            told(lambda it: it.rotate("berlin", key_of("berlin"))),
            [("rotation-wrong", size)],
        ),
        "swapped-roots": Vector(
            "The checkpoint states the root of another ledger.",
            sound,
            [("root-mismatch", "checkpoint")],
            root_of=told(lambda it: it.close(1))[1:],
            witnessed=[],
        ),
        "unsigned": Vector(
            "The coordinator's signature is missing.",
            sound,
            [("checkpoint-unsigned", "checkpoint")],
            spoil=no_lines,
        ),
        "damaged-tile": Vector("A bit of a tile is flipped.", sound, [("tile-damaged", tile)], spoil=flip(tile, 40)),
        "damaged-cosignature": Vector(
            "A bit of a site's co-signature is flipped.",
            sound,
            [("cosignature-invalid", witness_path(size))],
            spoil=flip(witness_path(size), -10),
        ),
        "missing-tile": Vector("A tile is missing.", sound, [("file-missing", tile)], spoil=remove_tile),
        "budget-understated": Vector(
            "A site spent more than the budget it states.",
            told(epsilon="0.01"),
            [("budget-exceeded", reserved), ("budget-exceeded", reserved + 2)],
        ),
        "spend-understated": Vector(
            "A site charges less than the plan does to its patients.",
            told(lambda it: it.reserve("berlin", 1, mechanism=less_noise)),
            [("mechanism-wrong", size), ("reservation-repeated", size)],
        ),
        "unreserved-release": Vector(
            "A site released a round that it had not charged.",
            told(lambda it: it.release("berlin", 0)),
            [("release-unreserved", size)],
        ),
        "samples-of-an-unknown-model": Vector(
            "Synthetic patients were drawn from a model that the ledger does not hold.",
            told(lambda it: it.sample(b"another model")),
            [("snapshot-unknown", size)],
        ),
    }


def proofs() -> dict[str, Any]:
    """Proofs in the sound ledger: every entry's inclusion, and its consistency with every earlier size."""
    tree = tree_of(told())
    return {
        "size": tree.size,
        "root": encode_base64(tree.root()),
        "inclusions": [
            {
                "index": index,
                "leaf_hash": encode_base64(tree.leaf(index)),
                "proof": [encode_base64(node) for node in tree.inclusion_proof(index)],
            }
            for index in range(tree.size)
        ],
        "consistencies": [
            {
                "old_size": size,
                "old_root": encode_base64(tree.root(size)),
                "proof": [encode_base64(node) for node in tree.consistency_proof(size)],
            }
            for size in range(1, tree.size + 1)
        ],
    }


def write_vectors(folder: Path) -> None:
    """Write every case below ``folder``."""
    for name, vector in vectors().items():
        for path, content in vector.files().items():
            target = folder / name / "ledger" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        expected = {"about": vector.about, "errors": [list(error) for error in vector.errors]}
        (folder / name / "expected.json").write_text(_text(expected), encoding="utf-8")
        if vector.seen:
            (folder / name / "seen").write_text(vector.seen, encoding="utf-8")
    (folder / "proofs.json").write_text(_text(proofs()), encoding="utf-8")


def _text(value: object) -> str:
    return json.dumps(value, indent=1) + "\n"


if __name__ == "__main__":
    shutil.rmtree(VECTORS, ignore_errors=True)
    write_vectors(VECTORS)
