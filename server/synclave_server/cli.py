"""``synclave``: what a coordinator runs. Every command prints one JSON document with ``--json``."""

from __future__ import annotations

import os
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import click
import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperCommand, TyperOption

from synclave_shared.audit import console as frame
from synclave_shared.errors import ConfigurationError

__all__ = ["app", "main"]

app = typer.Typer(
    name="synclave",
    help="Coordinate a federated, differentially private training; sample synthetic patients; evaluate them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
HomeOption = Annotated[Path, typer.Option("--home", help="The coordinator's folder, with its key.", metavar="DIR")]
KeyOption = Annotated[
    str | None,
    typer.Option("--key", help="The coordinator's key: file:PATH or env:NAME (default: in --home).", metavar="URI"),
]
SiteKeysOption = Annotated[
    list[str] | None,
    typer.Option(
        "--site-key", help="A site's public key as NAME=KEY, from `synclave-site init`; repeat.", metavar="NAME=KEY"
    ),
]
_DEFAULT_HOME: Final = Path("synclave-home")


class Modality(StrEnum):
    """Kinds of data the demo knows."""

    CODES = "codes"
    SERIES = "series"


class SampledModality(StrEnum):
    """Kinds of data that can be drawn."""

    CODES = "codes"
    SERIES = "series"
    NOTES = "notes"


class TargetBy(StrEnum):
    """Ways in which a clinical model guides."""

    INFLUENCE = "influence"
    CLASSIFIER = "classifier"


class NetworkPrecision(StrEnum):
    """What a network computes in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Corruption(StrEnum):
    """What training hides of a patient."""

    GAUSSIAN = "gaussian"
    MASKED = "masked"


class _SampleCommand(TyperCommand):
    """Help that also lists what only modules with torch and pyarrow know: they load too slowly for every command."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from synclave_server.sampling.cohort_formats import FORMATS
        from synclave_server.sampling.request import samplers_of

        of_codes = f"{', '.join(samplers_of('gaussian'))}; of masked models {', '.join(samplers_of('masked'))}"
        samplers = f"{of_codes}; of notes {', '.join(samplers_of('words'))}"
        names = {"sampler": samplers, "cohort_format": ", ".join(FORMATS)}
        for parameter in self.params:
            if isinstance(parameter, TyperOption) and parameter.name in names:
                parameter.help = f"{parameter.help} There are: {names[parameter.name]}."
        super().format_help(ctx, formatter)


def _output(as_json: bool) -> Console:
    """Where a command talks to a person: with ``--json`` standard output belongs to the document alone."""
    return Console(stderr=as_json)


def _show(document: dict[str, Any], as_json: bool, draw: Callable[[Console], None]) -> None:
    if as_json:
        frame.print_json(document)
    else:
        draw(Console())


def _pairs(items: list[str] | None, what: str) -> dict[str, str]:
    """Read repeated ``NAME=VALUE`` options."""
    pairs: dict[str, str] = {}
    for item in items or []:
        name, separator, value = item.partition("=")
        if not (name and separator and value) or name in pairs:
            raise ConfigurationError(
                expected=f"{what}, each name once", found=item, remedy="Write the name, =, and the value."
            )
        pairs[name] = value
    return pairs


def _number(text: str, what: str) -> Decimal:
    """An exact number from an option that must not become a binary float."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0:
        raise ConfigurationError(expected=f"{what}: a number, 0 or above", found=text, remedy="Write it like 3 or 0.5.")
    return number


def _epsilon(text: str | None, what: str) -> Decimal | None:
    number = None if text is None else _number(text, what)
    if number == 0:
        raise ConfigurationError(
            expected=f"{what}: an epsilon above 0", found="0", remedy="With a budget of 0 nothing can be trained."
        )
    return number


@app.command()
def demo(
    modality: Annotated[Modality, typer.Option(help="Kind of data.")] = Modality.CODES,
    out: Annotated[
        Path | None, typer.Option(help="New folder for everything (default: synclave-demo/<time>).", metavar="DIR")
    ] = None,
    epsilon: Annotated[str | None, typer.Option(help="Privacy budget of each hospital (default: the plan's).")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, max=1000, help="Training rounds (default: the plan's).")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of sampling and evaluation.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Four hospitals on this machine train together on embedded real data; then sample, evaluate and audit."""
    from synclave_server.demo import draw_demo, run_demo

    target = _epsilon(epsilon, "--epsilon")
    document = run_demo(modality.value, out=out, epsilon=target, rounds=rounds, seed=seed, console=_output(as_json))
    _show(document, as_json, lambda console: draw_demo(document, console))


@app.command()
def simulate(
    plan: Annotated[Path, typer.Argument(help="Plan file.", metavar="PLAN.toml")],
    out: Annotated[Path, typer.Option(help="Folder of the run; an interrupted run in it is resumed.", metavar="DIR")],
    site: Annotated[
        list[str], typer.Option(help="A site's data folder; one or more after it, or repeat.", metavar="NAME=DIR")
    ],
    more_sites: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    budget: Annotated[
        str | None, typer.Option(help="Budget (epsilon) of every site (default: what the plan spends).")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Gateways that Ray runs at a time.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Train on this machine with many sites, by the same apps in Flower's simulation engine."""
    from synclave_server.simulate import run_simulation

    folders = {name: Path(value) for name, value in _pairs([*site, *(more_sites or [])], "--site NAME=DIR").items()}
    document = run_simulation(
        plan, folders, out=out, budget=_epsilon(budget, "--budget"), workers=workers, console=_output(as_json)
    )

    def draw(console: Console) -> None:
        console.print(f"Snapshot: {escape(document['snapshot'])}", soft_wrap=True)
        console.print(f"Ledger:   {escape(document['ledger'])}  (synclave-audit verify)", soft_wrap=True)

    _show(document, as_json, draw)


@app.command()
def init(
    home: HomeOption = _DEFAULT_HOME,
    key: KeyOption = None,
    name: Annotated[
        str | None, typer.Option(help="Host name by which sites elsewhere reach this machine: makes its certificate.")
    ] = None,
    key_valid_days: Annotated[
        int | None,
        typer.Option(min=1, max=36_500, help="Days for which the new key may sign (default: without end)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the coordinator's key, and a certificate for sites elsewhere. Prints what every site pins."""
    from synclave_server.hosting import authority_for
    from synclave_server.preparation import coordinator_key
    from synclave_shared.ledger.keys import SigningKey

    key_name = coordinator_key(home, named=key, create=True, valid_days=key_valid_days)
    public_key = SigningKey.named(key_name).public_text
    document = {"home": str(home.resolve()), "public_key": public_key}
    if name is not None:
        document["root_certificate"] = str(authority_for(home, name))

    def draw(console: Console) -> None:
        console.print(
            f"Coordinator's folder: {escape(document['home'])}. Keep its key: it signs plans and ledgers.",
            soft_wrap=True,
        )
        console.print(f"Public key, for the sites: [bold]{public_key}[/bold]", soft_wrap=True)
        if "root_certificate" in document:
            console.print(f"Certificate, for the sites: {escape(document['root_certificate'])}", soft_wrap=True)

    _show(document, as_json, draw)


@app.command()
def plan(
    plan: Annotated[Path, typer.Argument(help="Plan file.", metavar="PLAN.toml")],
    site_key: SiteKeysOption = None,
    home: HomeOption = _DEFAULT_HOME,
    key: KeyOption = None,
    out: Annotated[Path | None, typer.Option(help="Sign the plan and lay the run down here.", metavar="DIR")] = None,
    show_alternatives: Annotated[
        bool,
        typer.Option("--alternatives", help="Also: the noise that other rounds and rates need for the same epsilon."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a plan costs, before anything is signed; with --out, sign it."""
    from synclave_server.plan_view import alternatives, cost_document, draw_cost
    from synclave_server.planning import resolve_privacy
    from synclave_server.preparation import coordinator_key, prepare_run, read_draft

    draft = read_draft(plan)
    keys = _pairs(site_key, "--site-key NAME=KEY")
    others = {}
    if show_alternatives:
        others["alternatives"] = alternatives(resolve_privacy(draft.plan_file), draft.plan_file.federation)
    if out is not None:
        signed, folder = prepare_run(draft, key_name=coordinator_key(home, named=key), site_keys=keys, out=out)
        document = cost_document(signed.privacy, signed.federation)
        document |= {"plan_digest": signed.digest, "run": str(folder.path.resolve())}
    else:
        document = cost_document(resolve_privacy(draft.plan_file), draft.plan_file.federation)
    document |= others
    _show(document, as_json, lambda console: draw_cost(document, console))


@app.command()
def run(
    folder: Annotated[Path, typer.Argument(help="Run folder made by `synclave plan --out`.", metavar="RUN")],
    node_key: Annotated[
        list[str],
        typer.Option(help="A site's public node key, or the file with it; repeat.", metavar="NAME=KEY"),
    ],
    home: HomeOption = _DEFAULT_HOME,
    key: KeyOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",  # noqa: S104 - sites come from outside
    port: Annotated[int, typer.Option(min=1, max=65535, help="Public TLS port.")] = 8443,
    name: Annotated[str | None, typer.Option(help="Host name by which the sites reach this machine.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Serve the sites and run a signed plan to its end, or resume it after the last complete round."""
    from synclave_server.hosting import run_hosted
    from synclave_server.preparation import coordinator_key

    document = run_hosted(
        folder,
        home=home,
        key_name=coordinator_key(home, named=key),
        node_keys=_pairs(node_key, "--node-key NAME=KEY"),
        host=host,
        port=port,
        name=name,
        console=_output(as_json),
    )
    _show(document, as_json, lambda console: console.print(f"Snapshot: {escape(document['snapshot'])}", soft_wrap=True))


@app.command(cls=_SampleCommand)
def sample(
    snapshot: Annotated[Path, typer.Option(help="Snapshot folder.", metavar="DIR")],
    patients: Annotated[int, typer.Option(min=1, max=1_000_000_000, help="How many synthetic patients.")],
    out: Annotated[Path, typer.Option(help="What to write; an interrupted command goes on with it.", metavar="OUT")],
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Label value for all patients or for COUNT of them; repeat (default: the measured shares).",
            metavar="NAME=VALUE[:COUNT]",
        ),
    ] = None,
    more_labels: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(help="Column that every patient has, or with =0 has not; repeat.", metavar="COLUMN[=0]"),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="Name of the sampler (default: unipc; masked; of notes, confidence).", metavar="NAME"),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Noise levels visited, or calls that fill notes (default: 10)."),
    ] = None,
    guidance: Annotated[str, typer.Option(help="Weight of classifier-free guidance; 0 is none.")] = "0",
    classifier_guidance: Annotated[
        str, typer.Option(help="Strength of guidance by the measured prevalences' classifier; 0 is none.")
    ] = "0",
    target: Annotated[
        Path | None,
        typer.Option(help="Series: snapshot of the influence vector of a clinical model.", metavar="DIR"),
    ] = None,
    target_by: Annotated[
        TargetBy | None,
        typer.Option(help="With --target: by its influence vector (default), or as a classifier of the label."),
    ] = None,
    guidance_strength: Annotated[
        str | None,
        typer.Option(help="With --target: how far, in deviations of what is open at a level (default: 0.05)."),
    ] = None,
    target_curvature: Annotated[
        bool,
        typer.Option("--target-curvature", help="With --target: by the step that unguided synthetic patients lack."),
    ] = False,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Fixes all randomness; each patient has a stream.")
    ] = 0,
    precision: Annotated[
        NetworkPrecision, typer.Option(help="What the network computes in; bfloat16 is faster on most GPUs.")
    ] = NetworkPrecision.FLOAT32,
    calibrated: Annotated[
        bool, typer.Option("--calibrated/--uncalibrated", help="Codes: bring prevalences back to the measured ones.")
    ] = True,
    modality: Annotated[
        SampledModality | None, typer.Option(help="Refuse a snapshot of another modality (default: whatever it is).")
    ] = None,
    temperature: Annotated[str | None, typer.Option(help="Notes: of the words; lower is plainer (default: 1).")] = None,
    top_k: Annotated[
        int | None, typer.Option(min=0, help="Notes: only so many likeliest words (default: all).")
    ] = None,
    top_p: Annotated[
        str | None, typer.Option(help="Notes: only the likeliest words that add up to this (default: 1, all).")
    ] = None,
    codes: Annotated[
        Path | None, typer.Option(help="Notes: write about the patients of this cohort of codes.", metavar="FILE")
    ] = None,
    codes_schema: Annotated[Path | None, typer.Option(help="Its schema.", metavar="S.toml")] = None,
    models: Annotated[
        Path | None, typer.Option(help="Notes: folder in which a published language model lies.", metavar="DIR")
    ] = None,
    cohort_format: Annotated[str, typer.Option("--format", help="Format of the output.", metavar="NAME")] = "parquet",
    device: Annotated[
        list[str] | None, typer.Option(help="cpu, cuda or cuda:N; repeat to share the work (default: cpu).")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Processes (default: one per GPU; on the CPU, by cores and patients)."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=2**20, help="Patients per sign of progress.")] = 256,
    run: Annotated[
        Path | None,
        typer.Option(help="Run of the snapshot: its ledger is told of the patients; needs the key.", metavar="RUN"),
    ] = None,
    home: HomeOption = _DEFAULT_HOME,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Draw synthetic patients from a snapshot: exact label counts, the same bytes for any workers and batch size.

    Stopped or killed, the same command goes on from the last finished 16,384 patients and ends with the same bytes.
    """
    from synclave_server.preparation import coordinator_key
    from synclave_server.sample_view import notary_of, run_sample

    if target is None and (target_by is not None or guidance_strength is not None or target_curvature):
        raise ConfigurationError(
            expected="--target with --target-by, --target-curvature and --guidance-strength",
            found="no --target",
            remedy="Name the snapshot of an influence vector, or leave them away.",
        )
    if target_curvature and target_by is TargetBy.CLASSIFIER:
        raise ConfigurationError(
            expected="--target-curvature with an influence vector",
            found="--target-by classifier",
            remedy="Leave one of the two away.",
        )
    if (codes is None) != (codes_schema is None):
        raise ConfigurationError(
            expected="--codes and --codes-schema together", found="one of them", remedy="Give both, or neither."
        )
    document = run_sample(
        snapshot,
        patients,
        out=out,
        labels=[*(label or []), *(more_labels or [])],
        given=given or [],
        sampler=sampler,
        steps=steps,
        guidance=_number(guidance, "--guidance"),
        classifier_guidance=_number(classifier_guidance, "--classifier-guidance"),
        target=target,
        target_by=(target_by or TargetBy.INFLUENCE).value,
        target_strength=_number(guidance_strength or "0.05", "--guidance-strength"),
        target_curvature=target_curvature,
        seed=seed,
        precision=precision.value,
        calibrated=calibrated,
        modality=None if modality is None else modality.value,
        notes={
            "temperature": None if temperature is None else _number(temperature, "--temperature"),
            "top_k": top_k,
            "top_p": None if top_p is None else _number(top_p, "--top-p"),
        },
        models=models,
        codes=codes,
        codes_schema=codes_schema,
        cohort_format=cohort_format,
        devices=device or ["cpu"],
        workers=workers,
        batch_size=batch_size,
        console=_output(as_json),
        notary=None if run is None else notary_of(run, coordinator_key(home, named=key), snapshot),
    )
    entry = document["ledger_entry"]
    recorded = "They are in no ledger (--run)." if entry is None else f"Entry {entry} of the ledger tells of them."
    calls = document["network_calls"]
    effort = f", {calls} network calls each" if calls else ""
    _show(
        document,
        as_json,
        lambda console: console.print(
            f"{patients} synthetic patients{effort},"
            f" {document['patients_per_second']:,.0f} per second: {escape(document['out'])}. {recorded}",
            soft_wrap=True,
        ),
    )


@app.command()
def fetch_base(
    name: Annotated[str, typer.Argument(help="Name on the Hugging Face hub.", metavar="NAME")],
    out: Annotated[Path, typer.Option(help="New folder for the model.", metavar="DIR")],
    as_json: JsonOption = False,
) -> None:
    """Fetch a published masked language model for plans of notes. The one command that opens a connection for a model.

    Vocabulary, configuration and weights are stored as safetensors; sites get a copy of the folder, which plans name by
    its digest.
    """
    from synclave_server.fetching import fetch

    document = fetch(name, out)
    _show(
        document,
        as_json,
        lambda console: console.print(
            f"{document['parameters']:,} parameters, digest {document['digest']}: {escape(document['out'])}",
            soft_wrap=True,
        ),
    )


@app.command()
def pretrain(
    schema: Annotated[Path, typer.Option(help="Schema (TOML).", metavar="S.toml")],
    data: Annotated[Path, typer.Option(help="Public patients: a file or a folder of tables.", metavar="FILE")],
    out: Annotated[Path, typer.Option(help="New folder for the model.", metavar="DIR")],
    corruption: Annotated[
        Corruption | None, typer.Option(help="Codes: what training hides of a patient (default: gaussian).")
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(min=0, max=4096, help="Width of the residual tower, 0: none; or of the clinical model."),
    ] = None,
    blocks: Annotated[int | None, typer.Option(min=1, max=16, help="Blocks of either.")] = None,
    coupled_columns: Annotated[
        int | None,
        typer.Option(min=0, max=4096, help="Codes: most prevalent columns that are coupled in pairs; 0: none."),
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Series: the clinical model, such as logistic, gru or transformer.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, max=10_000_000, help="Optimiser steps (default: 4000; of a clinical model 600; of notes 2000)."
        ),
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, max=2**20, help="Patients of a step (default: 512; of notes 32).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Fixes all randomness.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    precision: Annotated[
        NetworkPrecision, typer.Option(help="What the network computes in; bfloat16 is faster on most GPUs.")
    ] = NetworkPrecision.FLOAT32,
    as_json: JsonOption = False,
) -> None:
    """Train a model on public patients WITHOUT privacy, for the warm start of a plan.

    Of notes it is the embedded language model. Of time series it is a clinical model, which may be trained on synthetic
    patients to see at the sites what they teach. Never give it patients of the sites: what it learns of them no later
    noise takes back.
    """
    from synclave_server.pretrain_view import run_pretrain

    document = run_pretrain(
        schema,
        data,
        out=out,
        network={
            "corruption": None if corruption is None else corruption.value,
            "coupled_columns": coupled_columns,
            "architecture": architecture,
            "width": width,
            "blocks": blocks,
        },
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        device=device,
        precision=precision.value,
        console=_output(as_json),
    )
    _show(
        document,
        as_json,
        lambda console: console.print(
            f"{document['parameters']:,} parameters from {document['training']['patients']:,} patients, loss"
            f" {document['loss']:.3f} nats, {document['steps_per_second']:.1f} steps per second:"
            f" {escape(document['out'])}",
            soft_wrap=True,
        ),
    )


@app.command()
def evaluate(
    schema: Annotated[Path, typer.Option(help="Schema (TOML).", metavar="S.toml")],
    real: Annotated[
        list[Path],
        typer.Option(help="Held-out real patients: a file or a folder of tables; repeat for several.", metavar="FILE"),
    ],
    synthetic: Annotated[Path, typer.Option(help="Synthetic patients: a file or a folder.", metavar="FILE")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.json and report.html.", metavar="DIR")],
    train: Annotated[
        list[Path] | None,
        typer.Option(help="Real training patients, where they may be seen; repeat for several.", metavar="FILE"),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder: adds epsilon and provenance.", metavar="DIR")] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="A column to predict from the others; repeat. Default: six common ones.", metavar="FIELD:VALUE"
        ),
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(help="Held-out real patients of one site: adds the measures there; repeat.", metavar="NAME=FILE"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of splits and downstream models.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Compare synthetic with real patients; writes metrics.json and a self-contained report.html."""
    from synclave_server.evaluate_view import draw_evaluation, run_evaluation

    sites = {name: Path(value) for name, value in _pairs(site, "--site NAME=FILE").items()}
    document = run_evaluation(
        schema,
        real,
        synthetic,
        train or [],
        run,
        out=out,
        seed=seed,
        targets=target or [],
        sites=sites,
        console=_output(as_json),
    )
    _show(document, as_json, lambda console: draw_evaluation(document, console))


@app.command()
def augment(
    snapshot: Annotated[Path, typer.Option(help="Snapshot folder; it knows the schema.", metavar="DIR")],
    train: Annotated[
        list[Path],
        typer.Option(help="Real training patients: a file or a folder of tables; repeat for several.", metavar="FILE"),
    ],
    held_out: Annotated[
        list[Path],
        typer.Option(help="Other real patients, to test on; repeat for several.", metavar="FILE"),
    ],
    out: Annotated[Path, typer.Option(help="New folder for the training set and its report.", metavar="DIR")],
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Label value of all added patients or a SHARE of them; repeat (default: the rarest value).",
            metavar="NAME=VALUE[:SHARE]",
        ),
    ] = None,
    alpha: Annotated[
        list[float] | None,
        typer.Option(help="Synthetic patients per real training patient; repeat (default: 0.2, 0.4 to 1)."),
    ] = None,
    draws: Annotated[
        int, typer.Option(min=1, max=100, help="How often patients are drawn and classifiers trained.")
    ] = 3,
    target: Annotated[
        Path | None,
        typer.Option(help="Series: snapshot of the influence vector of a clinical model.", metavar="DIR"),
    ] = None,
    guidance_strength: Annotated[
        str | None,
        typer.Option(help="With --target: how far, in deviations of what is open at each level (default: 0.1)."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Of the first draw; each later one has the next.")
    ] = 0,
    device: Annotated[str, typer.Option(help="What draws: cpu, cuda or cuda:N.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Add synthetic patients to real ones and measure what a classifier gains by them.

    Where the real records are: the training set in OUT holds real patients and may not leave that place.
    """
    from synclave_server.augment_view import draw_augmentation, run_augmentation
    from synclave_server.augmentation.mixture import ALPHAS

    if target is None and guidance_strength is not None:
        raise ConfigurationError(
            expected="--target with --guidance-strength",
            found="no --target",
            remedy="Name the snapshot of an influence vector, or leave the strength away.",
        )
    document = run_augmentation(
        snapshot,
        train,
        held_out,
        out=out,
        labels=label or [],
        alphas=alpha or ALPHAS,
        draws=draws,
        target=target,
        target_strength=_number(guidance_strength or "0.1", "--guidance-strength"),
        device=device,
        seed=seed,
        console=_output(as_json),
    )
    _show(document, as_json, lambda console: draw_augmentation(document, console))


@app.command()
def scores(
    snapshot: Annotated[
        list[str],
        typer.Option(
            help="Snapshot of a run of kind scores, perhaps with a name; repeat to compare.", metavar="[NAME=]DIR"
        ),
    ],
    out: Annotated[Path, typer.Option(help="New folder for scores.json and scores.html.", metavar="DIR")],
    as_json: JsonOption = False,
) -> None:
    """Show how well clinical models predict the sites' patients, from the noisy counts that the sites told."""
    from synclave_server.scores_view import draw_scores, run_scores

    document = run_scores(snapshot, out=out)
    _show(document, as_json, lambda console: draw_scores(document, console))


def main() -> None:
    """Entry point of ``synclave``."""
    # Before any numerical library is loaded: waiting OpenMP threads sleep in place of spinning, which on a machine that
    # others use as well makes the small fits of an evaluation about ten times faster.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    frame.run(app)


if __name__ == "__main__":
    main()
