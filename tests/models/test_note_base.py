"""Bases of the model of notes: embedded and from folders, whole and adapted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synclave_shared.errors import PlanError
from synclave_shared.model_spec import NotesSpec
from synclave_shared.models import note_base
from synclave_shared.models.note_base import build_note_lm, find_base, look_up_base
from synclave_shared.models.note_lm import NoteLm
from synclave_shared.models.parameters import load_parameter_vector, parameter_vector
from synclave_shared.text.tokenizer import embedded_tokenizer


def published(folder: Path, kind: str) -> Path:
    """A folder as ``save_pretrained`` leaves it: untrained weights, a vocabulary of its own."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    backend: Any
    if kind == "Bert":
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz[].:-"]
        words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] + ["chest", "pain"]
        model: Any = models.WordPiece(vocab={word: number for number, word in enumerate(words)}, unk_token="[UNK]")
        backend = Tokenizer(model)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    else:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        trainer = trainers.BpeTrainer(
            vocab_size=300, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
        backend.train_from_iterator(["chest pain and fever, chest pain"] * 9, trainer)
        words = list(range(backend.get_vocab_size()))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    sizes: dict[str, Any] = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 80,
        "pad_token_id": 0,
    }
    if kind == "ModernBert":
        sizes |= {"local_attention": 4, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    torch.manual_seed(1)
    model = getattr(transformers, f"{kind}ForMaskedLM")(getattr(transformers, f"{kind}Config")(**sizes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_the_embedded_network_is_the_same_everywhere_and_disturbs_nobody() -> None:
    spec, base = look_up_base(NotesSpec(), Path())
    torch.manual_seed(7)
    first = parameter_vector(build_note_lm(spec, base))
    after = torch.rand(1)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(1), after)
    assert np.array_equal(first, parameter_vector(build_note_lm(spec, find_base(spec))))
    assert spec.parameter_count() == first.size < 3_000_000
    assert base.tokenizer is embedded_tokenizer()
    with pytest.raises(PlanError, match="looked up"):
        NotesSpec().parameter_count()
    with pytest.raises(PlanError, match="digest"):
        find_base(spec.model_copy(update={"width": 64}))


def test_the_embedded_network_of_the_usual_shape_knows_public_notes() -> None:
    """Where a word is hidden, its surroundings say more than how often words occur; an untrained one says nothing."""
    encoded = embedded_tokenizer().encode("The patient was taken to the operating room, draped in the usual way.")
    ids = torch.tensor([[1, 2, *encoded.ids, 2]])
    nats = {}
    for spec in (NotesSpec(), NotesSpec(blocks=3)):
        network, found = build_note_lm(spec, find_base(spec)).eval(), []
        for place in range(2, ids.shape[1] - 1):
            hidden = ids.clone()
            hidden[0, place] = embedded_tokenizer().mask
            with torch.no_grad():
                logits = network(hidden, torch.ones_like(ids, dtype=torch.bool), torch.tensor([[place]]))
            found.append(-float(logits[0, 0].log_softmax(0)[ids[0, place]]))
        nats[spec.blocks] = float(np.mean(found))
    assert nats[3] == pytest.approx(np.log(8192), rel=0.05)
    assert nats[4] < 5.5


def test_other_weights_are_another_base(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _ = look_up_base(NotesSpec(), Path())
    other = note_base._pretrained() + b" "
    monkeypatch.setattr(note_base, "_pretrained", lambda: other)
    with pytest.raises(PlanError, match="digest"):
        find_base(spec)
    # Those of another shape have no weights that come with Synclave.
    small, _ = look_up_base(NotesSpec(width=64, blocks=1), Path())
    assert find_base(small)


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "ModernBert"])
def test_a_row_is_what_the_library_makes_of_it_and_knows_nothing_of_the_others(tmp_path: Path, kind: str) -> None:
    spec, base = look_up_base(NotesSpec(base="lm"), published(tmp_path / "lm", kind).parent)
    network = build_note_lm(spec, base).eval()
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 60, (3, 24), generator=generator)
    seen = torch.arange(24) < torch.tensor([[24], [17], [1]])
    ids = torch.where(seen, ids, base.tokenizer.pad)
    positions = torch.tensor([[1, 5, 16], [0, 7, 16], [0, 0, 0]])
    with torch.no_grad():
        found = network(ids, seen, positions)
        model: Any = network.reader.model
        expected = model(input_ids=ids, attention_mask=seen.long()).logits
        expected = expected.gather(1, positions[..., None].expand(-1, -1, expected.shape[-1]))
        np.testing.assert_allclose(found, expected, atol=2e-5)
        # Alone among full rows, where the library would leave the mask out, the first row is the same to the bit.
        full = network(ids[[0, 0, 0]], seen[[0, 0, 0]], positions[[0, 0, 0]])
        assert torch.equal(full[0], found[0])


@pytest.mark.parametrize("kind", ["Bert", "ModernBert"])
def test_of_adapters_one_factor_travels_and_the_other_is_public(tmp_path: Path, kind: str) -> None:
    folder = published(tmp_path / "lm", kind)
    spec, base = look_up_base(NotesSpec(base="lm", adapter_rank=2), tmp_path)
    networks = [build_note_lm(spec, base) for _ in range(2)]
    trained = [name for name, value in networks[0].named_parameters() if value.requires_grad]
    assert trained
    assert all("lora_B" in name for name in trained)
    vector = parameter_vector(networks[0])
    assert vector.size == spec.parameter_count()
    assert not vector.any()
    everything: list[dict[str, Any]] = [network.state_dict() for network in networks]
    assert all(torch.equal(value, everything[1][name]) for name, value in everything[0].items())
    before = networks[0](*_inputs())
    assert torch.allclose(before, build_note_lm(spec.model_copy(update={"adapter_rank": 0}), base)(*_inputs()))
    load_parameter_vector(networks[0], vector + 0.1)
    assert not torch.allclose(before, networks[0](*_inputs()))

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"initializer_range": 0.5}))
    with pytest.raises(PlanError, match="digest"):
        find_base(spec, [tmp_path])
    with pytest.raises(PlanError, match="nothing at"):
        find_base(spec, [tmp_path / "elsewhere"])


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids = torch.arange(5, 29).reshape(2, 12)
    return ids, torch.ones(2, 12, dtype=torch.bool), torch.tensor([[1, 2], [3, 4]])


def test_a_folder_without_a_language_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lm").mkdir()
    with pytest.raises(PlanError, match=r"config\.json"):
        look_up_base(NotesSpec(base="lm"), tmp_path)
    with pytest.raises(ValueError, match="adapter_rank"):
        NotesSpec(adapter_rank=4)
    assert isinstance(build_note_lm(*look_up_base(NotesSpec(width=64, blocks=1), tmp_path)), NoteLm)
