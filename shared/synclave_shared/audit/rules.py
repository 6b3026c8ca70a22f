"""The rules of a ledger in plain words: what is checked, how often it was, and what to do when it does not hold.

The codes are those of docs/ledger-format.md, each in exactly one rule (a test compares the two).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from synclave_shared.audit.ledgers import Ledgers
from synclave_shared.audit.reading import Reading
from synclave_shared.ledger.entry import BODIES
from synclave_shared.ledger.tiles import tile_positions

__all__ = ["RULES", "Rule", "remedy_of", "rule_of"]


ENTRIES: Final = "entries"
"""What a rule counts that every entry is held to."""

OF_PLANS: Final = tuple(kind for kind in BODIES if not kind.startswith("key-"))
"""Kinds of entries that belong to a plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        title: what must hold.
        how: how that is checked.
        codes: findings that say it does not hold.
        of: what is counted, say ``entries``.
        count: how many of these there are.
        remedy: what to do about such a finding.
        kinds: kinds of entries that it concerns; empty for a rule about every entry or about files.
    """

    title: str
    how: str
    codes: tuple[str, ...]
    of: str
    count: Callable[[Ledgers], int]
    remedy: str
    kinds: tuple[str, ...] = ()

    def concerns(self, kind: str) -> bool:
        """Whether entries of a kind are held to it."""
        return kind in self.kinds if self.kinds else self.of == ENTRIES


def _each(count: Callable[[Reading], int]) -> Callable[[Ledgers], int]:
    """What is counted in each ledger, over all of them."""
    return lambda ledgers: sum(map(count, ledgers.readings))


def _of(*kinds: str) -> Callable[[Ledgers], int]:
    return _each(lambda reading: sum(reading.counted(kind) for kind in kinds))


def _cosigned(reading: Reading) -> int:
    return sum(site.witnessed_size is not None for site in reading.report.sites.values())


_size: Final = _each(lambda reading: reading.report.size)
_files: Final = _each(lambda reading: 1 + sum(1 + (level == 0) for level, _, _ in tile_positions(reading.report.size)))
_cosigning: Final = _each(_cosigned)
_spending: Final = _each(lambda reading: len({site for site, _ in reading.replay.spends}))
_of_plans: Final = _of(*OF_PLANS)


def _data_sets(ledgers: Ledgers) -> int:
    return len(ledgers.histories)


def _shared_data_sets(ledgers: Ledgers) -> int:
    return sum(len(history.ledgers) > 1 for history in ledgers.histories)


def _shared_sites(ledgers: Ledgers) -> int:
    names = [name for reading in ledgers.readings for name in reading.sites()]
    return sum(names.count(name) > 1 for name in set(names))


AGAIN: Final = "Ask the coordinator and every site for their copy, and run `synclave-audit compare` on each pair."
ASK_SITE: Final = (
    "Ask the site for what its own journal holds (`synclave-site budget`); until it explains, count the spend."
)
ASK_COORDINATOR: Final = "Ask the coordinator; until it explains, do not rely on models of this plan."

RULES: Final = (
    Rule(
        title="Every file that the checkpoint needs is there and can be read",
        how="Names and sizes follow from the number of entries; each file is read with a limit.",
        codes=("file-missing", "file-unreadable", "file-too-large", "file-unexpected"),
        of="files",
        count=_files,
        remedy="Copy the ledger again. A file too many is harmless to the verdict; find out who put it there.",
    ),
    Rule(
        title="The coordinator signed this state of the ledger",
        how="Ed25519 over origin, number of entries and Merkle root, with the key of the coordinator.",
        codes=("checkpoint-malformed", "checkpoint-unsigned", "checkpoint-signature-invalid"),
        of="checkpoints",
        count=_each(lambda reading: 1 + _cosigned(reading)),
        remedy=AGAIN,
    ),
    Rule(
        title="No entry was changed, moved, added or taken out under the signed state",
        how="Every entry is hashed (RFC 9162) and compared with its tile; the tree's root with the signed one.",
        codes=("bundle-damaged", "entry-altered", "tile-damaged", "root-mismatch"),
        of=ENTRIES,
        count=_size,
        remedy=AGAIN,
    ),
    Rule(
        title="Sites that co-signed saw this same history, and no second one of it was given",
        how="Each co-signed checkpoint must be how this ledger begins, and its signature that of the registered site;"
        " of two ledgers of one origin, one must continue the other.",
        codes=("cosignature-invalid", "fork"),
        of="co-signing sites",
        count=_cosigning,
        remedy="Two histories were shown, or a signature was invented. Keep the files, they prove it; tell every site.",
    ),
    Rule(
        title="Every site that spent co-signed a state of this ledger",
        how="Who reserved anything must have a valid co-signature in the checkpoint or beside it.",
        codes=("unwitnessed",),
        of="spending sites",
        count=_spending,
        remedy="Ask that site for the checkpoint it kept (`synclave-site checkpoint`) and give it with --seen.",
    ),
    Rule(
        title="The ledger extends every checkpoint that you were given",
        how="Same origin and coordinator, not longer than the ledger, and its root that of the ledger's front part.",
        codes=("seen-foreign", "history-truncated", "history-rewritten"),
        of="checkpoints that you gave (--seen)",
        count=_each(lambda reading: reading.seen),
        remedy="A longer or another history exists. Keep the note and the ledger, they prove it; tell every site.",
    ),
    Rule(
        title="Every entry is signed by the one who acted",
        how="Ed25519 over the canonical JSON of the entry, which must be the only form of it.",
        codes=("entry-malformed", "signature-invalid"),
        of=ENTRIES,
        count=_size,
        remedy="The entry counts for nothing. Ask the coordinator how it came into the ledger.",
    ),
    Rule(
        title="It is the ledger of the coordinator and the sites that you know",
        how="Keys given with --coordinator-key and --site-key are compared with those registered.",
        codes=("coordinator-unknown", "coordinator-unexpected", "origin-wrong", "site-key-unexpected"),
        of="keys that you gave",
        count=_each(lambda reading: len(reading.pinned)),
        remedy="Compare the keys once more, over another channel. If they differ, this is somebody else's ledger.",
    ),
    Rule(
        title="One key at a time for one name, registered before it signs, and only in its role",
        how="Registrations and replacements are replayed in order; each entry's key must be its actor's at that place.",
        codes=(
            "registration-wrong",
            "key-conflict",
            "key-unknown",
            "role-wrong",
            "rotation-wrong",
            "key-retired",
            "key-expired",
        ),
        of=ENTRIES,
        count=_size,
        remedy="Ask the party that the entry names whether it signed it.",
    ),
    Rule(
        title="Nothing that anybody said was left out, moved or repeated",
        how="Each entry names the hash of its actor's entry before it: the chain must hold.",
        codes=("previous-missing", "previous-superseded", "entry-repeated"),
        of=ENTRIES,
        count=_size,
        remedy="Ask the party that the entry names for its receipts and its own copy of the ledger: they show what is"
        " missing.",
    ),
    Rule(
        title="Every plan is signed by the coordinator, and every entry belongs to a plan that names its actor",
        how="The plan's digest is recomputed, its signature verified, the roster looked up.",
        codes=(
            "plan-malformed",
            "plan-digest-wrong",
            "plan-signature-wrong",
            "plan-unknown",
            "plan-repeated",
            "run-wrong",
            "not-in-roster",
        ),
        of="entries of plans",
        count=_of_plans,
        remedy=ASK_COORDINATOR,
        kinds=OF_PLANS,
    ),
    Rule(
        title="A site accepted exactly the mechanisms of the plan, once, at no larger a delta",
        how="The mechanisms in the acceptance are compared with those that follow from the plan.",
        codes=("planned-wrong", "acceptance-repeated", "delta-above-plan"),
        of="acceptances and changes of budgets",
        count=_of("plan-accepted", "budget-changed"),
        remedy=ASK_SITE,
        kinds=("plan-accepted", "budget-changed"),
    ),
    Rule(
        title="Each spend is the plan's mechanism for its round, after acceptance, once",
        how="Data set, delta and mechanism of each reservation are compared with acceptance and plan.",
        codes=(
            "not-accepted",
            "dataset-wrong",
            "delta-wrong",
            "mechanism-wrong",
            "round-wrong",
            "reservation-repeated",
            "spend-after-close",
        ),
        of="reservations",
        count=_of("spend-reserved"),
        remedy=ASK_SITE,
        kinds=("spend-reserved",),
    ),
    Rule(
        title="Nothing left a site before it was charged, and nothing twice",
        how="Each release must have a reservation of the same site, plan and round before it.",
        codes=("release-unreserved", "release-repeated"),
        of="releases",
        count=_of("update-released"),
        remedy=ASK_SITE,
        kinds=("update-released",),
    ),
    Rule(
        title="The coordinator combined what was released, from enough sites",
        how="Each site counted in a round must have released in it; models follow combined rounds, samples models.",
        codes=(
            "aggregate-unreleased",
            "aggregate-sites-wrong",
            "cohort-too-small",
            "aggregate-repeated",
            "snapshot-early",
            "snapshot-unknown",
            "close-wrong",
            "close-repeated",
        ),
        of="aggregates, models, samples and ends",
        count=_of("aggregate", "snapshot", "samples-released", "run-closed"),
        remedy=ASK_COORDINATOR,
        kinds=("aggregate", "snapshot", "samples-released", "run-closed"),
    ),
    Rule(
        title="No site's cumulative epsilon was above the budget that held when it spent",
        how="All reservations of a data set up to each point, in each ledger and in all of them together, are composed"
        " at the budget's delta and compared exactly.",
        codes=("budget-exceeded",),
        of="data sets",
        count=_data_sets,
        remedy="The site's steward decides: raise the budget knowingly, or stop. What was spent cannot be taken back.",
        kinds=("spend-reserved", "budget-changed"),
    ),
    Rule(
        title="Ledgers that charge one data set state one budget for it",
        how="The budgets that a site stated last, in each of the ledgers, are compared.",
        codes=("budgets-differ",),
        of="data sets in several ledgers",
        count=_shared_data_sets,
        remedy="Honest if the steward changed the budget and one of the ledgers had ended. Ask the site which one holds"
        " (`synclave-site budget`).",
        kinds=("plan-accepted", "budget-changed"),
    ),
    Rule(
        title="A site of several ledgers is one site by its key",
        how="The same name counts as one site if the ledgers, or the keys that you gave, link its keys.",
        codes=("site-key-differs",),
        of="names in several ledgers",
        count=_shared_sites,
        remedy="Ask the hospital whether both keys are its own, and give both with --site-key. Until then their spends"
        " are counted apart, so epsilon may be larger than shown.",
        kinds=("key-registered",),
    ),
    Rule(
        title="Independent accountants agree on every epsilon",
        how="Loss distributions against Rényi divergences and, where Opacus is installed, its PRV accountant; they may"
        " differ by 0.005 and 0.3 %, and the rounding of losses.",
        codes=("accountants-disagree", "accountants-skipped"),
        of="data sets",
        count=_data_sets,
        remedy="One of the accountants is wrong. Take the largest of the three until it is known which; report it to"
        " us.",
    ),
)
"""All rules, in the order in which a ledger is read."""

_BY_CODE: Final = {code: rule for rule in RULES for code in rule.codes}


def rule_of(code: str) -> Rule | None:
    """The rule that a finding is about; None for a code that no rule of this version knows."""
    return _BY_CODE.get(code)


OF_RECEIPTS: Final = frozenset({"receipt-malformed", "inclusion-invalid"})
"""Findings about a receipt alone."""


def remedy_of(code: str) -> str:
    """What to do about a finding."""
    if code in OF_RECEIPTS:
        return "This receipt proves nothing. Ask the site for it again (`synclave-site receipts`)."
    rule = rule_of(code)
    return rule.remedy if rule else "See docs/ledger-format.md."
