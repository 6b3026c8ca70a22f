"""Secrets that Flower's programs read from files."""

from __future__ import annotations

import stat
from pathlib import Path

from synclave_shared.processes import write_secret


def test_a_secret_is_for_its_owner_alone_also_in_a_file_that_was_left_open_to_all(tmp_path: Path) -> None:
    for name in ("new", "old"):
        path = tmp_path / name
        if name == "old":
            path.write_text("a longer secret of before")
            path.chmod(0o666)
        write_secret(path, "abc")
        assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("abc", 0o600)
