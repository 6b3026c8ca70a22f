"""Whose patients are added, and from which alpha on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synclave_server.augmentation.mixture import added_counts, check_alphas, entering, rarest, read_shares
from synclave_shared.errors import ConfigurationError


def test_shares_are_read_and_a_value_without_one_takes_the_rest() -> None:
    values = ("no", "yes", "a:b")
    assert read_shares(["died=yes"], "died", values).tolist() == [0, 1, 0]
    assert read_shares(["died=yes:0.25", "died=a:b"], "died", values).tolist() == [0, 0.25, 0.75]
    assert read_shares(["died=a:b:0.5", "died=no:0.5"], "died", values).tolist() == [0.5, 0, 0.5]


@pytest.mark.parametrize(
    "options",
    [["died=maybe"], ["lived=yes"], ["died=yes", "died=no"], ["died=yes", "died=yes:0.5"], ["died=yes:0.5"],
     ["died=yes:0.7", "died=no:0.7"], ["died=yes:-0.1", "died=no"], ["died=yes:nan", "died=no"], ["died=yes:x"]],
)  # fmt: skip
def test_shares_that_cannot_be_meant_are_refused(options: list[str]) -> None:
    with pytest.raises(ConfigurationError):
        read_shares(options, "died", ("no", "yes"))


def test_alphas_come_in_order_and_nonsense_is_refused() -> None:
    assert check_alphas([1.0, 0.2, 1.0]) == (0.2, 1.0)
    for wrong in (0.0, -0.2, float("nan"), 1e6):
        with pytest.raises(ConfigurationError, match="alpha"):
            check_alphas([0.2, wrong])


def test_the_rarest_value_is_the_one_that_fewest_patients_have_even_none() -> None:
    assert rarest(np.array([0, 0, 1, 2, 2]), 3) == 1
    assert rarest(np.array([0, 0, 1, 1]), 2) == 1
    assert rarest(np.array([0, 1]), 3) == 2


@given(
    alphas=st.lists(st.floats(0.01, 3), min_size=1, max_size=6, unique=True).map(sorted),
    patients=st.integers(0, 500),
    weights=st.lists(st.floats(0, 1), min_size=1, max_size=5).filter(lambda w: sum(w) > 0.01),
)
def test_every_alpha_has_its_number_keeps_the_shares_and_contains_the_smaller_ones(
    alphas: list[float], patients: int, weights: list[float]
) -> None:
    shares = np.array(weights) / sum(weights)
    counts = added_counts(alphas, patients, shares)
    assert counts.sum(axis=1).tolist() == [round(alpha * patients) for alpha in alphas]
    assert (np.diff(np.vstack([np.zeros(len(shares)), counts]), axis=0) >= 0).all()
    assert (np.abs(counts - counts.sum(axis=1)[:, None] * shares) < len(shares)).all()
    assert not counts[:, shares == 0].any()

    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(shares)), counts[-1]))
    places = entering(labels, counts)
    for place, row in enumerate(counts):
        assert np.bincount(labels[places <= place], minlength=len(shares)).tolist() == row.tolist()
