"""How well clinical mentions are found: ``python -m bench.notes.entities --data DIR``; prints F1 by set and kind.

Test: the sets' devel parts and every fifth MACCROBAT report; only the kinds that a set annotates are scored. ``exact``
asks for the boundaries and the kind, ``touch`` for an overlap of the same kind.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from pathlib import Path

from bench.notes.ner_corpora import ner_notes
from synclave_shared.text.entities import EntityFinder, shipped_entity_network


def f1(counts: Counter[str]) -> float:
    """Of true, found and gold counts."""
    return 2 * counts["true"] / max(1, counts["found"] + counts["gold"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder of public packs, docs/notes.md")
    parser.add_argument("--limit", type=int, default=10**6, help="notes of each set")
    options = parser.parse_args()
    finders = {"patterns and lists": EntityFinder(), "+ tagger": EntityFinder(network=shipped_entity_network())}
    for name, finder in finders.items():
        exact: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        touch: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        seen: Counter[str] = Counter()
        for corpus, kinds, note in ner_notes(test=True, data=options.data):
            seen[corpus] += 1
            if seen[corpus] > options.limit:
                continue
            found = [(e.start, e.end, e.kind.value) for e in finder.find(note.text) if e.kind.value in kinds]
            gold = [(g.start, g.end, g.label) for g in note.gold]
            for kind in kinds:
                ours = [one for one in found if one[2] == kind]
                theirs = [one for one in gold if one[2] == kind]
                exact[corpus, kind].update(true=len(set(ours) & set(theirs)), found=len(ours), gold=len(theirs))
                met = sum(any(a < d and c < b for a, b, _ in ours) for c, d, _ in theirs)
                right = sum(any(a < d and c < b for c, d, _ in theirs) for a, b, _ in ours)
                touch[corpus, kind].update(true=(met + right) // 2, found=len(ours), gold=len(theirs))
        for key in sorted(exact):
            print(
                f"{name:20} {key[0]:14} {key[1]:10} exact {f1(exact[key]):.3f}  touch {f1(touch[key]):.3f}", flush=True
            )


if __name__ == "__main__":
    main()
