"""Keys and certificates: who may read them, what they prove."""

from pathlib import Path

import pytest

from guilder_shared.errors import EnrolmentError
from guilder_shared.identity import SigningKey, verify


def test_a_signature_verifies_under_its_own_key_and_bytes_alone() -> None:
    key, other = SigningKey.generate(), SigningKey.generate()

    signature = key.sign(b"ledger head")

    assert verify(key.public_hex, b"ledger head", signature)
    assert not verify(key.public_hex, b"ledger hEad", signature)
    assert not verify(other.public_hex, b"ledger head", signature)


@pytest.mark.parametrize("public_hex", ["", "zz", "00", "0" * 63, "é" * 64])
def test_a_malformed_public_key_is_no_valid_signature_and_no_crash(
    public_hex: str,
) -> None:
    assert not verify(public_hex, b"data", b"\0" * 64)


@pytest.mark.parametrize("signature", [b"", b"\0" * 63, b"\0" * 65])
def test_a_malformed_signature_is_no_valid_signature_and_no_crash(
    signature: bytes,
) -> None:
    key = SigningKey.generate()

    assert not verify(key.public_hex, b"data", signature)


def test_a_saved_key_signs_as_before_and_only_its_owner_may_read_it(
    tmp_path: Path,
) -> None:
    key = SigningKey.generate()

    key.save(tmp_path / "signing.key")
    loaded = SigningKey.load(tmp_path / "signing.key")

    assert loaded.public_hex == key.public_hex
    assert loaded.sign(b"x") == key.sign(b"x")
    assert (tmp_path / "signing.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_a_key_that_others_can_use_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "signing.key"
    SigningKey.generate().save(path)
    path.chmod(mode)

    with pytest.raises(EnrolmentError, match=r"(?s)GLD-E002.*chmod 600") as caught:
        SigningKey.load(path)

    assert caught.value.error_id == "GLD-E002"


def test_a_key_is_never_written_over_another(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    first = SigningKey.generate()
    first.save(path)

    with pytest.raises(EnrolmentError):
        SigningKey.generate().save(path)

    assert SigningKey.load(path).public_hex == first.public_hex


def test_a_missing_key_names_its_path(tmp_path: Path) -> None:
    with pytest.raises(EnrolmentError, match=r"nowhere\.key") as caught:
        SigningKey.load(tmp_path / "nowhere.key")

    assert caught.value.error_id == "GLD-E001"


def test_a_file_that_is_no_key_is_refused_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "signing.key"
    path.write_bytes(b"hunter2")
    path.chmod(0o600)

    with pytest.raises(EnrolmentError) as caught:
        SigningKey.load(path)

    assert caught.value.error_id == "GLD-E003"
    assert "hunter2" not in str(caught.value)


def test_a_key_is_not_printed() -> None:
    key = SigningKey.generate()

    assert repr(key) == f"SigningKey(public_hex='{key.public_hex}')"
