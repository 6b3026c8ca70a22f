"""Around the rounds: before them a plan is compiled, signed and laid down; after them the ledger is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from synclave_server.planning import PlanFile, compile_plan, parse_plan_file
from synclave_server.run_folder import RunFolder
from synclave_server.warm_start import published_start, read_start
from synclave_shared.canonical import sha256_hex
from synclave_shared.data.modality import AnySchema, load_schema
from synclave_shared.data.series.schema import SeriesSchema
from synclave_shared.errors import ConfigurationError, LedgerError
from synclave_shared.ledger.keys import SigningKey
from synclave_shared.ledger.verify import VerifyReport
from synclave_shared.model_size import parameters_of
from synclave_shared.model_spec import ARCHITECTURES, EMBEDDED, AnyModel, ClassifierSpec, NotesSpec
from synclave_shared.plan import TrainPlan, read_plan_toml, signed_plan_bytes

__all__ = ["Draft", "coordinator_key", "looked_up", "prepare_run", "read_draft", "require_valid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A plan file and what it names, all of it read and checked.

    Attributes:
        plan_file: content of the plan file, an installed clinical model looked up.
        schema_path: the schema's file.
        schema: the schema.
        start: parameters to begin with, as :func:`~synclave_server.warm_start.read_start` gives them; None: the
            untrained network's.
        models_folder: where the plan's published language model lies; None: it has none.
    """

    plan_file: PlanFile
    schema_path: Path
    schema: AnySchema
    start: bytes | None = None
    models_folder: Path | None = None


def read_draft(path: Path) -> Draft:
    """Read a plan file, its schema, and the model that it begins with.

    Raises:
        PlanError: if the plan file cannot be used, the model does not belong to it, or its clinical model is not
            installed.
        SchemaError: if the schema cannot be used.
        SnapshotError: if the model is missing or damaged.
    """
    plan_file = parse_plan_file(read_plan_toml(path))
    schema_path = (path.parent / plan_file.schema_file).resolve()
    schema = load_schema(schema_path)
    named = plan_file.model
    plan_file = plan_file.model_copy(update={"model": looked_up(plan_file.model, schema, path.parent)})
    parameters_of(plan_file.model, schema)  # refuses what does not go together, before anything is calibrated
    start, models_folder = None, None
    if isinstance(named, NotesSpec) and named.base != EMBEDDED:
        models_folder = (path.parent / named.base).resolve().parent
    if plan_file.warm_start is not None:
        start = read_start(
            path.parent / plan_file.warm_start.model,
            schema=schema,
            spec=plan_file.model,
            anchored=plan_file.privacy.marginals is not None,
        )
    elif models_folder is not None:
        assert isinstance(plan_file.model, NotesSpec)  # noqa: S101 - looking up changes no kind
        start = published_start(plan_file.model, models_folder)
    return Draft(plan_file=plan_file, schema_path=schema_path, schema=schema, start=start, models_folder=models_folder)


def looked_up(model: AnyModel, schema: AnySchema, beside: Path = Path()) -> AnyModel:
    """The model; an installed one, or a language model, with what the plan says of it: every site has it or refuses.

    Args:
        model: as a plan file has it.
        schema: the plan's.
        beside: folder that the path of a published language model is relative to.

    Raises:
        PlanError: if it is not installed, or another one than ``model`` names.
    """
    if isinstance(model, NotesSpec):
        # Imported here: no other plan needs torch to be made.
        from synclave_shared.models.note_base import look_up_base

        return look_up_base(model, beside)[0]
    if not isinstance(model, ClassifierSpec) or model.architecture in ARCHITECTURES:
        return model
    if not isinstance(schema, SeriesSchema):
        return model  # refused by its number of parameters, as every clinical model of codes
    from synclave_shared.models.series.installed import look_up
    from synclave_shared.models.series.layout import SeriesLayout

    return look_up(SeriesLayout.of(schema), model)


def coordinator_key(
    home: Path, *, named: str | None = None, create: bool = False, valid_days: int | None = None
) -> str:
    """The name of the coordinator's key (``SigningKey.named``): the one given, or of the file in its home folder.

    Args:
        home: the coordinator's folder.
        named: ``file:PATH``, a path alone, or ``env:NAME``; None for the key in the home folder.
        create: make that one if there is none.
        valid_days: for how many days a key that is made may sign; None: without end.

    Raises:
        ConfigurationError: if there is none and none shall be made, or ``valid_days`` is meant for one that is there.
    """
    if valid_days is not None and (named is not None or (home / "coordinator.key").exists()):
        raise ConfigurationError(
            expected="a key that is made here, to give it an end",
            found=f"the key {named or home / 'coordinator.key'}",
            remedy="Leave --key-valid-days away, or choose another --home for a new key.",
        )
    if named is not None:
        SigningKey.named(named)
        # Processes of the run have another working directory.
        scheme, _, rest = named.partition(":")
        return named if scheme == "env" else f"file:{Path(rest if scheme == 'file' else named).resolve()}"
    path = home / "coordinator.key"
    if path.exists():
        return f"file:{path.resolve()}"
    if not create:
        raise ConfigurationError(
            expected=f"the coordinator's key at {path}",
            found="none",
            remedy="Run `synclave init` once, or name the right --home.",
        )
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    SigningKey.generate(path, valid_days)
    return f"file:{path.resolve()}"


def prepare_run(draft: Draft, *, key_name: str, site_keys: Mapping[str, str], out: Path) -> tuple[TrainPlan, RunFolder]:
    """Compile, sign and store the plan.

    Args:
        draft: plan file, schema and start.
        key_name: names the coordinator's key.
        site_keys: public key of every site by name.
        out: folder of the run; if it holds the very same plan, that run is resumed.

    Raises:
        PlanError: if the plan and the sites do not fit together.
        FederationError: if ``out`` holds the run of another plan.
    """
    key = SigningKey.named(key_name)
    plan = compile_plan(
        draft.plan_file,
        schema=draft.schema,
        coordinator_key=key.public_text,
        site_keys=site_keys,
        warm_start=None if draft.start is None else sha256_hex(draft.start),
    )
    content = plan.to_bytes()
    return plan, RunFolder.prepare(
        out, content, key.sign_text(signed_plan_bytes(content)), draft.schema.to_json_bytes(), draft.start
    )


def require_valid(audit: VerifyReport, ledger: Path) -> None:
    """Refuse to call a run finished whose ledger does not verify.

    Raises:
        LedgerError: naming every finding.
    """
    if not audit.valid:
        raise LedgerError(
            expected="a ledger without findings",
            found="; ".join(finding.explanation for finding in audit.findings),
            remedy=f"Run: synclave-audit verify {ledger}",
        )
