"""The vocabulary head at masked places only."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from synclave_shared.models.masked_lm import IGNORED, MaskedPositionLm, masked_positions


@given(st.lists(st.lists(st.sampled_from([IGNORED, 3, 7]), min_size=5, max_size=5), min_size=1, max_size=4))
def test_masked_places_are_found_in_order(labels: list[list[int]]) -> None:
    positions, targets = masked_positions(torch.tensor(labels), most=5)
    assert positions.shape == targets.shape == (len(labels), 5)
    for row, where, what in zip(labels, positions.tolist(), targets.tolist(), strict=True):
        expected = [(place, token) for place, token in enumerate(row) if token != IGNORED]
        assert [(p, t) for p, t in zip(where, what, strict=True) if t != IGNORED] == expected


def test_a_public_width_does_not_depend_on_the_data() -> None:
    labels = torch.tensor([[IGNORED, 4, IGNORED], [5, 6, 7], [IGNORED] * 3])
    positions, targets = masked_positions(labels, most=2)
    assert targets.tolist() == [[4, IGNORED], [5, 6], [IGNORED, IGNORED]]
    assert positions.tolist() == [[1, 0], [0, 1], [0, 0]]


def test_no_rows_give_no_positions() -> None:
    positions, targets = masked_positions(torch.zeros(0, 6, dtype=torch.int64), most=3)
    assert positions.shape == targets.shape == (0, 3)


def tiny(kind: str) -> nn.Module:
    import transformers

    shared = {
        "vocab_size": 40,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
        "pad_token_id": 1,
    }
    torch.manual_seed(0)
    if kind == "ModernBert":
        shared |= {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    config = getattr(transformers, f"{kind}Config")(**shared)
    model: nn.Module = getattr(transformers, f"{kind}ForMaskedLM")(config).eval()
    return model


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "ModernBert"])
def test_logits_at_masked_places_are_those_of_the_whole_model(kind: str) -> None:
    model = tiny(kind)
    ids = torch.randint(4, 40, (3, 8))
    positions = torch.tensor([[1, 5], [0, 7], [2, 3]])
    expected = model(input_ids=ids).logits.gather(1, positions[..., None].expand(-1, -1, 40))
    assert torch.allclose(MaskedPositionLm(model)(ids, positions), expected, atol=1e-5)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), nn.Sequential()])
def test_a_model_without_encoder_or_head_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="has no"):
        MaskedPositionLm(model)
