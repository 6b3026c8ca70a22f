from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from synclave_client.gateway.app import SOCKETS_VARIABLE
from synclave_server.app import COORDINATOR_KEY_VARIABLE, RUN_VARIABLE, app
from synclave_server.run_folder import RunFolder
from synclave_shared.data.modality import AnySchema
from synclave_shared.fixed_point import from_fixed
from synclave_shared.ledger.entry import SnapshotWritten
from synclave_shared.models.codes import parameter_count
from synclave_shared.plan import ModelSpec, TrainPlan
from synclave_shared.protocol import decode_update
from tests.federation.grid import InProcessGrid, Node
from tests.federation.hospitals import NAMES, SCHEMA, Site, ToyWorkload, entries, make_plan, prepare


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="syn"))
    yield folder
    shutil.rmtree(folder)


class World:
    """Three sites, a grid and a run.

    Args:
        folder: where everything lies.
        plan: of the run.
        start: parameters that it begins with.
        schema: of the plan.
    """

    def __init__(self, folder: Path, plan: TrainPlan, start: bytes | None = None, schema: AnySchema = SCHEMA) -> None:
        self.folder = folder
        self.run: RunFolder = prepare(folder / "run", plan, start, schema)
        self.sites = {name: Site(name, folder / name, ToyWorkload(name)) for name in NAMES}
        self.grid = InProcessGrid({100 + number: Node(number) for number in range(len(NAMES))})

    def node(self, name: str) -> Node:
        """The node of a site."""
        return self.grid.nodes[100 + NAMES.index(name)]

    @contextmanager
    def up(self) -> Iterator[None]:
        """Run the sites' vaults."""
        opened = []
        try:
            for number, name in enumerate(NAMES):
                self.sites[name].open(self.folder / f"{number}.sock")
                opened.append(self.sites[name])
            yield
        finally:
            for site in opened:
                site.close()

    def train(self) -> None:
        """What Flower does: run the real ServerApp."""
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1
        app(self.grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={}))

    def digests(self) -> dict[int, str]:
        """Snapshot digests by round, from the ledger."""
        return {
            entry.body.round: entry.body.snapshot_digest
            for entry in entries(self.run)
            if isinstance(entry.body, SnapshotWritten)
        }

    def mean_of_last_updates(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Slow truth: what sites sent in the last round (the reply before that to the close), weighted by hand."""
        patients = [self.run.plan().site(name).nominal_patients for name in names]
        size = parameter_count(SCHEMA, ModelSpec())
        updates = [from_fixed(decode_update(self.sites[name].replies[-2].payload, size)) for name in names]
        return np.average(updates, axis=0, weights=patients)


NewWorld = Callable[..., World]
"""What :func:`new_world` gives."""


@pytest.fixture
def new_world(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NewWorld]:
    """Makes worlds; the environment leads the real apps to the newest one."""
    worlds: list[World] = []

    def make(
        start: bytes | None = None, plan: TrainPlan | None = None, schema: AnySchema = SCHEMA, **federation: Any
    ) -> World:
        folder = short_folder / str(len(worlds))
        folder.mkdir()
        world = World(folder, plan or make_plan(start, **federation), start, schema)
        key = folder / "coordinator.key"
        key.touch(mode=0o600)
        key.write_text(base64.b64encode(b"c" * 32).decode() + "\n")
        monkeypatch.setenv(RUN_VARIABLE, str(world.run.path))
        monkeypatch.setenv(COORDINATOR_KEY_VARIABLE, str(key))
        monkeypatch.setenv(SOCKETS_VARIABLE, str(folder))
        monkeypatch.setattr("synclave_server.rounds.JOIN_TIMEOUT_S", 2.0)
        monkeypatch.setattr("synclave_server.federation.transport.POLL_INTERVAL_S", 0.005)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.grid.close()
