"""Learn the embedded vocabulary of notes, and build examples/notes, from a folder with the public data sets.

    python examples/make_notes.py --source FOLDER [--only vocabulary|example]

FOLDER holds ``mtsamples/`` and ``phi-injected-notes/`` (CC0; see ``examples/notes/ATTRIBUTION.md``). Everything is
deterministic: the same source gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import lzma
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from synclave_shared.text.slots import SLOTS
from synclave_shared.text.tokenizer import SPECIALS

HERE: Final = Path(__file__).resolve().parent
MERGES: Final = HERE.parent / "shared" / "synclave_shared" / "text" / "data" / "merges.txt.xz"

VOCABULARY: Final = 8192
"""Tokens of the embedded vocabulary, special ones and slots included."""


def learn_vocabulary(source: Path) -> None:
    """Byte pairs of the public notes, those that occur at least four times."""
    rows = pq.read_table(source / "mtsamples" / "notes.parquet", columns=["sample_id", "transcription"]).to_pylist()
    texts = [row["transcription"] for row in sorted(rows, key=lambda row: row["sample_id"]) if row["transcription"]]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIALS) - len(SLOTS),
        min_frequency=4,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    merges = json.loads(backend.to_str())["model"]["merges"]
    content = "".join(f"{first} {second}\n" for first, second in merges)
    MERGES.write_bytes(lzma.compress(content.encode("utf-8"), preset=9 | lzma.PRESET_EXTREME))
    print(f"{MERGES}: {len(merges)} merges, {MERGES.stat().st_size} bytes")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--only", choices=["vocabulary", "example"])
    options = parser.parse_args()
    if options.only != "example":
        learn_vocabulary(options.source)


if __name__ == "__main__":
    main()
