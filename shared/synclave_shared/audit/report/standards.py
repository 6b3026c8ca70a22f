"""What evaluators ask, after NIST SP 800-226 (2025), and how far a ledger answers it.

The questions are in our words, grouped by the subjects of that publication; the answers are about Synclave and about
the ledger at hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from synclave_shared.audit.report.facts import Facts
from synclave_shared.audit.words import number, small

__all__ = ["Answer", "answers"]

Coverage = Literal["covered", "partly", "not covered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One subject of an evaluation.

    Attributes:
        subject: of the publication.
        question: what an evaluator asks about it.
        coverage: how far this report answers it.
        text: the answer.
        place: id of the section of the page that shows it; empty if none does.
    """

    subject: str
    question: str
    coverage: Coverage
    text: str
    place: str = ""


FIXED: Final = (
    Answer(
        subject="Unit of privacy",
        question="Whose presence is hidden: a person, a record, an event?",
        coverage="covered",
        text="The patient, with everything that the patient ever contributed at the site. The plan that the coordinator"
        " signed says so, and sites refuse any other unit. A patient known to several sites is stated separately.",
        place="claims",
    ),
    Answer(
        subject="Kind of guarantee",
        question="Which definition of differential privacy, and between which neighbouring data sets?",
        coverage="covered",
        text="(epsilon, delta)-differential privacy between data sets that differ by adding or removing one patient;"
        " the value for replacing one patient stands beside it.",
        place="claims",
    ),
    Answer(
        subject="Composition",
        question="Does the number cover every release, over time and over analyses?",
        coverage="partly",
        text="Every release in the ledgers of this report, composed over all their plans. Ledgers that were not given"
        " are in the site's own journal, which its budget covers and this report cannot see.",
        place="spends",
    ),
    Answer(
        subject="Mechanisms",
        question="Which mechanisms are used, with which parameters, and is their analysis sound?",
        coverage="covered",
        text="Two: Gaussian noise on a sum over all patients, and on sums over a Poisson selection. All parameters are"
        " in the ledger, and two independent accountants (three with Opacus) recompute the loss from them.",
        place="mechanisms",
    ),
    Answer(
        subject="Sensitivity",
        question="How is one person's influence bounded?",
        coverage="partly",
        text="Each patient's whole contribution is cut to a stated length before the sum. That a site did so is its own"
        " signed statement; tests of the software cover it, the ledger cannot.",
        place="mechanisms",
    ),
    Answer(
        subject="Implementation",
        question="Do arithmetic, random numbers and code do what the analysis assumes?",
        coverage="partly",
        text="Noise comes from a cryptographic generator and results are released on a fixed grid, which removes the"
        " known attack on low-order bits; it is not a discrete mechanism with an exact proof. Versions that sites"
        " stated are listed.",
        place="software",
    ),
    Answer(
        subject="Side channels",
        question="Can anything but the released results tell about a person?",
        coverage="not covered",
        text="The coordinator sees how long a round takes, and that a site failed. Nothing of this is in a ledger.",
        place="limits",
    ),
    Answer(
        subject="Machine learning and synthetic data",
        question="Is what is published derived from private results only?",
        coverage="covered",
        text="Models are made of released updates, and synthetic patients of models: neither touches patients again, so"
        " neither costs more. Choosing the best of several trainings is charged for each of them.",
        place="mechanisms",
    ),
    Answer(
        subject="Accuracy, fairness and other harm",
        question="Are the results good enough for their use, for all groups?",
        coverage="not covered",
        text="A ledger says nothing about quality. An evaluation of the synthetic patients measures it.",
        place="limits",
    ),
    Answer(
        subject="Data security",
        question="Is the data protected where it lies, and who has access?",
        coverage="not covered",
        text="Records do not leave a site; how a site protects them is its own responsibility and part of its own"
        " audit.",
        place="limits",
    ),
    Answer(
        subject="Exposure when data is collected",
        question="Who sees records before any noise is added?",
        coverage="partly",
        text="Only the hospital that treats the patient: there is no central collection. A process without network"
        " holds the records, another without records talks to the coordinator. The ledger cannot show how a site is"
        " set up.",
        place="limits",
    ),
    Answer(
        subject="Verification",
        question="Can an outsider check the statements?",
        coverage="covered",
        text="Every number here follows from signed entries and can be recomputed offline; sites witness the history.",
        place="checks",
    ),
)


def answers(facts: Facts) -> tuple[Answer, ...]:
    """All subjects, those that depend on this ledger first."""
    return (_parameters(facts), _trust(facts), *FIXED)


def _parameters(facts: Facts) -> Answer:
    spent = [account for account in facts.accounts if account.mechanisms]
    if spent:
        most = max(spent, key=lambda account: account.epsilon)
        text = (
            f"At most epsilon {number(most.epsilon)} at delta {small(most.delta)} ({most.site}, {most.dataset})."
            " Whether that is small enough is a decision of the site, which it states as a budget; a common reading is"
            " that values up to 1 protect strongly, and that above about 10 the guarantee alone says little."
        )
    else:
        text = "Nothing was spent."
    return Answer(
        subject="Privacy parameters",
        question="What are epsilon and delta, for everything together, and are they small?",
        coverage="covered",
        text=text,
        place="spends",
    )


def _trust(facts: Facts) -> Answer:
    modes = facts.trust_modes
    return Answer(
        subject="Trust model",
        question="Who must be trusted: a central curator, each data holder, or nobody?",
        coverage="covered",
        text=f"Trust mode of the plans: {', '.join(modes) or 'there is no plan'}. Each hospital is trusted with its own"
        " patients' records and with adding the noise that it signs for; the coordinator is not.",
        place="claims",
    )
