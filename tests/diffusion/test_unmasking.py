"""Parallel unmasking against one-at-a-time filling and against an exact law."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from synclave_shared.diffusion.unmasking import ORDERS, Order, draw_tokens, unmask

MASK, WORDS, TOKENS = 0, 7, 9


def streams(rows: Tensor, places: int) -> Callable[[int], Tensor]:
    """Numbers of each document's own, whatever else is in the batch."""

    def uniform(stream: int) -> Tensor:
        drawn = []
        for row in rows.tolist():
            generator = torch.Generator().manual_seed(1000 * stream + row)
            drawn.append(torch.rand(places, generator=generator, dtype=torch.float64).clamp(1e-9, 1 - 1e-9))
        return torch.stack(drawn)

    return uniform


def network(ids: Tensor, positions: Tensor) -> Tensor:
    """Logits that hang on every token of the row and on the place."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(WORDS, 6, generator=generator)
    where = torch.randn(TOKENS, 6, generator=generator)
    head = torch.randn(6, WORDS, generator=generator)
    hidden = torch.tanh(table[ids] + where).cumsum(1) + table[ids].mean(dim=1, keepdim=True)
    return (hidden.gather(1, positions[..., None].expand(-1, -1, 6)) @ head).float()


def documents(rows: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(1, WORDS, (rows, TOKENS), generator=generator)
    masked = torch.rand(rows, TOKENS, generator=generator) < 0.6
    return torch.where(masked, MASK, ids), masked


def one_at_a_time(ids: Tensor, masked: Tensor, order: Order, uniform: Callable[[int], Tensor], **how: float) -> Tensor:
    """The slow truth for one document [1, T]: a call, one draw that is kept, the next call."""
    places = masked[0].nonzero()[:, 0].tolist()
    filled, left = ids.clone(), list(range(len(places)))
    for call in range(len(places)):
        logits = network(filled, torch.tensor([places]))
        logits[..., MASK] = -torch.inf
        tokens, probability = draw_tokens(logits, uniform(2 * call)[:, : len(places)], **how)  # type: ignore[arg-type]
        law = logits.softmax(dim=-1)[0]
        entropy = -(law * law.clamp_min(1e-30).log()).sum(dim=1)
        worth = {
            "confidence": probability[0].tolist(),
            "entropy": (-entropy).tolist(),
            "random": uniform(2 * call + 1)[0].tolist(),
            "left-to-right": [-place for place in range(len(places))],
        }[order]
        place = max(left, key=worth.__getitem__)
        left.remove(place)
        filled[0, places[place]] = tokens[0, place]
    return filled


def forbid_mask() -> Tensor:
    return torch.arange(WORDS) == MASK


@pytest.mark.parametrize("how", [{}, {"temperature": 0.7, "top_k": 3}, {"top_p": 0.8}, {"temperature": 0.0}])
@pytest.mark.parametrize("order", ORDERS)
def test_as_many_calls_as_places_fill_one_at_a_time(order: Order, how: dict[str, float]) -> None:
    ids, masked = documents(6)
    rows = torch.arange(6)
    found = unmask(
        network,
        ids,
        masked,
        calls=TOKENS,
        uniforms=streams(rows, TOKENS),
        order=order,
        forbidden=forbid_mask(),
        places=TOKENS,
        **how,  # type: ignore[arg-type]
    )
    for row in range(6):
        one = slice(row, row + 1)
        slow = one_at_a_time(ids[one], masked[one], order, streams(rows[one], TOKENS), **how)
        assert torch.equal(found[one], slow), row


@pytest.mark.parametrize("calls", [1, 2, 4, 50])
@pytest.mark.parametrize("order", ORDERS)
def test_a_document_does_not_depend_on_the_batch(order: Order, calls: int) -> None:
    ids, masked = documents(5)
    ids[2], masked[2] = 1, False
    asked = 0

    def counted(filled: Tensor, positions: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        return network(filled, positions)

    def fill(rows: Tensor) -> Tensor:
        return unmask(
            counted,
            ids[rows],
            masked[rows],
            calls=calls,
            uniforms=streams(rows, TOKENS),
            order=order,
            forbidden=forbid_mask(),
            places=TOKENS,
        )

    together = fill(torch.arange(5))
    assert asked <= calls
    assert not (together == MASK).any()
    assert torch.equal(together[~masked], ids[~masked])
    for row in range(5):
        alone = fill(torch.tensor([row]))
        assert torch.equal(alone[0], together[row])


def test_what_is_forbidden_is_never_drawn() -> None:
    ids, masked = documents(40)
    forbidden = forbid_mask().repeat(40, 1)
    forbidden[20:, 3:] = True
    found = unmask(
        network, ids, masked, calls=3, uniforms=streams(torch.arange(40), TOKENS), forbidden=forbidden, places=TOKENS
    )
    assert set(found[20:][masked[20:]].tolist()) <= {1, 2}
    assert set(found[:20][masked[:20]].tolist()) - {1, 2}
    with pytest.raises(ValueError, match="forbidden"):
        unmask(
            network,
            ids,
            masked,
            calls=3,
            uniforms=streams(torch.arange(40), TOKENS),
            forbidden=torch.ones(WORDS, dtype=torch.bool),
        )


@pytest.mark.parametrize("order", ["random", "left-to-right"])
def test_one_place_at_a_time_draws_from_the_exact_joint_law(order: Order) -> None:
    """Chi-square over 27 outcomes, 20,000 documents: 26 degrees of freedom, 60 has probability 2e-4."""
    generator = torch.Generator().manual_seed(5)
    joint = torch.rand(3, 3, 3, generator=generator, dtype=torch.float64) ** 2
    joint /= joint.sum()
    mask, rows = 3, 20_000

    def conditionals(ids: Tensor, positions: Tensor) -> Tensor:
        logits = torch.full((len(ids), 3, 4), -torch.inf)
        for known in itertools.product(range(4), repeat=3):
            law = joint
            for axis, value in enumerate(known):
                if value != mask:
                    law = law.narrow(axis, value, 1)
            same = (ids == torch.tensor(known)).all(dim=1)
            for place in range(3):
                # Rows of numbers that nobody asks for, and of places that are none.
                marginal = law.sum(dim=[axis for axis in range(3) if axis != place])
                if known[place] == mask:
                    logits[same, place, :3] = marginal.log().float()
                else:
                    logits[same, place, :3] = 0.0
        return logits.gather(1, positions[..., None].expand(-1, -1, 4))

    seeds = torch.Generator().manual_seed(6)
    numbers = [torch.rand(rows, 3, generator=seeds, dtype=torch.float64) for _ in range(6)]
    ids = torch.full((rows, 3), mask)
    found = unmask(conditionals, ids, ids == mask, calls=3, uniforms=lambda stream: numbers[stream], order=order)
    seen = torch.bincount(found @ torch.tensor([9, 3, 1]), minlength=27)
    expected = rows * joint.flatten()
    assert float(((seen - expected) ** 2 / expected).sum()) < 60


def test_draws_follow_the_cut_distribution() -> None:
    law = torch.tensor([0.5, 0.25, 0.15, 0.1])
    logits = law.log().expand(4000, 4)
    uniform = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000

    def shares(**how: float) -> list[float]:
        tokens, probability = draw_tokens(logits, uniform, **how)  # type: ignore[arg-type]
        assert torch.allclose(probability, law[tokens])
        return [round(float((tokens == token).double().mean()), 3) for token in range(4)]

    assert shares() == [0.5, 0.25, 0.15, 0.1]
    assert shares(top_k=2) == [0.667, 0.333, 0, 0]
    assert shares(top_p=0.7) == [0.667, 0.333, 0, 0]
    assert shares(temperature=0.5)[0] == pytest.approx(0.25 / (0.25 + 0.0625 + 0.0225 + 0.01), abs=1e-3)
    assert shares(temperature=0.0) == [1, 0, 0, 0]


@pytest.mark.parametrize("top_p", [0.3, 0.8, 0.95])
def test_draws_of_the_likeliest_have_the_law_that_ordering_all_tokens_gives(top_p: float) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = 2 * torch.randn(50, generator=generator)
    logits[7] = logits[9]  # a tie
    law, order = logits.softmax(dim=0).double().sort(descending=True, stable=True)
    law = torch.where(law.cumsum(0) - law < top_p, law, 0.0)
    expected = torch.zeros(50, dtype=torch.float64).scatter(0, order, law / law.sum())
    draws = 40_000
    uniform = torch.rand(draws, generator=generator, dtype=torch.float64).clamp(1e-12, 1 - 1e-12)
    tokens, _ = draw_tokens(logits.expand(draws, 50), uniform, top_p=top_p)
    seen = torch.bincount(tokens, minlength=50).double()
    assert not seen[expected == 0].any()
    kept = expected > 0
    # Chi-squared of at most 49 degrees: above 90 once in three thousand.
    assert float(((seen - draws * expected)[kept] ** 2 / (draws * expected[kept])).sum()) < 90


@pytest.mark.parametrize("calls", [1, 2, 3, 5, 8, 30])
def test_only_open_places_are_asked_for_and_every_document_has_room(calls: int) -> None:
    masked = torch.arange(20)[None] < torch.arange(21)[:, None]
    ids = torch.where(masked, MASK, 1)
    asked: list[int] = []

    def asking(current: Tensor, positions: Tensor) -> Tensor:
        asked.append(positions.shape[1])
        return torch.zeros(*positions.shape, WORDS)

    ban = torch.arange(WORDS) == MASK
    found = unmask(asking, ids, masked, calls=calls, uniforms=streams(torch.arange(21), 20), forbidden=ban)
    assert not (found == MASK).any()
    assert len(asked) == min(calls, 20)
    assert asked == sorted(asked, reverse=True)
    assert sum(asked) <= 20 * (len(asked) + 1) / 2


@pytest.mark.parametrize(
    "wrong", [{"calls": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"order": "backwards"}, {"places": 2}]
)
def test_a_number_out_of_range_is_refused(wrong: dict[str, object]) -> None:
    ids, masked = documents(3)
    with pytest.raises(ValueError):  # noqa: PT011 - each case has words of its own
        unmask(network, ids, masked, **{"calls": 2, "uniforms": streams(torch.arange(3), TOKENS), **wrong})  # type: ignore[arg-type]
