from __future__ import annotations

import base64
import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synclave_shared.errors import ConfigurationError
from synclave_shared.ledger.keys import SigningKey, decode_base64, encode_base64, verify_signature


def test_signature_of_rfc_8032_test_2() -> None:
    key = SigningKey.from_seed(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert base64.b64decode(key.public_text).hex() == public
    assert key.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_a_generated_key_is_read_back_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    key = SigningKey.generate(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    again = SigningKey.load(tmp_path / "key")
    assert again.public_text == key.public_text
    assert verify_signature(key.public_text, b"text", again.sign(b"text"))
    assert verify_signature(key.public_text, b"text", again.sign_text(b"text"))
    secret = (tmp_path / "key").read_text().strip()
    assert secret not in repr(key)


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    SigningKey.generate(path)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError):
        SigningKey.generate(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "abc", "A" * 43, "A" * 42 + "B=", "A" * 44, "é" * 44, "A" * 43 + "=\nmore"])
def test_what_is_no_key_is_refused_without_repeating_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(ConfigurationError) as caught:
        SigningKey.load(path)
    assert not content or content not in str(caught.value)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    SigningKey.generate(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(ConfigurationError, match="0600"):
        SigningKey.load(tmp_path / "key")
    with pytest.raises(ConfigurationError):
        SigningKey.load(tmp_path / "absent")


@given(st.text(max_size=60), st.binary(max_size=70))
def test_foreign_keys_and_signatures_never_raise(text: str, signature: bytes) -> None:
    key = SigningKey.from_seed(bytes(32))
    assert not verify_signature(text, b"data", signature)
    assert not verify_signature(key.public_text, b"data", text)
    assert not verify_signature(key.public_text, b"data", signature)


@given(st.binary(max_size=70), st.integers(0, 100), st.characters(codec="ascii"))
def test_every_value_has_one_base64_text(data: bytes, position: int, replacement: str) -> None:
    text = encode_base64(data)
    assert decode_base64(text) == data
    changed = text[:position] + replacement + text[position + 1 :]
    if changed != text:
        with contextlib.suppress(ValueError):
            assert decode_base64(changed) != data


def test_a_key_is_named_by_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = SigningKey.generate(tmp_path / "key")
    monkeypatch.setenv("SITE_KEY", (tmp_path / "key").read_text())
    for name in (f"file:{tmp_path}/key", f"{tmp_path}/key", "env:SITE_KEY"):
        assert SigningKey.named(name).public_text == key.public_text


@pytest.mark.parametrize("value", [None, "", "hunter2", "A" * 44])
def test_a_variable_that_holds_no_key_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("SITE_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("SITE_KEY", value)
    with pytest.raises(ConfigurationError, match="SITE_KEY") as refused:
        SigningKey.named("env:SITE_KEY")
    assert not value or value not in str(refused.value)


def test_keys_on_tokens_are_not_built_yet() -> None:
    with pytest.raises(ConfigurationError, match="not built yet"):
        SigningKey.named("pkcs11:token=site")
