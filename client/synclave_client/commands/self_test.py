"""``synclave-site self-test``."""

from __future__ import annotations

from synclave_client.commands.arguments import DEFAULT_SETTINGS, SettingsOption
from synclave_client.settings import SiteSettings
from synclave_shared.audit.console import JsonOption, show

__all__ = ["self_test"]


def self_test(settings: SettingsOption = DEFAULT_SETTINGS, as_json: JsonOption = False) -> None:
    """Prove the clipping of gradients on this machine, with invented patients. Touches no data, sends nothing."""
    from synclave_client.self_test_view import draw_self_test, self_test_document
    from synclave_client.training.rehearsal import rehearse_schema
    from synclave_client.vault.site_workload import check_device
    from synclave_shared.data.modality import load_schema

    site = SiteSettings.load(settings)
    check_device(site.device)
    report = rehearse_schema(load_schema(site.schema_file), site.performance, site.device)
    document = self_test_document(site, report)
    show(document, as_json, lambda out: draw_self_test(out, document))
