"""The same questions for each hospital's own held-out patients, so that a small or unusual one is not lost in the sum.

Value, ceiling and floor are the three cohorts of the whole comparison, measured against one site's patients: the
ceiling says how well real patients of all sites stand for those of this one. Sites differ in size, and a small one
agrees less with anybody; that too is in its ceiling.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from synclave_server.evaluation.classifiers import Models, classifiers
from synclave_server.evaluation.comparison import MAX_PATIENTS, Columns, Comparison, Table
from synclave_server.evaluation.downstream import fit, label_tasks
from synclave_server.evaluation.fidelity import MINIMUM_CARRIERS, compared_pairs, correlation_agreement, prevalence
from synclave_server.evaluation.measure import Aim, Measure, Reading, undefined
from synclave_shared.data.patients import PatientDataset

__all__ = [
    "SITE_MODEL",
    "SiteResult",
    "SiteRow",
    "Unlike",
    "code_rows",
    "site_results",
    "spread",
    "spread_text",
    "unseen",
    "who",
]

SITE_MODEL: Final = "logistic"
"""The classifier that is tested on each site's patients."""
SECTION: Final = "Sites"
SiteRow = tuple[str, str, Aim, Sequence[Reading]]
"""Key, title, aim and the readings of value, ceiling and floor."""
Unlike = Callable[[Table, Sequence[Table]], list[SiteRow]]
"""How unlike one site's patients the contenders are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteResult:
    """What was measured against one site's patients.

    Attributes:
        name: of the site.
        patients: how many of its patients were compared.
        measures: the same ones, in the same order, at every site.
    """

    name: str
    patients: int
    measures: tuple[Measure, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``metrics.json``."""
        return {"patients": self.patients, "measures": {m.key: m.to_json() for m in self.measures}}


def unseen(site: Sequence[Hashable], other_real: Sequence[Hashable]) -> NDArray[np.intp]:
    """Positions of the patients of ``site`` who are not among ``other_real``: nobody is measured against himself.

    Args:
        site: who each patient is [N]. Identifiers of different hospitals may coincide by chance, so that a patient is
            the identifier with all data.
        other_real: the same of the patients who are compared with them.
    """
    known = set(other_real)
    return np.array([place for place, name in enumerate(site) if name not in known], dtype=np.intp)


def who(dataset: PatientDataset) -> list[Hashable]:
    """Identifier, columns and label of each patient [N]."""
    rows = [ones.tobytes() for ones in np.split(dataset.features.ones, dataset.features.starts[1:-1])]
    return list(zip(dataset.patient_ids, rows, dataset.labels.tolist(), strict=True))


def code_rows(groups: Sequence[Columns]) -> Unlike:
    """Prevalence and correlations of 0/1 columns."""

    def rows(reference: Table, contenders: Sequence[Table]) -> list[SiteRow]:
        if len(reference) < MINIMUM_CARRIERS:
            few = undefined(f"{len(reference)} patients of this site; at least {MINIMUM_CARRIERS} needed")
            prevalences = correlations = [few] * len(contenders)
        else:
            pairs = compared_pairs(reference, groups)
            prevalences = [prevalence(reference, contender).log_r2 for contender in contenders]
            correlations = [correlation_agreement(reference, contender, *pairs)[0] for contender in contenders]
        return [
            ("prevalence_log_r2", "Prevalence on a log scale, R²", "one", prevalences),
            ("correlation_pearson", "Correlations between codes, Pearson", "one", correlations),
        ]

    return rows


def site_results(
    comparison: Comparison,
    sites: Mapping[str, Table],
    unlike: Unlike,
    label_name: str,
    label_values: Sequence[str],
    seed: int,
    progress: Callable[[str], None],
    models: Models = classifiers,
) -> list[SiteResult]:
    """What ``unlike`` measures, and train-on-synthetic, at each of ``sites`` (held-out patients by name)."""
    if not sites:
        return []
    rng = np.random.default_rng([seed, 6])
    progress("sites")
    tasks = label_tasks(comparison.reference, label_values)
    name, _ = models(seed)[SITE_MODEL]
    fitted = {
        task.value: [fit(models(seed)[SITE_MODEL][1], task.examples(c)) for c in comparison.contenders()]
        for task in tasks
    }
    results = []
    for site, patients in sites.items():
        progress(f"site {site}")
        reference = patients.sample(MAX_PATIENTS, rng)
        rows = unlike(reference, list(comparison.contenders()))
        for task in tasks:
            test = task.examples(reference)
            scores = [model.judge(test, "the site's patients", rng)[0] for model in fitted[task.value]]
            title = f"{label_name} = {task.value}: {name}, AUROC"
            rows.append((f"tstr_{SITE_MODEL}_auroc[{task.value}]", title, "one", scores))
        results.append(
            SiteResult(
                name=site,
                patients=len(reference),
                measures=tuple(
                    Measure(key=key, title=title, section=SECTION, aim=aim, value=value, ceiling=ceiling, floor=floor)
                    for key, title, aim, (value, ceiling, floor) in rows
                ),
            )
        )
    return results


def spread(results: Sequence[SiteResult]) -> dict[str, dict[str, Any]]:
    """Measure key -> its title, number of sites, lowest and highest value, lowest share of the ceiling, and where.

    A measure that is not defined at two sites has no spread.
    """
    found = {}
    for key in [measure.key for measure in results[0].measures] if results else []:
        measures = {result.name: next(m for m in result.measures if m.key == key) for result in results}
        values = {name: m.value.value for name, m in measures.items() if m.value.value is not None}
        shares = {name: m.of_ceiling for name, m in measures.items() if m.of_ceiling is not None}
        if len(values) < 2:
            continue
        low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
        least = min(shares, key=shares.__getitem__) if shares else None
        found[key] = {
            "title": next(iter(measures.values())).title,
            "sites": len(values),
            "lowest": {"site": low, "value": values[low]},
            "highest": {"site": high, "value": values[high]},
            "lowest_of_ceiling": {"site": least, "value": shares[least]} if least is not None else None,
        }
    return found


def spread_text(found: Mapping[str, Any]) -> str:
    """An entry of :func:`spread` as a sentence."""
    low, high, least = found["lowest"], found["highest"], found["lowest_of_ceiling"]

    def number(value: float, digits: int = 3) -> str:
        return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # adding 0 makes a minus zero a zero

    text = f"{found['title']}: from {number(low['value'])} ({low['site']}) to {number(high['value'])} ({high['site']})"
    if least is None:
        return f"{text}."
    share = number(100 * least["value"], 0)
    return f"{text}; at least {share} % of what other real patients reach at the same site ({least['site']})."
