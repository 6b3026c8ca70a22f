"""Other downstream tasks than the label: predict single columns from all the rest.

A label that depends on few columns is predicted as well from independent columns; how the others hang together shows
only where they are predicted from each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from synclave_server.evaluation.classifiers import QUICK, classifiers
from synclave_server.evaluation.comparison import Comparison, Table
from synclave_server.evaluation.downstream import AREAS, Examples, fit
from synclave_server.evaluation.measure import Measure, Reading, defined, undefined
from synclave_shared.data.fields import MISSING, OTHER, NumberField
from synclave_shared.data.schema import Schema
from synclave_shared.errors import ConfigurationError

__all__ = ["SECTION", "TARGETS", "TARGET_PATIENTS", "Target", "choose_targets", "target_measures"]

TARGETS: Final = 6
"""Targets that are chosen where none is named."""
MOST_COMMON: Final = 0.5
"""A chosen target is a column that at most this share of the reference patients have."""
FEWEST: Final = 20
"""A chosen target is a column that at least so many reference patients have."""
TARGET_PATIENTS: Final = 3_000
"""Patients to learn a target from: every target takes six fits."""
SECTION: Final = "Other targets"
MEAN: Final = "Mean of the targets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A column to predict.

    Attributes:
        column: its position.
        name: such as ``diagnosis:106``.
        title: the same in words.
        own: columns that the classifier does not see: the target itself, or its whole field where the values of the
            field exclude each other.
    """

    column: int
    name: str
    title: str
    own: slice

    def examples(self, table: Table, label_values: int) -> Examples:
        """All other columns and the label (one of ``label_values`` columns), and whether the patient has this one."""
        one_hot = np.eye(label_values, dtype=np.uint8)[table.labels]
        rest = np.delete(table.features, self.own, axis=1)
        return Examples(features=np.hstack([rest, one_hot]), positive=table.features[:, self.column] == 1)


def choose_targets(schema: Schema, reference: Table, wanted: Sequence[str]) -> list[Target]:
    """The ``wanted`` columns, or by a fixed rule up to :data:`TARGETS` of them if none is named.

    The rule: of each field of codes or flags its most common column among those that at most half of the
    reference patients have, at least 20 of them; of these the six most common. Categories fill up what is missing,
    numbers and the columns for missing and other values are no targets.

    Raises:
        ConfigurationError: if a wanted column is not one of the schema's.
    """
    places = {name: place for place, name in enumerate(schema.columns)}
    for name in wanted:
        if name not in places:
            raise ConfigurationError(
                expected=f"a column of schema {schema.name} as field:value, such as {schema.columns[0]}",
                found=name,
                remedy="Write the field's name, a colon, and one of its values.",
            )
    chosen = [places[name] for name in dict.fromkeys(wanted)] or _usual(schema, reference)
    group_of = {column: group for group in schema.groups for column in range(group.start, group.stop)}
    return [
        Target(
            column=column,
            name=schema.columns[column],
            title=schema.titles[column],
            own=(
                slice(group_of[column].start, group_of[column].stop)
                if group_of[column].kind == "categorical"
                else slice(column, column + 1)
            ),
        )
        for column in chosen
    ]


def _usual(schema: Schema, reference: Table) -> list[int]:
    carriers = reference.features.sum(axis=0, dtype=np.int64)
    best = []
    for field, group in schema.items():
        columns = [
            column
            for column, value in zip(range(group.start, group.stop), field.values(), strict=True)
            if FEWEST <= carriers[column] <= MOST_COMMON * len(reference) and value.code not in (MISSING, OTHER)
        ]
        if columns and not isinstance(field, NumberField):
            best.append((group.kind == "categorical", *max((int(carriers[c]), -c) for c in columns)))
    ranked = sorted(best, key=lambda item: (item[0], -item[1], -item[2]))
    return [-place for _, _, place in ranked[:TARGETS]]


def target_measures(
    comparison: Comparison, targets: Sequence[Target], label_values: int, seed: int, progress: Callable[[str], None]
) -> list[Measure]:
    """AUROC and AUPRC on the reference patients for each target and quick classifier, their means first."""
    rng = np.random.default_rng([seed, 4])
    cohorts = [cohort.sample(TARGET_PATIENTS, rng) for cohort in comparison.contenders()]
    names = {key: name for key, (name, _) in classifiers(seed).items() if key in QUICK}
    single: dict[tuple[str, str], list[Measure]] = {(key, area): [] for key in names for area in AREAS}
    for target in targets:
        progress(f"predict {target.title}")
        train = [target.examples(cohort, label_values) for cohort in cohorts]
        test = target.examples(comparison.reference, label_values)
        for key, name in names.items():
            fitted = [fit(classifiers(seed)[key][1], examples) for examples in train]
            scores = [model.judge(test, "the real test patients", rng) for model in fitted]
            for place, area in enumerate(AREAS):
                value, ceiling, floor = (score[place] for score in scores)
                single[key, area].append(
                    _measure(f"target_{key}_{area}[{target.name}]", target.title, name, area, value, ceiling, floor)
                )
    means = [
        _measure(f"target_{key}_{area}", MEAN, names[key], area, *_means(measures))
        for (key, area), measures in single.items()
    ]
    return [*means, *(measure for measures in single.values() for measure in measures)]


def _measure(
    key: str, what: str, classifier: str, area: str, value: Reading, ceiling: Reading, floor: Reading
) -> Measure:
    title = f"{what}: {classifier}, {area.upper()}"
    return Measure(key=key, title=title, section=SECTION, aim="one", value=value, ceiling=ceiling, floor=floor)


def _means(measures: Sequence[Measure]) -> tuple[Reading, Reading, Reading]:
    """Mean value, ceiling and floor over the targets for which all three are defined, so that they stay comparable."""
    triples = [(m.value.value, m.ceiling.value, m.floor.value) for m in measures]
    known = [[x for x in triple if x is not None] for triple in triples if None not in triple]
    if not known:
        nothing = undefined("no target is defined for all three cohorts")
        return nothing, nothing, nothing
    value, ceiling, floor = (defined(float(mean)) for mean in np.mean(known, axis=0))
    return value, ceiling, floor
