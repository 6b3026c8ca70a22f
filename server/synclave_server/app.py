"""The ServerApp of every run, in a deployment as in a simulation: one plan, trained round by round.

Where the run lies and with which key it is signed comes from the environment of the process, which the coordinator
sets; Flower's run configuration, which is unsigned, is not read.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

import numpy as np
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from numpy.typing import NDArray

from synclave_server.cohort import Transport
from synclave_server.exchanges import (
    Exchange,
    InfluenceExchange,
    MarginalsExchange,
    MomentsExchange,
    Procedure,
    ScoresExchange,
    SeriesMarginalsExchange,
    TrainingExchange,
)
from synclave_server.federation.transport import GridTransport
from synclave_server.rounds import run_training
from synclave_server.run_folder import RoundProgress, RunFolder
from synclave_server.warm_start import load_start
from synclave_shared.data.modality import AnySchema, schema_from_json
from synclave_shared.data.notes.schema import NotesSchema
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import SynclaveError
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.model_size import parameters_of
from synclave_shared.model_spec import EMBEDDED
from synclave_shared.models.anchor import Anchor
from synclave_shared.models.copula import copula_vector, independent_copula
from synclave_shared.models.layout import CodeLayout
from synclave_shared.models.series.anchor import SeriesAnchor
from synclave_shared.models.series.layout import SeriesLayout
from synclave_shared.plan import (
    ClassifierSpec,
    CopulaSpec,
    InfluenceSpec,
    ModelSpec,
    NotesSpec,
    RoundKind,
    ScoresSpec,
    SeriesSpec,
    TrainPlan,
)

__all__ = ["COORDINATOR_KEY_VARIABLE", "RUN_VARIABLE", "app", "conduct", "procedure_of"]

RUN_VARIABLE: Final = "SYNCLAVE_RUN"
"""Environment variable with the run's folder."""

COORDINATOR_KEY_VARIABLE: Final = "SYNCLAVE_COORDINATOR_KEY"
"""Environment variable with the file of the coordinator's Ed25519 key."""

_log = logging.getLogger("synclave.rounds")

app = ServerApp()


