"""Who draws: one process with threads, or several processes, each with a model on one device of its own.

Row groups are handed out as workers become free, and come back in any order; rows depend on none of this. A worker
computes with one torch thread per tile, so neither the number of threads nor of processes changes a byte.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final, cast

import numpy as np
import torch
from numpy.typing import NDArray

from synclave_server.sampling.cohort_writer import PartStore
from synclave_server.sampling.kinds import kind_of
from synclave_server.sampling.labels import LabelAssignment
from synclave_server.sampling.notes import NotesSources
from synclave_server.sampling.request import SampleRequest
from synclave_server.snapshots import Snapshot, read_snapshot
from synclave_shared.errors import ConfigurationError, SamplingError, SnapshotError, SynclaveError

__all__ = ["Drawn", "Job", "device_kind", "draw", "plan_jobs"]

GROUPS_AHEAD: Final = 2
"""Row groups that a worker has in hand: while one is stored, its threads compute the next."""

GPU_THREADS: Final = 2
"""Threads that feed one GPU: one prepares and stores while the other's tile is computed."""

GROUPS_PER_PROCESS: Final = 8
"""A process of its own takes seconds to start; it must have some work to be worth it."""

STOP_TIMEOUT_S: Final = 5.0
"""Patience with a worker that was asked to end, before it is killed."""

