"""``synclave-site gateway``."""

from __future__ import annotations

from synclave_client.commands.arguments import DEFAULT_SETTINGS, SettingsOption, address_of
from synclave_client.settings import SiteSettings
from synclave_shared.audit.console import JsonOption, show

__all__ = ["gateway"]


def gateway(settings: SettingsOption = DEFAULT_SETTINGS, as_json: JsonOption = False) -> None:
    """Run the gateway: Flower's SuperNode, which carries messages between coordinator and vault and reads none."""
    from synclave_client.gateway.launcher import GatewaySettings, run_gateway

    site = SiteSettings.load(settings)
    address = address_of(site, settings)
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
        show({"name": site.name, "stopped": True}, as_json, lambda out: out.print("Gateway stopped."))