@app.main()
def main(grid: Grid, _context: Context) -> None:
    """Run the plan that the environment names."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would write a line per look for replies
    run = RunFolder(Path(os.environ[RUN_VARIABLE]))
    conduct(run, GridTransport(grid), os.environ[COORDINATOR_KEY_VARIABLE])


def conduct(run: RunFolder, transport: Transport, coordinator_key: str) -> None:
    """Run a prepared plan; however it ends, the last event of its progress says so.

    An error that a person can act on becomes a ``failed`` event, which the launcher shows. Anything else does too, and
    is raised, so that Flower's status of the run and the process's log tell of it as well.
    """
    try:
        plan = run.plan()
        key = SigningKey.named(coordinator_key)
        start = None if plan.warm_start is None else run.start()
        run_training(run, transport, key, procedure_of(plan, schema_from_json(run.schema()), start))
    except SynclaveError as error:
        _log.error("%s", error)
        _report_failure(run, expected=error.expected, found=error.found, remedy=error.remedy)
    except Exception as error:
        _report_failure(
            run,
            expected="the run to be completed",
            found=f"{type(error).__name__}: {error}",
            remedy=f"Read the logs in {run.logs}; start the same command again to resume.",
        )
        raise


def _report_failure(run: RunFolder, *, expected: str, found: str, remedy: str) -> None:
    run.report(
        RoundProgress(stage="failed", text="the run stopped", rounds=0, expected=expected, found=found, remedy=remedy)
    )


def procedure_of(plan: TrainPlan, schema: AnySchema, start: bytes | None) -> Procedure:
    """How a plan is run; a trained model begins as the untrained one, public and the same at every start, or warm.

    Args:
        plan: the plan.
        schema: its schema.
        start: content of the run's warm start, if the plan names one.

    Raises:
        SnapshotError: if ``start`` is not what the plan names.
    """
    if isinstance(schema, SeriesSchema):
        return _series_procedure(plan, schema, start)
    if isinstance(schema, NotesSchema):
        return _notes_procedure(plan, start)
    layout = CodeLayout.of(schema)
    if isinstance(plan.model, CopulaSpec):

        def independent(anchor: Anchor) -> NDArray[np.float32]:
            return copula_vector(independent_copula(anchor, layout))

        moments: dict[RoundKind, Exchange] = {
            "marginals": MarginalsExchange(plan=plan, schema=schema, model=independent),
            "moments": MomentsExchange(plan=plan, layout=layout),
        }
        return Procedure(start=np.zeros(0, np.float32), fixed_size=False, exchanges=moments)
    # torch takes seconds to load; whoever imports this module for its names alone, or fits a copula, need not wait.
    from synclave_shared.models.codes import anchor_size, build_code_denoiser
    from synclave_shared.models.parameters import parameter_vector

    assert isinstance(plan.model, ModelSpec)  # noqa: S101 - the plan is of its schema's modality
    parameters = parameter_vector(build_code_denoiser(layout, plan.model))
    training: dict[RoundKind, Exchange] = {
        "marginals": MarginalsExchange(plan=plan, schema=schema),
        "training": TrainingExchange(plan=plan, size=parameters.size, anchor_size=anchor_size(schema)),
    }
    return Procedure(
        start=parameters if start is None else load_start(start, plan, parameters.size),
        fixed_size=True,
        exchanges=training,
    )


def _notes_procedure(plan: TrainPlan, start: bytes | None) -> Procedure:
    spec = plan.model
    assert isinstance(spec, NotesSpec)  # noqa: S101 - the plan is of its schema's modality
    size = spec.parameter_count()
    if start is not None:
        first = load_start(start, plan, size)
    elif spec.base == EMBEDDED:
        from synclave_shared.models.note_base import build_note_lm, find_base
        from synclave_shared.models.parameters import parameter_vector

        first = parameter_vector(build_note_lm(spec, find_base(spec)))
    else:
        first = np.zeros(size, np.float32)  # adapters, which change nothing yet
    exchanges: dict[RoundKind, Exchange] = {"training": TrainingExchange(plan=plan, size=size, anchor_size=0)}
    return Procedure(start=first, fixed_size=True, exchanges=exchanges)


def _series_procedure(plan: TrainPlan, schema: SeriesSchema, start: bytes | None) -> Procedure:
    from synclave_shared.models.parameters import parameter_vector
    from synclave_shared.models.series.denoiser import build_series_denoiser

    layout, spec = SeriesLayout.of(schema), plan.model
    anchor_size = SeriesAnchor.size(layout)
    if isinstance(spec, ClassifierSpec):
        size = parameters_of(spec, schema)
        assert start is not None  # noqa: S101 - such a plan has a warm start
        known = load_start(start, plan, size + anchor_size + layout.label_values)
        model, anchor, shares = np.split(known, [size, size + anchor_size])
        exchange: Exchange
        match spec:
            case InfluenceSpec():
                exchange = InfluenceExchange(plan=plan, size=size)
            case ScoresSpec():
                exchange = ScoresExchange(plan=plan, parameters=size, label_values=layout.label_values)
            case _:
                exchange = TrainingExchange(plan=plan, size=size, anchor_size=anchor_size, with_shares=True)
        return Procedure(
            start=model,
            fixed_size=isinstance(exchange, TrainingExchange),
            exchanges={plan.round_kind(1): exchange},
            anchor=anchor,
            label_shares=shares,
        )
    assert isinstance(spec, SeriesSpec)  # noqa: S101 - the plan is of its schema's modality
    parameters = parameter_vector(build_series_denoiser(layout, spec))
    exchanges: dict[RoundKind, Exchange] = {
        "marginals": SeriesMarginalsExchange(plan=plan, layout=layout),
        "training": TrainingExchange(plan=plan, size=parameters.size, anchor_size=anchor_size, with_shares=True),
    }
    return Procedure(
        start=parameters if start is None else load_start(start, plan, parameters.size),
        fixed_size=True,
        exchanges=exchanges,
    )
