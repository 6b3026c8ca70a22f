"""The embedded example: real, openly licensed data of four sites, so that the demo needs no download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synclave_shared.errors import ConfigurationError

__all__ = ["Example", "find_example"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An example training.

    Attributes:
        plan: plan file.
        schema: schema file.
        sites: data folder of each site by name.
        test: held-out patients, disjoint from every site's.
        held_out: the same patients in a file for each site to which they belong.
    """

    plan: Path
    schema: Path
    sites: dict[str, Path]
    test: Path
    held_out: dict[str, Path]


def find_example(name: str) -> Example:
    """Find an example beside the installed package (wheel) or in the repository (editable installation).

    Raises:
        ConfigurationError: if the installation lacks it.
    """
    package = Path(__file__).parent
    for folder in (package / "embedded" / name, package.parents[1] / "examples" / name):
        if (folder / "plan.toml").is_file():
            sites = {site.name: site for site in sorted((folder / "sites").iterdir()) if site.is_dir()}
            return Example(
                plan=folder / "plan.toml",
                schema=folder / "schema.toml",
                sites=sites,
                test=folder / "test.parquet",
                held_out={path.stem: path for path in sorted((folder / "held-out").glob("*.parquet"))},
            )
    raise ConfigurationError(
        expected=f"the example {name!r}",
        found="none beside the installed package",
        remedy="Install Synclave from a complete wheel or clone.",
    )
