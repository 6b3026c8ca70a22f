"""The embedded examples: real, openly licensed data of several sites, so that the demo needs no download."""

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
        test: files or folders of held-out patients, disjoint from every site's.
        held_out: the same patients in a file or folder for each site to which they belong.
    """

    plan: Path
    schema: Path
    sites: dict[str, Path]
    test: tuple[Path, ...]
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
            held_out = {path.stem: path for path in sorted((folder / "held-out").iterdir())}
            whole = folder / "test.parquet"
            return Example(
                plan=folder / "plan.toml",
                schema=folder / "schema.toml",
                sites=sites,
                test=(whole,) if whole.is_file() else tuple(held_out.values()),
                held_out=held_out,
            )
    raise ConfigurationError(
        expected=f"the example {name!r}",
        found="none beside the installed package",
        remedy="Install Synclave from a complete wheel or clone.",
    )
