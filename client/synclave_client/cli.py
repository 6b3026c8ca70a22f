"""``synclave-site``: what a hospital runs. Every command prints one JSON document with ``--json``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape

from synclave_client.settings import CoordinatorAddress, SiteSettings
from synclave_shared.audit import console
from synclave_shared.errors import ConfigurationError

__all__ = ["app", "main"]

app = typer.Typer(
    name="synclave-site",
    help="Take part in federated trainings; decide, spend and prove this hospital's privacy budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SettingsOption = Annotated[Path, typer.Option("--settings", help="The site's settings file.", metavar="SITE.toml")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
KeyValidDaysOption = Annotated[
    int | None, typer.Option(min=1, max=36_500, help="Days for which the new key may sign (default: without end).")
]
_DEFAULT_SETTINGS: Final = Path("site.toml")


def _show(document: dict[str, Any], as_json: bool, draw: Callable[[Console], None]) -> None:
    if as_json:
        console.print_json(document)
    else:
        draw(Console())


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="New folder for settings, key and journal.", metavar="DIR")],
    name: Annotated[str, typer.Option(help="Name of this site in plans and ledgers.")],
    data: Annotated[Path, typer.Option(help="Folder with the patients' tables.")],
    schema: Annotated[Path, typer.Option(help="Schema of those tables (TOML).")],
    coordinator_key: Annotated[str, typer.Option(help="Public key of the one coordinator to trust (base64).")],
    epsilon: Annotated[str, typer.Option(help="Budget: largest epsilon that all trainings together may spend.")],
    delta: Annotated[str, typer.Option(help="Delta at which that epsilon is meant.")] = "0.00001",
    dataset: Annotated[
        str | None, typer.Option(help="Name of the data set under the budget (default: the name).")
    ] = None,
    minimum_noise: Annotated[str, typer.Option(help="Floor for every noise multiplier of a plan.")] = "0.3",
    device: Annotated[str, typer.Option(help="Where to train: cpu, cuda or cuda:N.")] = "cpu",
    socket: Annotated[Path | None, typer.Option(help="The vault's Unix socket (default: DIR/run/vault.sock).")] = None,
    models: Annotated[
        Path | None, typer.Option(help="Folder with published language models, for plans of notes that name one.")
    ] = None,
    gateway_group: Annotated[
        str | None, typer.Option(help="Group of the gateway's user, if it is another user.")
    ] = None,
    superlink: Annotated[str | None, typer.Option(help="The coordinator's public address, HOST:PORT.")] = None,
    root_certificate: Annotated[
        Path | None, typer.Option(help="PEM file of the authority behind that address.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(help="Signing key made elsewhere: file:/PATH or env:NAME (default: a new file).", metavar="URI"),
    ] = None,
    key_valid_days: KeyValidDaysOption = None,
    as_json: JsonOption = False,
) -> None:
    """Set up a site: settings, signing key, empty journal. Prints the public key that the coordinator needs."""
    from synclave_client.vault.service import initialise
    from synclave_shared.data.modality import load_schema
    from synclave_shared.node_keys import node_key

    settings_file = folder.resolve() / "site.toml"
    if settings_file.exists():
        raise ConfigurationError(
            expected="a new folder", found=f"{settings_file}", remedy="Edit that file, or choose another folder."
        )
    if (superlink is None) != (root_certificate is None):
        raise ConfigurationError(
            expected="--superlink and --root-certificate together",
            found="one of them",
            remedy="Ask the coordinator for the other; leave both away to set up the vault alone.",
        )
    address = None
    if root_certificate is not None:
        address = {
            "superlink": superlink,
            "root_certificate": root_certificate.resolve(),
            "state_folder": settings_file.parent / "gateway",
        }
    settings = SiteSettings.of(
        "the options",
        {
            "name": name,
            "coordinator_key": coordinator_key,
            "dataset": dataset or name,
            "data_folder": data.resolve(),
            "schema_file": schema.resolve(),
            "state_folder": settings_file.parent / "state",
            "key": key,
            "socket_path": socket.resolve() if socket else settings_file.parent / "run" / "vault.sock",
            "gateway_group": gateway_group,
            "models_folder": None if models is None else models.resolve(),
            "device": device,
            "budget": {"epsilon": epsilon, "delta": delta},
            "policy": {"minimum_noise_multiplier": minimum_noise},
            "gateway": address,
        },
    )
    load_schema(settings.schema_file)
    settings_file.parent.mkdir(parents=True, exist_ok=True)
    public_key = initialise(settings, key_valid_days)
    document = {"name": name, "settings": str(settings_file), "public_key": public_key}
    if settings.gateway is not None:
        document["node_key"] = node_key(settings.gateway.state_folder / "node.key")
    settings_file.write_text(settings.to_toml(), encoding="utf-8")

    def draw(out: Console) -> None:
        out.print(
            f"[green]Site {escape(name)} is set up.[/green] Settings: {escape(str(settings_file))}", soft_wrap=True
        )
        out.print(f"Public key, for the coordinator: [bold]{public_key}[/bold]", soft_wrap=True)
        if "node_key" in document:
            out.print(f"Node key of the gateway, likewise: [bold]{document['node_key']}[/bold]", soft_wrap=True)
        out.print(
            f"Back up {escape(str(settings.state_folder))}: without its journal nobody knows what was spent.",
            soft_wrap=True,
        )
        out.print("Next: synclave-site check-data, then synclave-site run.")

    _show(document, as_json, draw)


@app.command("check-data")
def check_data(
    folder: Annotated[Path, typer.Argument(help="Folder with the patients' tables.", metavar="DIR")],
    schema: Annotated[Path, typer.Option(help="Schema to check against (TOML).", metavar="S.toml")],
    as_json: JsonOption = False,
) -> None:
    """Check a folder of tables against a schema and name every fault by file, row and column. Sends nothing."""
    from synclave_client.check_view import draw_report
    from synclave_shared.data.modality import check_folder, load_schema

    loaded = load_schema(schema)
    report = check_folder(loaded, folder)
    _show(report.to_dict(), as_json, lambda out: draw_report(out, loaded, report))
    if not report.ok:
        raise typer.Exit(1)


@app.command("import-meds")
def import_meds(
    dataset: Annotated[Path, typer.Argument(help="MEDS dataset: the folder with data and metadata.", metavar="MEDS")],
    schema: Annotated[Path, typer.Option(help="Schema that reads MEDS (docs/meds.md).", metavar="S.toml")],
    out: Annotated[Path, typer.Option(help="New folder for the tables that the schema reads.", metavar="DIR")],
    labels: Annotated[
        Path | None, typer.Option(help="Label file, or folder of them, if the schema reads labels.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only subjects of this split (default: all).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Turn a MEDS dataset into the tables that a schema reads; what it does not read is counted. Sends nothing."""
    from synclave_client.import_view import draw_import
    from synclave_shared.data.meds import importing
    from synclave_shared.data.modality import load_schema

    report = importing.import_meds(dataset, load_schema(schema), out, split=split, labels=labels)
    _show(report.to_dict(), as_json, lambda console: draw_import(console, report, schema))


