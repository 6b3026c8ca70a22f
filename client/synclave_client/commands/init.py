"""``synclave-site init``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from synclave_client.commands.arguments import KeyValidDaysOption
from synclave_client.settings import SiteSettings
from synclave_shared.audit.console import JsonOption, show
from synclave_shared.errors import ConfigurationError

__all__ = ["init"]


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

    show(document, as_json, draw)
