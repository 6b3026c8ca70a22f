"""Spans that overlap become one reading, and nothing found is uncovered again."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synclave_shared.text.spans import PhiClass, Span, covers, merged


def _span(start: int, end: int, confidence: float = 0.5, phi: PhiClass = PhiClass.NAME) -> Span:
    return Span(start=start, end=end, phi=phi, kind="k", source="s", confidence=confidence)


_SPANS = st.lists(
    st.builds(
        lambda start, length, confidence, phi: _span(start, start + length, confidence, phi),
        st.integers(0, 60),
        st.integers(1, 20),
        st.sampled_from([0.3, 0.5, 0.9]),
        st.sampled_from([PhiClass.NAME, PhiClass.DATE, PhiClass.PLACE]),
    ),
    max_size=12,
)


@given(_SPANS)
def test_merging_covers_the_same_characters_without_overlap(spans: list[Span]) -> None:
    answer = merged(spans)
    assert {i for s in answer for i in range(s.start, s.end)} == {i for s in spans for i in range(s.start, s.end)}
    assert all(one.end <= other.start for one, other in itertools.pairwise(answer))


@given(_SPANS, st.randoms())
def test_merging_does_not_depend_on_the_order(spans: list[Span], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(spans)
    random.shuffle(shuffled)
    assert merged(spans) == merged(shuffled)


def test_the_surest_span_names_the_class_and_takes_in_its_own_kind() -> None:
    answer = merged([_span(0, 10, 0.6), _span(5, 14, 0.9)])
    assert [(s.start, s.end, s.confidence) for s in answer] == [(0, 14, 0.9)]
    answer = merged([_span(0, 10, 0.6, PhiClass.DATE), _span(5, 14, 0.9)])
    assert [(s.start, s.end, s.phi) for s in answer] == [(0, 5, PhiClass.DATE), (5, 14, PhiClass.NAME)]


def test_a_span_needs_at_least_one_character() -> None:
    with pytest.raises(ValueError, match="start"):
        _span(3, 3)
    assert covers(_span(0, 5), _span(1, 5))
    assert not covers(_span(1, 5), _span(0, 5))
