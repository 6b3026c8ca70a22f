"""What ``synclave-site`` keeps for rewriting: secrets of its state folder, and canaries."""

from __future__ import annotations

from pathlib import Path

import pytest

from synclave_client.kept_secret import kept_secret
from synclave_client.rewriting import read_canaries
from synclave_shared.errors import ConfigurationError


def test_the_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "rewrite.key"
    key = kept_secret(path)
    assert kept_secret(path) == key
    assert len(key) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
    assert kept_secret(tmp_path / "other.key") != key


def test_a_half_key_or_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rewrite.key").write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="5 bytes"):
        kept_secret(tmp_path / "rewrite.key")
    with pytest.raises(ConfigurationError, match="No such file"):
        kept_secret(tmp_path / "nowhere" / "rewrite.key")


def test_canaries_are_lines_and_a_file_without_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "canaries.txt"
    path.write_text("blue heron 4711\n\n  zq-canary \n", encoding="utf-8")
    assert read_canaries(path) == ("blue heron 4711", "zq-canary")
    path.write_text("\n", encoding="utf-8")
    for bad in (path, tmp_path, tmp_path / "none.txt"):
        with pytest.raises(ConfigurationError, match="canary"):
            read_canaries(bad)