CORES_PER_PROCESS: Final = 4
"""Threads of one Python process that do not yet stand in each other's way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one worker needs to know; small, because it is sent to another process.

    Attributes:
        snapshot_dir: the model.
        snapshot_digest: SHA-256 of its tensors.
        request: what is asked for.
        parts: where finished row groups go.
        target_dir: the clinical model that guides, if any.
        sources: what else notes are made of.
        device: where to compute.
        threads: tiles computed at a time.
        batch_size: patients whose progress is reported together.
    """

    snapshot_dir: Path
    snapshot_digest: str
    request: SampleRequest
    parts: PartStore
    target_dir: Path | None
    sources: NotesSources | None
    device: str
    threads: int
    batch_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One step ahead.

    Attributes:
        patients: how many were drawn.
        group: the row group whose part is now complete, or None.
    """

    patients: int = 0
    group: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """The three answers of an error in another process."""

    expected: str
    found: str
    remedy: str


def device_kind(devices: Sequence[str]) -> str:
    """The one kind of device, ``cpu`` or ``cuda``, that all names stand for.

    Raises:
        ConfigurationError: if a name is none, names no device of this machine, or they are of several kinds.
    """
    kinds = set()
    for name in devices:
        try:
            device = torch.device(name)
        except RuntimeError as error:
            raise _unusable(str(error).splitlines()[0]) from None
        if device.type not in ("cpu", "cuda"):
            raise _unusable(f"{name}, which is neither cpu nor cuda")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise _unusable(f"{name}, and {torch.cuda.device_count()} CUDA devices on this machine")
        kinds.add(device.type)
    if len(kinds) != 1:
        raise _unusable(f"{', '.join(devices) or 'none'}: rows from devices of two kinds differ in their last bits")
    return kinds.pop()


def _unusable(found: str) -> ConfigurationError:
    return ConfigurationError(
        expected="one or more devices of one kind that torch can use", found=found, remedy="Use --device cpu."
    )


def plan_jobs(
    snapshot_dir: Path,
    snapshot_digest: str,
    request: SampleRequest,
    parts: PartStore,
    *,
    target_dir: Path | None = None,
    sources: NotesSources | None = None,
    devices: Sequence[str],
    workers: int | None,
    batch_size: int,
) -> list[Job]:
    """Share the machine out.

    Args:
        snapshot_dir: the model.
        snapshot_digest: SHA-256 of its tensors.
        request: what is asked for.
        parts: where finished row groups go.
        target_dir: the clinical model that guides, if any.
        sources: what else notes are made of.
        devices: names of devices of one kind.
        workers: processes; None: one per GPU, or on the CPU as many as have work enough and cores.
        batch_size: patients whose progress is reported together.

    Returns:
        One job per worker; together they have as many threads as torch would use.

    Raises:
        ConfigurationError: if there are fewer workers than devices.
    """
    places = [torch.device(name) for name in devices]
    distinct = list(dict.fromkeys("cpu" if place.type == "cpu" else f"cuda:{place.index or 0}" for place in places))
    cores = torch.get_num_threads()
    on_cpu = device_kind(distinct) == "cpu"
    if workers is None:
        useful = min(cores // CORES_PER_PROCESS, len(parts.groups) // GROUPS_PER_PROCESS)
        workers = max(1, useful) if on_cpu else len(distinct)
    if workers < len(distinct):
        raise ConfigurationError(
            expected=f"at least one worker for each of {len(distinct)} devices",
            found=f"{workers}",
            remedy="Leave --workers away, or name fewer devices.",
        )
    return [
        Job(
            snapshot_dir=snapshot_dir,
            snapshot_digest=snapshot_digest,
            request=request,
            parts=parts,
            target_dir=target_dir,
            sources=sources,
            device=distinct[number % len(distinct)],
            threads=max(1, cores // workers) if on_cpu else GPU_THREADS,
            batch_size=batch_size,
        )
        for number in range(workers)
    ]


def draw(jobs: Sequence[Job], snapshot: Snapshot, groups: Sequence[int]) -> Generator[Drawn]:
    """Draw row groups and store their parts; close the iterator to stop early.

    Args:
        jobs: one per worker; a single one, or a single group, is done in this process.
        snapshot: of the jobs.
        groups: numbers of the row groups.

    Raises:
        SamplingError: if a worker fails or is killed.
    """
    useful = jobs[: len(groups)]
    if len(useful) == 1:
        yield from _draw_here(useful[0], snapshot, groups)
    elif useful:
        yield from _draw_elsewhere(useful, groups)


def _draw_here(job: Job, snapshot: Snapshot, groups: Iterable[int]) -> Generator[Drawn]:
    labels = LabelAssignment(list(job.request.label_counts.values()), int(job.request.seed))
    with _faults_explained(job.device), _one_torch_thread(), ThreadPoolExecutor(job.threads, "sampling") as pool:
        generator = kind_of(snapshot).generator(job.device, job.request.precision, _target(job), job.sources)
        batch = -(-job.batch_size // generator.tile) * generator.tile
        in_hand: deque[tuple[int, list[Future[NDArray[np.uint8]]]]] = deque()

        def packed(numbers: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.uint8]:
            # Packed by who drew them: finished batches wait for their group in an eighth of the memory.
            return job.parts.form.pack(generator.features(job.request, numbers, labels))

        def oldest() -> Iterator[Drawn]:
            group, futures = in_hand.popleft()
            rows = []
            for future in futures:
                rows.append(future.result())
                yield Drawn(patients=len(rows[-1]))
            job.parts.write(group, np.concatenate(rows))
            yield Drawn(group=group)

        try:
            for group in groups:
                numbers = job.parts.groups.numbers(group)
                given = labels.of(numbers)
                batches = [slice(start, start + batch) for start in range(0, len(numbers), batch)]
                work = [pool.submit(packed, numbers[part], given[part]) for part in batches]
                in_hand.append((group, work))
                if len(in_hand) == GROUPS_AHEAD:
                    yield from oldest()
            while in_hand:
                yield from oldest()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _target(job: Job) -> Snapshot | None:
    if job.target_dir is None:
        return None
    target = read_snapshot(job.target_dir)
    if target.record.tensors_digest != job.request.target:
        raise SnapshotError(
            expected=f"the clinical model with SHA-256 {str(job.request.target)[:16]}... in {job.target_dir}",
            found="another one, put there meanwhile",
            remedy="Copy a snapshot to a folder of its own before sampling with it.",
        )
    return target


@contextmanager
def _faults_explained(device: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # all that torch says of a device: lost, out of memory, not supported
        raise SamplingError(
            expected=f"to draw patients on {device}",
            found=str(error).splitlines()[0],
            remedy="Finished parts are kept: the same command goes on. If memory ran out, use fewer --workers.",
        ) from error


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _draw_elsewhere(jobs: Sequence[Job], groups: Sequence[int]) -> Generator[Drawn]:
    # "spawn": a forked copy of a process with threads may hang, and CUDA does not survive a fork.
    context = multiprocessing.get_context("spawn")
    pending = deque(groups)
    working: dict[Connection, SpawnProcess] = {}

    def assign(connection: Connection) -> None:
        with suppress(OSError):  # whose worker is dead, which we learn from its silence
            connection.send(pending.popleft() if pending else None)

    try:
        with _interrupts_for_us_alone():
            for number, job in enumerate(jobs):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(job, theirs), name=f"worker {number}", daemon=True)
                process.start()
                theirs.close()  # so that its end is seen as the end of the pipe
                working[ours] = process
        for connection in list(working):
            for _ in range(GROUPS_AHEAD):
                assign(connection)
        while working:
            for connection in cast(list[Connection], wait(list(working))):
                step = _receive(connection, working[connection])
                if step is None:
                    working.pop(connection).join()
                    continue
                if step.group is not None:
                    assign(connection)
                yield step
    finally:
        for process in working.values():
            process.terminate()
        for process in working.values():
            process.join(STOP_TIMEOUT_S)
            process.kill()
            process.join()


def _receive(connection: Connection, process: SpawnProcess) -> Drawn | None:
    """The next message of a worker; None when it has no more to do."""
    try:
        message: Drawn | _Failure | None = connection.recv()
    except (EOFError, OSError):
        process.join()
        raise SamplingError(
            expected=f"{process.name} to draw to the end",
            found=f"it was ended by signal {-process.exitcode}"
            if process.exitcode is not None and process.exitcode < 0
            else f"it ended with status {process.exitcode}",
            remedy="Finished parts are kept: the same command goes on. If memory ran out, use fewer --workers.",
        ) from None
    if isinstance(message, _Failure):
        raise SamplingError(expected=message.expected, found=message.found, remedy=message.remedy)
    return message


def _work(job: Job, connection: Connection) -> None:
    """The main function of a worker process."""
    try:
        snapshot = read_snapshot(job.snapshot_dir)
        if snapshot.record.tensors_digest != job.snapshot_digest:
            raise SnapshotError(
                expected=f"the snapshot with SHA-256 {job.snapshot_digest[:16]}... in {job.snapshot_dir}",
                found="another one, put there meanwhile",
                remedy="Copy a snapshot to a folder of its own before sampling from it.",
            )
        for step in _draw_here(job, snapshot, iter(connection.recv, None)):
            connection.send(step)
        connection.send(None)
    except (EOFError, ConnectionError):
        return  # whoever asked us is gone
    except SynclaveError as error:
        failure = _Failure(expected=error.expected, found=error.found, remedy=error.remedy)
    except OSError as error:
        failure = _Failure(
            expected=f"to store patients in {job.parts.folder}",
            found=error.strerror or str(error),
            remedy="Finished parts are kept: the same command goes on. Check the disk.",
        )
    else:
        return
    with suppress(OSError):
        connection.send(failure)


@contextmanager
def _interrupts_for_us_alone() -> Iterator[None]:
    """Processes started in the block never receive Ctrl-C: the parent does, and ends them."""
    resource_tracker.ensure_running()  # at the first start of a process it would let them receive it again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
