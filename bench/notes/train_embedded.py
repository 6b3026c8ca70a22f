"""Train the embedded model of notes on public notes: ``python -m bench.notes.train_embedded --data DIR`` (10 CPU minutes).

Writes shared/synclave_shared/text/data/embedded-lm.safetensors, which every plan with ``base = "embedded"`` of the usual
shape begins with. The notes are the public part of MTSamples (:mod:`bench.notes.parts`) and those of ACI-Bench,
identifiers masked as at a site; everything is seeded, and the same machine gives the same weights.

Few cores and few words: what counts is what a step teaches. An untrained BERT of this size stays at the words'
frequencies for hundreds of steps before it looks at what stands around a gap. So it begins with (a) words as their
surroundings have them, by a singular value decomposition; (b) heads that look one and two places to either side, by
sinusoidal positions turned by that many places; (c) blocks that add nothing yet. Matrices are moved by Muon (Jordan et
al. 2024), everything else by AdamW; at first few words are hidden, in the end every share of them.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy import sparse
from scipy.sparse.linalg import svds
from torch import Tensor
from torch.nn import functional

from bench.notes.corpora import read_jsonl
from bench.notes.parts import parts_of
from synclave_shared.data.notes.dataset import Note, NotesDataset
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models.note_base import build_note_lm, find_base
from synclave_shared.models.note_lm import NoteLm
from synclave_shared.text.chunks import NoteChunks, encode_notes
from synclave_shared.text.masking import masked_text, site_detector
from synclave_shared.text.tokenizer import NoteTokenizer

ROOT: Final = Path(__file__).parents[2]
KEPT: Final = ROOT / ".peers" / "notes-training" / "masked-public.json"
SHIPPED: Final = ROOT / "shared" / "synclave_shared" / "text" / "data" / "embedded-lm.safetensors"

STEPS, ROWS, LENGTHS = 900, 16, (128, 256)
"""Optimiser steps; chunks of 128 tokens of each, half as many of 256 in the last third."""

FEW: Final = (0.05, 0.5)
"""Shares of hidden words in the first two thirds: where nearly all are hidden there is little to learn."""

MUON_RATE, ADAM_RATE, WARM_UP = 0.02, 1.5e-3, 20
ASKED: Final = 64
WORD, PLACE, GAIN = 0.5, 0.1, 0.5
"""Lengths of word and of a place's sine to begin with, and the head's gain."""
NEIGHBOURS: Final = (-3, -2, -1, 1, 2, 3)
OFFSETS: Final = ((-1, 1), (-2, 2))
"""How far the two heads of the first blocks look."""


KINDS: Final = {
    "consult_h_and_p": "consult",
    "discharge_summary": "discharge summary",
    "progress_note": "progress note",
    "emergency": "emergency",
    "operative_or_procedure": "procedure",
    "radiology": "radiology",
}
"""Kinds of notes in the source -> what headings call them; all others are ``other``."""


def public_notes(data: Path) -> list[tuple[str, str, str]]:
    """(type, sex, text without identifiers) of every public note; kept, since masking takes minutes."""
    if KEPT.exists():
        return [tuple(row) for row in json.loads(KEPT.read_text(encoding="utf-8"))]
    rows = {row["sample_id"]: row for row in pq.read_table(data / "mtsamples" / "notes.parquet").to_pylist()}
    parts = parts_of({number: row["transcription"] or "" for number, row in rows.items()})
    texts = [
        (KINDS.get(row["note_type"], "other"), row["transcription"])
        for number, row in sorted(rows.items())
        if parts[number] == "public" and (row["transcription"] or "").strip()
    ]
    texts += [("consult", row["note"]) for row in read_jsonl(data / "dialogue-notes" / "aci_bench.jsonl.gz")]
    detector = site_detector("en")
    found = [(kind, sex_told(text), masked_text(detector, text)) for kind, text in texts]
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    KEPT.write_text(json.dumps(found), encoding="utf-8")
    return found


def sex_told(text: str) -> str:
    """What the pronouns say of the patient."""
    words = Counter(re.findall(r"[a-z]+", text.lower()))
    she, he = words["she"] + words["her"] + words["female"], words["he"] + words["his"] + words["male"]
    return "female" if she > he else "male" if he > she else "not told"


def chunks_of(notes: list[tuple[str, str, str]], tokens: int, tokenizer: NoteTokenizer) -> NoteChunks:
    """All chunks of the notes, headings as the example's schema has them."""
    schema = NotesSchema.load(ROOT / "examples" / "notes" / "schema.toml")
    schema = schema.model_copy(update={"notes": schema.notes.model_copy(update={"tokens": tokens, "chunks": 256})})
    dataset = NotesDataset(
        notes=tuple((Note(text=text, type=kind),) for kind, _, text in notes),
        identifiers=((),) * len(notes),
        labels=np.array([schema.label.values.index(sex) for _, sex, _ in notes], dtype=np.int64),
        patient_ids=[str(number) for number in range(len(notes))],
    )
    return encode_notes(dataset, schema, tokenizer)


