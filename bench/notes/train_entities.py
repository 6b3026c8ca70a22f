"""Trains the clinical entity tagger that ships, and builds its term lists: ``python -m bench.notes.train_entities --data DIR``.

``--terms`` writes the lists only. Public sets only, so without differential privacy.
"""

from __future__ import annotations

import argparse
import collections
import re
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors.torch import save_file

from bench.notes.make_lexicons import OUT, write
from bench.notes.ner_corpora import ner_notes
from bench.notes.train_tagger import CHUNK, train
from synclave_shared.text.entities import ENTITY_TAGS
from synclave_shared.text.features import token_features
from synclave_shared.text.phi.lexicon import word_list
from synclave_shared.text.phi.locales import locale_for
from synclave_shared.text.phi.words import lexicon_of, split_words
from synclave_shared.text.tagger import NO_TAG

TAG = {kind.value: place for place, kind in enumerate(ENTITY_TAGS) if kind is not None}


def write_terms(data: Path) -> None:
    """Terms that the train parts annotate more often than not, and the groups of the code tables."""
    counted: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    texts = []
    for _, _, note in ner_notes(test=False, data=data):
        texts.append(" ".join(word.key for word in split_words(note.text)))
        for gold in note.gold:
            words = split_words(note.text[gold.start : gold.end])
            term = " ".join(word.key for word in words)
            if 1 <= len(words) <= 6 and len(term) > 2 and gold.label in ("problem", "drug", "test", "treatment"):
                counted[term][gold.label] += 1
    seen = collections.Counter(word for text in texts for word in text.split())
    lists: dict[str, set[str]] = {kind: set() for kind in ("problem", "drug", "test", "treatment")}
    for term, kinds in counted.items():
        kind, count = kinds.most_common(1)[0]
        # A word that is mostly not annotated ("mass", "control") is no term by itself.
        if " " in term or count >= 0.6 * seen[term]:
            lists[kind].add(term)
    groups = pq.read_table(data / "code-tables/ccs_icd9_2015.parquet", columns=["ccs_name"])["ccs_name"].to_pylist()
    titles = pq.read_table(data / "code-tables/icd10cm_2021.parquet", columns=["long"])["long"].to_pylist()
    for title in [*groups, *titles]:
        term = " ".join(word.key for word in split_words(re.split(r"[,;(\[]", title or "")[0]))
        if 1 < len(term.split()) <= 3 and not re.search(
            r"\b(?:of|with|without|unspecified|other|due|to|and|in|by|for)\b|\d", term
        ):
            lists["problem"].add(term)
    for kind, terms in lists.items():
        write(f"terms-{kind}", {term for term in terms if len(term) < 60})


@cache
def _words_of_other_kinds(kinds: frozenset[str]) -> frozenset[str]:
    lists = {"problem", "drug", "test", "treatment"} - kinds
    words = {word for kind in lists for term in word_list(f"terms-{kind}") for word in term.split()}
    return frozenset(word for word in words if len(word) > 3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True, help="folder of public packs, docs/notes.md")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--terms", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT / "entity-tagger.safetensors")
    options = parser.parse_args()
    if options.terms:
        write_terms(options.data)
        return
    locale = locale_for("en")
    rows = []
    for _, kinds, note in ner_notes(test=False, data=options.data):
        features = token_features(note.text, locale, lexicon_of(locale))
        # What a set does not annotate is unknown there, not absent.
        of_letter = np.zeros(len(note.text) + 1, np.int64)
        if len(kinds) < len(TAG):
            others = _words_of_other_kinds(kinds)
            for word in split_words(note.text):
                if word.key in others:
                    of_letter[word.start : word.end] = NO_TAG
            for number in re.finditer(r"\d+", note.text):
                of_letter[number.start() : number.end()] = NO_TAG
        for gold in note.gold:
            of_letter[gold.start : gold.end] = TAG[gold.label]
        tags = of_letter[features.spans[:, 0]]
        for start in range(0, len(tags), CHUNK):
            part = slice(start, start + CHUNK)
            rows.append((features.numbers[part], features.flags[part], tags[part]))
    print(f"{len(rows)} chunks", flush=True)
    network = train(rows, seed=options.seed, epochs=options.epochs, tags=len(ENTITY_TAGS), drop=0.05)
    save_file({name: array.half().contiguous() for name, array in network.state_dict().items()}, options.out)
    print(f"{options.out}: {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
