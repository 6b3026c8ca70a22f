"""A stored model of the small schema, for all tests of sampling."""

from pathlib import Path

import numpy as np
import pytest

from synclave_server.aggregate import ServerState
from synclave_server.snapshots import write_snapshot
from synclave_shared.models.codes import build_code_denoiser
from synclave_shared.models.parameters import parameter_vector
from synclave_shared.plan import ModelSpec
from tests.models.small import LAYOUT, small_plan, small_schema
from tests.sampling.stored import ANCHOR


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a strong positive coupling of codes 0 and 1."""
    model = parameter_vector(build_code_denoiser(LAYOUT, ModelSpec()))
    model[1] = 1.0
    folder = tmp_path_factory.mktemp("run") / "snapshot"
    write_snapshot(
        folder,
        plan=small_plan(),
        schema=small_schema().to_json_bytes(),
        round_number=2,
        model=model,
        anchor=ANCHOR,
        label_shares=np.array([0.7, 0.3], np.float32),
        server_state=ServerState(np.zeros(0), np.zeros(0)),
        sites=("north", "south"),
        aggregate_digest="0" * 64,
        ledger_index=9,
    )
    return folder
