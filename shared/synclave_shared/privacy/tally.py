"""Long histories of mechanisms: counted before they are composed.

A ledger of a million entries repeats a few mechanisms, and each was read from a single shape of entries: it is one
object that stands in the history many times. Counting objects is thousands of times quicker than comparing values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from synclave_shared.privacy.accountant import epsilon
from synclave_shared.privacy.mechanism import MAX_STEPS, GaussianSum, PoissonGaussian

__all__ = ["spent", "spent_together", "tallied"]


def tallied(mechanisms: Sequence[PoissonGaussian | GaussianSum]) -> list[PoissonGaussian | GaussianSum]:
    """A short list of the same composition: an object that stands there many times becomes one mechanism."""
    objects = {id(each): each for each in mechanisms}
    short: list[PoissonGaussian | GaussianSum] = []
    for identity, times in Counter(map(id, mechanisms)).items():
        mechanism = objects[identity]
        if isinstance(mechanism, GaussianSum):
            short += [mechanism] * times
            continue
        whole, rest = divmod(mechanism.steps * times, MAX_STEPS)
        short += [mechanism.model_copy(update={"steps": MAX_STEPS})] * whole
        short += [mechanism.model_copy(update={"steps": rest})] if rest else []
    return short


def spent(mechanisms: Sequence[PoissonGaussian | GaussianSum], delta: float) -> float:
    """Cumulative epsilon of a list that may be long."""
    return epsilon(tallied(mechanisms), delta)


def spent_together(
    parts: Iterable[tuple[Sequence[PoissonGaussian | GaussianSum], float]],
) -> tuple[float, float] | None:
    """What several data sets cost a patient who is in all of them.

    Args:
        parts: of each data set, all that was done to it and the delta of its budget.

    Returns:
        Cumulative epsilon of everything, and the delta at which: the smallest of those data sets on which anything was
        done. None if nothing was done on any.
    """
    done = [(mechanisms, delta) for mechanisms, delta in parts if mechanisms]
    if not done:
        return None
    delta = min(delta for _, delta in done)
    return spent([each for mechanisms, _ in done for each in mechanisms], delta), delta