@app.command()
def rewrite(
    notes: Annotated[Path, typer.Argument(help="Folder or file with the notes.", metavar="NOTES")],
    schema: Annotated[Path, typer.Option(help="Schema of the notes (TOML).", metavar="S.toml")],
    model: Annotated[Path, typer.Option(help="Language model: a run, a public or a published model.", metavar="DIR")],
    out: Annotated[Path, typer.Option(help="New folder for notes.jsonl and provenance.json.", metavar="DIR")],
    ratio: Annotated[float, typer.Option(min=0.01, max=1, help="Share of the other words that is written anew.")] = 0.5,
    keep_entities: Annotated[float, typer.Option(min=0, max=1, help="Share of clinical entities that is kept.")] = 1.0,
    temperature: Annotated[float, typer.Option(min=0, help="Of the draws; higher is more varied.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Only so many likeliest words; 0: all.")] = 0,
    top_p: Annotated[
        float, typer.Option(min=0.01, max=1, help="Only the likeliest words up to this probability.")
    ] = 0.95,
    calls: Annotated[int, typer.Option(min=1, max=32, help="Calls of the network for a try of a note.")] = 10,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="Site whose rules and kept key count; without it, surrogates differ from call to call.",
            metavar="SITE.toml",
        ),
    ] = None,
    canaries: Annotated[
        Path | None, typer.Option(help="Text file of strings that no rewriting may hold, one a line.", metavar="FILE")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Rewrite real notes: identifiers replaced, entities kept, other words anew. The result STAYS IN THE HOSPITAL."""
    from synclave_client.rewriting import read_canaries, rewrite_folder
    from synclave_shared.text.fill_words import Drawing
    from synclave_shared.text.rewrite import RewriteSettings

    screen = Console(stderr=True)
    document = rewrite_folder(
        notes,
        schema,
        model,
        out,
        settings=RewriteSettings(ratio=ratio, keep_entities=keep_entities),
        drawing=Drawing(calls=calls, temperature=temperature, top_k=top_k, top_p=top_p),
        site=None if settings is None else SiteSettings.load(settings),
        canaries=() if canaries is None else read_canaries(canaries),
        progress=lambda done, of: screen.print(f"{done} of {of} patients"),
    )

    def draw(console: Console) -> None:
        console.print(
            f"{document['written']} of {document['notes']} notes rewritten: {escape(str(out))}", soft_wrap=True
        )
        if document["linkage_top1"] is not None:
            console.print(f"Traced to their source by TF-IDF: {document['linkage_top1']:.1%}.")
        for one in document["refused"]:
            console.print(f"Refused: note {one['row']} ({one['reason']}).")
        console.print(f"[bold]{document['statement']}[/bold]")

    _show(document, as_json, draw)


@app.command("self-test")
def self_test(settings: SettingsOption = _DEFAULT_SETTINGS, as_json: JsonOption = False) -> None:
    """Prove the clipping of gradients on this machine, with invented patients. Touches no data, sends nothing."""
    from synclave_client.self_test_view import draw_self_test, self_test_document
    from synclave_client.training.rehearsal import rehearse_schema
    from synclave_client.vault.workload import check_device
    from synclave_shared.data.modality import load_schema

    site = SiteSettings.load(settings)
    check_device(site.device)
    report = rehearse_schema(load_schema(site.schema_file), site.performance, site.device)
    document = self_test_document(site, report)
    _show(document, as_json, lambda out: draw_self_test(out, document))


@app.command()
def budget(settings: SettingsOption = _DEFAULT_SETTINGS, as_json: JsonOption = False) -> None:
    """Show what was spent, what accepted plans may still spend, and what is left, by the composition of everything."""
    from synclave_client.budget_view import budget_document, draw_budget
    from synclave_client.vault.journal import Journal

    site = SiteSettings.load(settings)
    journal = Journal.read(site.journal_file)
    try:
        document = budget_document(site, journal)
    finally:
        journal.close()
    _show(document, as_json, lambda out: draw_budget(out, document))


@app.command()
def afford(
    patients: Annotated[int, typer.Option(min=1, help="Public, rounded number of patients, as in plans.")],
    rounds: Annotated[
        list[int] | None, typer.Option(min=1, max=10_000, help="Number of rounds; repeat (default: 5, 20, 50).")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, max=100_000, help="Steps of a round.")] = 20,
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Expected patients in a step; repeat (default: 1, 4 and 17 % of them)."),
    ] = None,
    settings: SettingsOption = _DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Show which trainings still fit into what is left: rounds against batch, and the noise that each needs."""
    from synclave_client.afford_view import afford_document, draw_afford
    from synclave_client.vault.journal import Journal

    site = SiteSettings.load(settings)
    journal = Journal.read(site.journal_file)
    try:
        document = afford_document(
            site, journal, patients=patients, steps_per_round=steps, rounds=rounds or (), batches=batch or ()
        )
    finally:
        journal.close()
    _show(document, as_json, lambda out: draw_afford(out, document))


@app.command()
def conformance(
    plan: Annotated[
        str, typer.Argument(help="Digest of a plan, or its beginning (default: all).", metavar="[PLAN]")
    ] = "",
    settings: SettingsOption = _DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Show what trainings really did: noise, clipping, selection, measured. Exit code 1 if one did not conform."""
    from synclave_client.conformance_view import conformance_document, draw_conformance
    from synclave_client.vault.conformance import ConformanceFolder

    site = SiteSettings.load(settings)
    document = conformance_document(site, ConformanceFolder(site.conformance_folder), plan)
    _show(document, as_json, lambda out: draw_conformance(out, document))
    if not all(each["passed"] for each in document["plans"]):
        raise typer.Exit(console.EXIT_ERROR)


@app.command()
def withdraw(
    plan: Annotated[str, typer.Argument(help="Digest of the plan, or its beginning (see budget).", metavar="PLAN")],
    settings: SettingsOption = _DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Leave a plan: its further rounds are refused, what it had not spent is free again, what was spent stays spent."""
    from synclave_client.vault.journal import Journal

    site = SiteSettings.load(settings)
    journal = Journal.open(site.journal_file, exclusive=False)
    try:
        found = [spend for spend in journal.plan_spends() if spend.digest.startswith(plan) and not spend.closed]
        if len(found) != 1:
            raise ConfigurationError(
                expected="the digest of one open plan",
                found=f"{plan}, which fits {len(found)}",
                remedy="`synclave-site budget` lists the plans.",
            )
        journal.close_plan(found[0].digest)
    finally:
        journal.close()
    _show(
        {"plan": found[0].digest, "name": found[0].name, "closed": True},
        as_json,
        lambda out: out.print(f"Plan {escape(found[0].name)} ({found[0].digest[:16]}) is closed at this site."),
    )


@app.command("rotate-key")
def rotate_key(
    key_valid_days: KeyValidDaysOption = None,
    settings: SettingsOption = _DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Replace the signing key, also beside a running vault: the old key signs the new one, in every open plan's ledger.

    Plans that are made from now on name the new public key. The old key is removed once no open plan needs it.
    """
    from synclave_client.vault.journal import Journal
    from synclave_client.vault.keyring import rotate

    site = SiteSettings.load(settings)
    journal = Journal.open(site.journal_file, exclusive=False)
    try:
        done = rotate(site, journal, valid_days=key_valid_days)
    finally:
        journal.close()
    document = {
        "name": site.name,
        "old_public_key": done.old,
        "public_key": done.new,
        "not_after": done.not_after,
        "plans": list(done.plans),
    }

    def draw(out: Console) -> None:
        out.print(f"Site {escape(site.name)} signs with a new key from now on.")
        out.print(f"Public key, for the coordinator's next plans: [bold]{done.new}[/bold]", soft_wrap=True)
        out.print(f"Ledgers that are told with the site's next replies: {len(done.plans)}.")
        out.print(f"Back up {escape(str(site.state_folder))}: the new key is there.", soft_wrap=True)

    _show(document, as_json, draw)


@app.command()
def checkpoint(
    plan: Annotated[str, typer.Option(help="Digest of the plan, or its beginning (default: the only plan).")] = "",
    settings: SettingsOption = _DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """Print the newest checkpoint of a plan's ledger that this site verified: an auditor's anchor (verify --seen)."""
    from synclave_client.ledger_view import find_ledger
    from synclave_client.vault.journal import Journal

    site = SiteSettings.load(settings)
    journal = Journal.read(site.journal_file)
    try:
        seen = find_ledger(journal, plan)
    finally:
        journal.close()
    document = {"plan": seen.plan, "size": seen.size, "root": seen.root, "note": seen.note}
    # Byte for byte, whatever the terminal: the signatures are over these lines.
    _show(document, as_json, lambda _: typer.echo(seen.note.encode("utf-8"), nl=False))


@app.command()
def ledger(
    plan: Annotated[str, typer.Option(help="Digest of the plan, or its beginning (default: every plan).")] = "",
    export: Annotated[
        Path | None, typer.Option(help="New folder for the one that is meant, for `synclave-audit verify`.")
    ] = None,
    settings: SettingsOption = _DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """List the ledgers of which this site keeps its own copy, or write one as a folder with the site's co-signature."""
    from synclave_client.ledger_view import draw_ledgers, ledgers_document
    from synclave_client.vault.journal import Journal

    site = SiteSettings.load(settings)
    journal = Journal.read(site.journal_file)
    try:
        document = ledgers_document(site, journal, plan, export)
    finally:
        journal.close()
    _show(document, as_json, lambda out: draw_ledgers(out, document))


@app.command()
def receipts(
    plan: Annotated[str, typer.Option(help="Digest of the plan, or its beginning (default: every plan).")] = "",
    export: Annotated[
        Path | None, typer.Option(help="New folder for one file per entry, for `synclave-audit receipt`.")
    ] = None,
    settings: SettingsOption = _DEFAULT_SETTINGS,
    as_json: JsonOption = False,
) -> None:
    """List what this site signed and where its ledgers hold it, or write the receipts that prove it to anybody."""
    from synclave_client.ledger_view import draw_receipts, receipts_document
    from synclave_client.vault.journal import Journal

    site = SiteSettings.load(settings)
    journal = Journal.read(site.journal_file)
    try:
        document = receipts_document(site, journal, plan, export)
    finally:
        journal.close()
    _show(document, as_json, lambda out: draw_receipts(out, document))


@app.command()
def pause(settings: SettingsOption = _DEFAULT_SETTINGS, as_json: JsonOption = False) -> None:
    """Refuse all plans and rounds from now on, until `resume`. Takes effect at once, also in a running vault."""
    site = SiteSettings.load(settings)
    _require_state(site)
    site.pause_file.touch(mode=0o600)
    _show_pause(site, as_json)


@app.command()
def resume(settings: SettingsOption = _DEFAULT_SETTINGS, as_json: JsonOption = False) -> None:
    """Take part again after `pause`."""
    site = SiteSettings.load(settings)
    _require_state(site)
    site.pause_file.unlink(missing_ok=True)
    _show_pause(site, as_json)


def _require_state(site: SiteSettings) -> None:
    if not site.journal_file.is_file():
        raise ConfigurationError(
            expected=f"the site's journal in {site.state_folder}",
            found="none",
            remedy="Set the site up with `synclave-site init`, or check state_folder in its settings.",
        )


def _show_pause(site: SiteSettings, as_json: bool) -> None:
    paused = site.pause_file.exists()
    state = "paused: every plan and round is refused" if paused else "taking part again"
    _show(
        {"name": site.name, "paused": paused}, as_json, lambda out: out.print(f"Site {escape(site.name)} is {state}.")
    )


@app.command()
def vault(
    settings: Annotated[list[Path], typer.Option("--settings", help="Settings; repeat to simulate many sites.")] = [  # noqa: B006 - typer reads it once
        _DEFAULT_SETTINGS
    ],
    as_json: JsonOption = False,
) -> None:
    """Run the vault: data, policy, journal and training, reachable by its Unix socket only. Ctrl-C ends it."""
    from synclave_client.vault import service

    sites = [SiteSettings.load(path) for path in settings]
    service.configure_log()
    service.run(sites)
    _show({"sites": [site.name for site in sites], "stopped": True}, as_json, lambda out: out.print("Vault stopped."))
    service.leave(0)


@app.command()
def gateway(settings: SettingsOption = _DEFAULT_SETTINGS, as_json: JsonOption = False) -> None:
    """Run the gateway: Flower's SuperNode, which carries messages between coordinator and vault and reads none."""
    from synclave_client.gateway.launcher import GatewaySettings, run_gateway

    site = SiteSettings.load(settings)
    address = _address(site, settings)
    address.state_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        run_gateway(
            GatewaySettings(
                name=site.name,
                superlink=address.superlink,
                root_certificate=address.root_certificate,
                socket=site.socket_path,
                state=address.state_folder,
            )
        )
    except KeyboardInterrupt:
        _show({"name": site.name, "stopped": True}, as_json, lambda out: out.print("Gateway stopped."))


def _address(site: SiteSettings, settings: Path) -> CoordinatorAddress:
    if site.gateway is None:
        raise ConfigurationError(
            expected="a [gateway] section with superlink, root_certificate and state_folder",
            found=f"none in {settings}",
            remedy="Add it; the coordinator tells you the address and sends the certificate.",
        )
    return site.gateway


@app.command()
def run(settings: SettingsOption = _DEFAULT_SETTINGS, as_json: JsonOption = False) -> None:
    """Run vault and gateway together and start either again when it ends. For a first try on one machine, as one user.

    In production the two run as two users under systemd (deploy/README.md).
    """
    from synclave_client.supervision import supervise
    from synclave_shared.data.modality import check_folder, load_schema

    site = SiteSettings.load(settings)
    address = _address(site, settings)
    _require_state(site)
    report = check_folder(load_schema(site.schema_file), site.data_folder)
    if not report.ok:
        raise report.error()
    me = [sys.executable, "-m"]
    commands = {
        "vault": [*me, "synclave_client.vault", "--settings", str(settings.resolve())],
        "gateway": [
            *(*me, "synclave_client.cli", "gateway"),
            *("--settings", str(settings.resolve())),
        ],
    }
    screen = Console(stderr=True)
    supervise(
        commands, logs=address.state_folder / "logs", tell=lambda text: screen.print(escape(text), soft_wrap=True)
    )
    _show({"name": site.name, "stopped": True}, as_json, lambda out: out.print("Site stopped."))


def main() -> None:
    """Entry point of ``synclave-site``."""
    # Before torch is loaded, here and in the vault that `run` starts: waiting OpenMP threads sleep and do not spin.
    # Alone on a machine that costs a little; beside others' work, spinning makes a step many times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    console.run(app)


if __name__ == "__main__":
    main()
