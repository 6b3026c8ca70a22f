"""Packages of clinical models that tests lay down as pip would, and the one that docs/series.md shows."""

import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import invalidate_caches
from pathlib import Path

from synclave_shared.models.series import installed

DOCUMENT = Path(__file__).parents[2] / "docs" / "series.md"


def documented() -> tuple[str, dict[str, str]]:
    """Code of ``worst_values.py`` and the fields of :func:`lay_down`, as the document has them."""
    section = DOCUMENT.read_text(encoding="utf-8").partition("## A clinical model of your own")[2]
    code = section.partition("```python\n")[2].partition("```")[0]
    project = tomllib.loads(section.partition("```toml\n")[2].partition("```")[0])["project"]
    ((name, target),) = project["entry-points"][installed.GROUP].items()
    return code, {"distribution": project["name"], "version": project["version"], "name": name, "target": target}


def lay_down(folder: Path, code: str, *, distribution: str, version: str, name: str, target: str) -> None:
    """A module and the metadata of the distribution that offers it, in a folder for ``sys.path``."""
    module = folder / f"{target.partition(':')[0]}.py"
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text(code, encoding="utf-8")
    metadata = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", encoding="utf-8"
    )
    (metadata / "entry_points.txt").write_text(f"[{installed.GROUP}]\n{name} = {target}\n", encoding="utf-8")


@contextmanager
def as_in_a_new_process(folder: Path, *modules: str) -> Iterator[None]:
    """With ``folder`` on the path, and nothing remembered of what was installed before."""
    sys.path.insert(0, str(folder))
    try:
        _forget(modules)
        yield
    finally:
        sys.path.remove(str(folder))
        _forget(modules)


def _forget(modules: tuple[str, ...]) -> None:
    installed._offer.cache_clear()
    invalidate_caches()
    for module in modules:
        sys.modules.pop(module, None)
