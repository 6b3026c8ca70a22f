"""Count which token follows which in public notes: ``python -m bench.notes.make_neighbours --data DIR``.

Writes shared/synclave_shared/text/data/neighbours.bin.xz. The notes are the public part of MTSamples
(:mod:`bench.notes.parts`), identifiers masked as at a site: none of the notes that benchmarks take for patients.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq

from bench.notes.parts import parts_of
from synclave_shared.text.masking import masked_text, site_detector
from synclave_shared.text.neighbours import PAIRS_FILE, pack_pairs
from synclave_shared.text.tokenizer import embedded_tokenizer

KEPT: Final = Path(__file__).parents[2] / ".peers" / "notes-writing" / "public.json"
FEWEST: Final = 2
"""Occurrences of a pair that counts."""


def public_texts(data: Path) -> list[str]:
    """The public notes without identifiers; kept, since masking takes minutes."""
    if KEPT.exists():
        kept: list[str] = json.loads(KEPT.read_text(encoding="utf-8"))
        return kept
    rows = pq.read_table(data / "mtsamples" / "notes.parquet").to_pylist()
    texts = {row["sample_id"]: row["transcription"] or "" for row in rows}
    parts, detector = parts_of(texts), site_detector("en")
    found = [masked_text(detector, texts[number]) for number in sorted(texts) if parts[number] == "public"]
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    KEPT.write_text(json.dumps(found), encoding="utf-8")
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public sets; docs/notes.md")
    tokenizer = embedded_tokenizer()
    texts = [tokenizer.encode(text).ids for text in public_texts(parser.parse_args().data)]
    content = pack_pairs([ids for ids in texts if len(ids) > 1], FEWEST)
    PAIRS_FILE.write_bytes(content)
    print(f"{PAIRS_FILE}: {len(content)} bytes from {len(texts)} notes of {sum(map(len, texts))} tokens")


if __name__ == "__main__":
    main()
