"""Networks that others clip wrongly or not at all: here they are exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.private_step.models import Rows, SelfAttention
from synclave_client.training.private import self_test
from synclave_shared.errors import ClippingError
from tests.training.clipping.slow_truth import deviation, squared_outputs
from tests.training.clipping.unusual import (
    EITHER_ROWS,
    EXACT,
    Tied,
    Unfolded,
    assert_untouched,
    away_from_zero,
    inputs,
    numbers,
    required_by,
)

# Language models as transformers ships them.


def language_model(kind: str, *, tied: bool = True, dropout: float = 0.0) -> nn.Module:
    import transformers

    sizes = {
        "vocab_size": 31,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 20,
        "max_position_embeddings": 16,
        "tie_word_embeddings": tied,
        "attn_implementation": "sdpa",
    }
    torch.manual_seed(0)
    if kind == "ModernBert":
        drops = {"attention_dropout": dropout, "embedding_dropout": dropout, "mlp_dropout": dropout}
        special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
    else:
        drops = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        special = {"pad_token_id": 1}
    config = getattr(transformers, f"{kind}Config")(**sizes, **drops, **special)
    return away_from_zero(getattr(transformers, f"{kind}ForMaskedLM")(config))


def notes(owners: list[int] | None = None) -> Rows:
    batch = numbers(28, 6, owners)
    x = batch.x + 3
    # Padding among the words: RoBERTa numbers its places by it.
    x[1, 4:] = 1
    return replace(batch, x=x, y=torch.where((x + torch.arange(6)) % 2 == 0, x, -100))


def language_loss(network: Any, batch: Rows) -> Tensor:
    """As a user writes it: no position numbers given, so that the model makes its own [1, T]."""
    logits = network(input_ids=batch.x).logits
    return batch.mean_over_rows(
        functional.cross_entropy(logits.mT, batch.y, ignore_index=-100, reduction="none").sum(1)
    )


@EITHER_ROWS
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["Bert", "Roberta", "ModernBert"])
def test_stock_language_models_are_clipped_exactly(kind: str, tied: bool, owners: list[int] | None) -> None:
    network = language_model(kind, tied=tied)
    if kind == "Bert":
        names = dict(network.named_parameters(remove_duplicate=False))
        assert (names["cls.predictions.decoder.weight"] is names["bert.embeddings.word_embeddings.weight"]) == tied
        assert "bias" in network.cls.predictions._parameters
    assert deviation(network, language_loss, notes(owners)) <= EXACT
    assert self_test(network, language_loss, notes(owners)).norm_deviation <= 1e-4


@pytest.mark.parametrize(
    ("kind", "layer"),
    [("Bert", "bert.embeddings.dropout"), ("Roberta", "roberta.encoder.layer.1.attention.self.dropout")],
)
def test_a_language_model_with_dropout_is_refused_by_the_names_of_its_dropouts(kind: str, layer: str) -> None:
    with pytest.raises(ClippingError, match=layer.replace(".", r"\.")):
        self_test(language_model(kind, dropout=0.1), language_loss, notes())


@EITHER_ROWS
@pytest.mark.parametrize("bias", ["none", "all"])
def test_lora_by_peft_is_clipped_exactly(bias: Any, owners: list[int] | None) -> None:
    from peft import LoraConfig, get_peft_model

    model: Any = language_model("Bert")
    targets = ["query", "value", "dense"]
    adapted = get_peft_model(model, LoraConfig(r=2, lora_dropout=0.0, bias=bias, target_modules=targets))
    trained = {name for name, needed in required_by(adapted).items() if needed}
    assert any("lora_B" in name for name in trained)
    assert not any(name.endswith("word_embeddings.weight") for name in trained)
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.2)
    before = required_by(adapted)
    assert deviation(adapted, language_loss, notes(owners)) <= EXACT
    assert_untouched(adapted, before)


@EITHER_ROWS
def test_training_biases_only_is_clipped_exactly(owners: list[int] | None) -> None:
    network = language_model("Bert")
    for name, value in network.named_parameters():
        value.requires_grad_(name.endswith("bias"))
    before = required_by(network)
    assert deviation(network, language_loss, notes(owners)) <= EXACT
    assert_untouched(network, before)


# Networks that are fine, whatever they look like.


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention, self.out = SelfAttention(8, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(x + self.attention(x))
        return found


class HandMadeLora(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base, self.a, self.b = nn.Linear(8, 5), nn.Linear(8, 2, bias=False), nn.Linear(2, 5, bias=False)
        self.base.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.base(x) + 2 * self.b(self.a(x))
        return found


class Twice(nn.Module):
    """One linear layer and one normalisation, each called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(self.layer(torch.tanh(self.norm(self.layer(x)))))
        return found


class SharedWeight(nn.Module):
    """Two linear layers, one weight; of the biases one is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.two.weight = self.one.weight
        self.one.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.two(torch.tanh(self.one(x)))
        return found


class SharedBias(nn.Module):
    """One vector is the bias of a linear layer and of a normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)
        self.norm.bias = self.one.bias

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(self.one(x))
        return found


class TwoDilations(nn.Module):
    """One kernel, read narrow and wide: no single product covers both."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide = nn.Conv1d(8, 8, 2), nn.Conv1d(8, 8, 2, dilation=2)
        self.wide.weight = self.narrow.weight

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.wide(torch.tanh(self.narrow(x.mT)))
        return found


class Positioned(nn.Module):
    """A bare scale, and a bare table of positions that is added by its own name."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.place = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(1, 5, 8))
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(torch.tanh(x * self.scale + self.place))
        return found


class NumberedPlaces(nn.Module):
    """Position numbers [1, T], as many models make them."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.out = nn.Embedding(5, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.out(torch.tanh(x + self.place(torch.arange(5)[None])))
        return found


class FrozenMiddle(nn.Module):
    """Gradients pass through what is not trained: a linear layer and a convolution of two axes that has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.middle, self.outer = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.picture = nn.Conv2d(1, 1, 3, padding=1)
        self.middle.requires_grad_(False)
        self.picture.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.middle(self.inner(x)))
        found: Tensor = self.outer(self.picture(hidden[:, None])[:, 0])
        return found


class Grown(nn.Linear):
    """A subclass that computes something else."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - its name in torch
        return functional.linear(input.square(), 2 * self.weight, self.bias)


FINE = [
    *(Attentive, HandMadeLora, Twice, SharedWeight, SharedBias, TwoDilations, Positioned, NumberedPlaces),
    *(Unfolded, FrozenMiddle, lambda: Grown(8, 3)),
]


@EITHER_ROWS
@pytest.mark.parametrize("make", FINE)
def test_unusual_networks_are_clipped_exactly(make: Callable[[], nn.Module], owners: list[int] | None) -> None:
    torch.manual_seed(0)
    network = away_from_zero(make())
    before = required_by(network)
    for share in (0.0, 0.5, 1.0):
        assert deviation(network, squared_outputs, inputs(5, 8, owners=owners), share=share) <= EXACT
    assert_untouched(network, before)
    assert self_test(network, squared_outputs, inputs(5, 8, owners=owners)).sum_deviation <= 1e-4


@EITHER_ROWS
@pytest.mark.parametrize("padding", [None, 0, -1])
def test_a_table_that_embeds_and_decodes_is_clipped_exactly(padding: int | None, owners: list[int] | None) -> None:
    torch.manual_seed(0)
    assert deviation(Tied(padding), squared_outputs, numbers(9, 5, owners)) <= EXACT