def word_vectors(chunks: NoteChunks, tokenizer: NoteTokenizer, width: int) -> NDArray[np.float32]:
    """Tokens by the company they keep, [V, width], of mean length 1.

    Positive pointwise mutual information with the tokens at each of some places around (Levy and Goldberg 2014), rare
    pairs shrunk, and its leading singular vectors.
    """
    ids = chunks.ids.astype(np.int64)
    text = ids >= 4  # neither padding nor the other special tokens
    counts = np.bincount(ids[text], minlength=tokenizer.size).astype(float)
    smooth = counts**0.75 / (counts**0.75).sum()
    blocks = []
    for offset in NEIGHBOURS:
        first, second = (
            ids[:, max(0, -offset) : len(ids[0]) - max(0, offset)],
            ids[:, max(0, offset) :][:, : len(ids[0]) - abs(offset)],
        )
        both = (first >= 4) & (second >= 4)
        pairs = sparse.coo_matrix((np.ones(both.sum()), (first[both], second[both])), shape=(tokenizer.size,) * 2)
        pairs = pairs.tocsr().tocoo()
        lift = pairs.data / pairs.data.sum() / (counts[pairs.row] / counts.sum() * smooth[pairs.col])
        value = np.maximum(np.log(lift), 0) * pairs.data / (pairs.data + 1) / abs(offset) ** 0.5
        blocks.append(sparse.csr_matrix((value, (pairs.row, pairs.col)), shape=pairs.shape))
    left, values, _ = svds(sparse.hstack(blocks).tocsr(), k=width, random_state=0)
    vectors = left * np.sqrt(values)
    vectors -= vectors.mean(axis=0)
    lengths = np.linalg.norm(vectors, axis=1)
    # Turned at random, so that both heads see a share of every direction.
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((width, width)))[0]
    # Of nearly one length, so that places are seen beside frequent words; shorter where little is known.
    vectors /= lengths[:, None] + 0.3 * lengths.mean()
    found: NDArray[np.float32] = (vectors @ turn).astype(np.float32)
    return found


