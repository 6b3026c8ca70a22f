"""Whether a language model of notes tells its training patients from others: attacks by each patient's loss.

They can show a leak; they cannot show that there is none. Evidence of privacy is the accounted epsilon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from synclave_server.evaluation.ranking import ranking_quality

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Membership", "calibrated", "membership"]

FALSE_ALARMS: Final = 0.05
"""Share of strangers who may be called members where the attack's hits are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """What an attack reaches.

    Attributes:
        auc: chance that a random member scores higher than a random stranger; .5: nothing is told.
        interval: of it, 95 % by bootstrap over patients.
        hits: share of members found where :data:`FALSE_ALARMS` of the strangers are called members; chance is that
            share itself.
    """

    auc: float
    interval: tuple[float, float]
    hits: float


def membership(members: NDArray[np.float64], strangers: NDArray[np.float64], *, seed: int = 0) -> Membership:
    """The attack that calls those members whose loss is small (Yeom et al. 2018).

    Args:
        members: loss of each training patient [N], at least one.
        strangers: of each patient the model never saw [M], at least one.
        seed: of the bootstrap.

    Raises:
        ValueError: if there are none of either, or a loss is not finite.
    """
    if not len(members) or not len(strangers):
        raise ValueError("an attack needs at least one member and one stranger")
    scores = -np.concatenate([members, strangers])
    if not np.isfinite(scores).all():
        raise ValueError("losses must be finite")
    (auc, interval), _ = ranking_quality(
        np.arange(len(scores)) < len(members), scores, np.random.default_rng([seed, 11])
    )
    # The largest score that no more than the allowed strangers exceed.
    allowed = int(FALSE_ALARMS * len(strangers))
    bar = np.sort(-strangers)[::-1][min(allowed, len(strangers) - 1)]
    return Membership(auc=auc, interval=interval, hits=float((-members > bar).mean()))


def calibrated(loss: NDArray[np.float64], reference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each patient's loss less that of a model that knows none of them (Watson et al. 2022).

    Notes differ far more in how common their words are than training can move them; what a warm start, or a model of
    other patients, makes of the same note takes that away, and the attack becomes the sharpest of this kind.

    Args:
        loss: of the attacked model [N].
        reference: of the other model for the same patients with the same words hidden [N].
    """
    return loss - reference
