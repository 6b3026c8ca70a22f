"""The systemd units say what deploy/README.md promises; nothing here starts them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


def unit(name: str) -> dict[str, str]:
    """Settings of a unit's service section; later lines of one setting are joined."""
    found: dict[str, str] = {}
    for line in (DEPLOY / "systemd" / f"{name}.service").read_text().splitlines():
        setting, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[setting] = f"{found[setting]} {value}" if setting in found else value
    return found


def test_the_vault_has_no_network_and_the_gateway_no_data() -> None:
    vault, gateway = unit("synclave-vault"), unit("synclave-gateway")
    assert (vault["PrivateNetwork"], vault["RestrictAddressFamilies"]) == ("yes", "AF_UNIX")
    assert {"/srv/synclave", "/var/lib/synclave/state"} <= set(gateway["InaccessiblePaths"].split())
    assert gateway["ReadWritePaths"] == "/var/lib/synclave/gateway"
    assert "/var/lib/synclave/gateway" in vault["InaccessiblePaths"].split()


def test_they_are_two_users_with_the_sockets_group_in_common() -> None:
    vault, gateway = unit("synclave-vault"), unit("synclave-gateway")
    assert len({vault["User"], gateway["User"], "root"}) == 3
    assert vault["SupplementaryGroups"] == gateway["SupplementaryGroups"] == "synclave-socket"
    assert vault["Group"] != gateway["Group"]


@pytest.mark.parametrize("name", ["synclave-vault", "synclave-gateway"])
def test_neither_gains_rights_or_leaves_memory_on_the_disk(name: str) -> None:
    service = unit(name)
    for setting in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "PrivateDevices", "RestrictNamespaces"):
        assert service[setting] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert service["LimitCORE"] == "0"


@pytest.mark.parametrize("name", ["synclave-vault", "synclave-gateway"])
def test_systemd_understands_them(tmp_path: Path, name: str) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    text = (DEPLOY / "systemd" / f"{name}.service").read_text()
    copy = tmp_path / f"{name}.service"
    copy.write_text(text.replace("/opt/synclave/bin/synclave-site", "/bin/true"))
    done = subprocess.run([analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False)
    assert f"{name}.service" not in done.stderr