@torch.no_grad()
def prepare(network: NoteLm, vectors: NDArray[np.float32], counts: NDArray[np.float64]) -> None:
    """Weights to begin with; see the module."""
    model: Any = network.reader.model
    width = model.config.hidden_size
    generator = torch.Generator().manual_seed(0)

    def orthogonal() -> Tensor:
        return torch.linalg.qr(torch.randn(width, width, generator=generator))[0]

    for name, parameter in model.named_parameters():
        # Nothing is left of the weights that the file being rewritten may have had.
        if parameter.ndim == 1 or "token_type" in name:
            parameter.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
        elif "embeddings" not in name:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[1] ** 0.5)
    words = model.bert.embeddings.word_embeddings.weight
    words.copy_(WORD * torch.from_numpy(vectors) + 0.01 * torch.randn(words.shape, generator=generator))
    model.cls.predictions.bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
    model.cls.predictions.transform.LayerNorm.weight.fill_(GAIN)

    turns = torch.empty(width // 2).uniform_(0.05, math.pi, generator=generator)
    places = model.bert.embeddings.position_embeddings.weight
    angles = torch.arange(len(places))[:, None] * turns
    places[:, 0::2], places[:, 1::2] = PLACE * angles.cos(), PLACE * angles.sin()
    for number, block in enumerate(model.bert.encoder.layer):
        block.output.dense.weight.zero_()
        if number >= len(OFFSETS):
            block.attention.output.dense.weight.zero_()
            continue
        own = block.attention.self
        own.value.weight.copy_(orthogonal())
        block.attention.output.dense.weight.copy_(orthogonal())
        # The second block sees places through what the first has added.
        sharp = (1.2, 1.8)[number]
        own.query.weight.copy_(sharp * torch.eye(width))
        # The key of place i + offset is turned to look like the query of place i.
        offsets = torch.tensor(OFFSETS[number]).repeat_interleave(width // 4)
        cosine, sine = sharp * (turns * offsets).cos(), sharp * (turns * offsets).sin()
        own.key.weight.zero_()
        even = torch.arange(0, width, 2)
        own.key.weight[even, even], own.key.weight[even + 1, even + 1] = cosine, cosine
        own.key.weight[even, even + 1], own.key.weight[even + 1, even] = sine, -sine


def loss_of(
    network: NoteLm,
    chunks: NoteChunks,
    rows: NDArray[np.int64],
    shares: NDArray[np.float64],
    mask: int,
    rng: np.random.Generator,
) -> Tensor:
    """Mean over chunks of the mean nats of hidden words, of which at most so many are asked for."""
    ids = chunks.ids[rows].astype(np.int64)
    at: list[NDArray[np.int64]] = []
    for place, (row, share) in enumerate(zip(rows, shares, strict=True)):
        chosen = rng.permutation(np.flatnonzero(chunks.predictable[row]))
        chosen = chosen[: math.ceil(share * len(chosen))]
        ids[place, chosen] = mask
        at.append(chosen[:ASKED])
    places = np.repeat(np.arange(len(rows)), [len(one) for one in at])
    where = np.concatenate(at)
    seen = torch.from_numpy(ids != 0)
    model: Any = network.reader.model
    # Only places that are asked for, without the padding that private training needs.
    hidden = model.bert(
        input_ids=torch.from_numpy(ids), attention_mask=seen[:, None, None, :].expand(-1, 1, ids.shape[1], -1)
    ).last_hidden_state[torch.from_numpy(places), torch.from_numpy(where)]
    targets = torch.from_numpy(chunks.ids[rows[places], where].astype(np.int64))
    nats = functional.cross_entropy(model.cls(hidden), targets, reduction="none")
    each = torch.from_numpy(1.0 / np.array([len(one) for one in at])[places] / len(rows))
    return (nats * each.float()).sum()


def rows_of(chunks: NoteChunks, rng: np.random.Generator) -> Iterator[int]:
    """Every chunk of more than a few words once, in an order of chance; then again."""
    able = np.flatnonzero(chunks.predictable.sum(axis=1) >= 8)
    while True:
        yield from rng.permutation(able).tolist()


def factor(step: int, steps: int) -> float:
    """On the learning rates: a warm-up and a cosine."""
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def train(network: NoteLm, sets: list[NoteChunks], mask: int, steps: int, report: Any) -> None:
    """In the end the network has the mean of its last weights."""
    rng = np.random.default_rng(0)
    matrices = [p for name, p in network.named_parameters() if p.ndim == 2 and "embeddings" not in name]
    chosen = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in network.parameters() if id(parameter) not in chosen]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.01),
        torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.99), weight_decay=0.01),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(one, lambda step: factor(step, steps)) for one in optimisers]
    mean = [parameter.detach().clone() for parameter in network.parameters()]
    orders = [rows_of(chunks, rng) for chunks in sets]
    for step in range(steps):
        late = step >= 2 * steps // 3
        longer = late and step % 2 == 1
        chunks, order, count = sets[longer], orders[longer], ROWS // (2 if longer else 1)
        rows = np.array([next(order) for _ in range(count)])
        least, most = (0.02, 1.0) if late else FEW
        # One share from each of as many equal parts of the range.
        shares = least + (most - least) * (rng.permutation(count) + rng.random(count)) / count
        loss = loss_of(network, chunks, rows, shares, mask, rng)
        network.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for one, schedule in zip(optimisers, schedules, strict=True):
            one.step()
            schedule.step()
        with torch.no_grad():
            for average, parameter in zip(mean, network.parameters(), strict=True):
                average.lerp_(parameter, 1 - min(0.98, (1 + step) / (10 + step)))
        report(step + 1, float(loss.detach()))
    with torch.no_grad():
        for average, parameter in zip(mean, network.parameters(), strict=True):
            parameter.copy_(average)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public sets; docs/notes.md")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    base = find_base(NotesSpec())
    notes = public_notes(arguments.data)
    sets = [chunks_of(notes, tokens, base.tokenizer) for tokens in LENGTHS]
    network = build_note_lm(NotesSpec(), base)
    counts = np.bincount(sets[0].ids[sets[0].predictable], minlength=base.tokenizer.size) + 0.5
    prepare(network, word_vectors(sets[0], base.tokenizer, network.reader.model.config.hidden_size), counts)
    begun, recent = time.process_time(), []

    def report(step: int, loss: float) -> None:
        recent.append(loss)
        if step % 50 == 0:
            print(f"step {step}: {np.mean(recent):.3f} nats, {time.process_time() - begun:.0f} CPU s", flush=True)
            recent.clear()
        if step % 200 == 0:
            write(network, arguments.out.with_suffix(".partial"))

    train(network, sets, base.tokenizer.mask, arguments.steps, report)
    write(network, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size} bytes, {time.process_time() - begun:.0f} CPU s")


def write(network: NoteLm, path: Path) -> None:
    """The weights in half precision; the head's are the words' own."""
    save_file(
        {name: value.detach().half().contiguous() for name, value in network.reader.model.named_parameters()}, path
    )


if __name__ == "__main__":
    main()
