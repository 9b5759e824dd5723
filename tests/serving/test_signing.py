"""Ed25519 signatures say who made a folder; OpenSSL's bytes and ours are the same."""

import shutil
import subprocess

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

import shipped
from keras_sip import __main__ as command_line
from keras_sip import load_pretrained
from keras_sip.files import CHECKSUMS, SIGNATURE, DamagedFileError, write_checksums
from keras_sip.serving.signing import UntrustedError, sign, verify_signature


def pem(key, *, password=None):
    if hasattr(key, "private_bytes"):
        lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "model"
    (folder / "variables").mkdir(parents=True)
    (folder / "graph.pb").write_bytes(b"y = P(x)")
    (folder / "variables" / "data").write_bytes(bytes(range(200)))
    write_checksums(folder)
    return folder


@pytest.fixture
def keys(tmp_path):
    """Paths of the private and the public key."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    (tmp_path / "key.pem").write_bytes(pem(key))
    (tmp_path / "public.pem").write_bytes(pem(key.public_key()))
    return tmp_path / "key.pem", tmp_path / "public.pem"


def test_a_signed_folder_is_trusted_and_another_key_is_not(folder, keys):
    sign(folder, keys[0])
    verify_signature(folder, keys[1])
    with pytest.raises(UntrustedError, match=r"(?s)Expected .* signed by the key.*\nReceived one of another key"):
        verify_signature(folder, ed25519.Ed25519PrivateKey.generate().public_key())


@pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL's command is not installed")
def test_openssl_checks_the_signature_too(folder, keys):
    sign(folder, keys[0])
    words = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", keys[1], "-rawin", "-in", CHECKSUMS]
    done = subprocess.run([*words, "-sigfile", SIGNATURE], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and "Verified Successfully" in done.stdout, done.stderr


def test_changes_are_found_with_new_checksums_and_without(folder, keys):
    sign(folder, keys[0])
    (folder / "graph.pb").write_bytes(b"y = Q(x)")
    with pytest.raises(DamagedFileError, match="changed: 'graph.pb'"):
        verify_signature(folder, keys[1])
    write_checksums(folder)
    with pytest.raises(UntrustedError, match="or of other checksums"):
        verify_signature(folder, keys[1])


def test_every_flipped_bit_of_the_signature_is_found(folder, keys):
    sign(folder, keys[0])
    signature = (folder / SIGNATURE).read_bytes()
    assert len(signature) == 64
    for bit in range(0, 512, 7):
        flipped = bytearray(signature)
        flipped[bit // 8] ^= 1 << bit % 8
        (folder / SIGNATURE).write_bytes(flipped)
        with pytest.raises(UntrustedError):
            verify_signature(folder, keys[1])


def test_no_signature_and_no_key_are_told_apart(folder, keys, tmp_path):
    with pytest.raises(UntrustedError, match="No such file"):
        verify_signature(folder, keys[1])
    other = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "other.pem").write_bytes(pem(other))
    (tmp_path / "locked.pem").write_bytes(pem(ed25519.Ed25519PrivateKey.generate(), password=b"secret"))
    (tmp_path / "text.pem").write_text("-----BEGIN PRIVATE KEY-----")
    for key in ("missing.pem", "other.pem", "locked.pem", "text.pem"):
        with pytest.raises(
            ValueError, match=r"(?s)^Expected an Ed25519 private key.*\nReceived .*\nMake a pair: openssl"
        ):
            sign(folder, tmp_path / key)
    with pytest.raises(ValueError, match=r"Expected an Ed25519 public key(?s:.*)Ed25519PrivateKey|no such key"):
        verify_signature(folder, keys[0])


def test_shipped_models_are_checked_before_they_are_loaded(tmp_path, keys, capsys):
    shipped.write(tmp_path / "tiny", shipped.make_model())
    with pytest.raises(UntrustedError):
        load_pretrained("tiny", tmp_path, trust=keys[1])
    sign(tmp_path / "tiny", keys[0])
    assert load_pretrained("tiny", tmp_path, trust=keys[1]).built
    words = ["infer", "tiny", "--models", str(tmp_path), "--input", str(tmp_path / "y.npy")]
    np.save(tmp_path / "y.npy", shipped.SIMULATOR.sample(1, (0, 0))["y"])
    (tmp_path / "tiny" / SIGNATURE).write_bytes(bytes(64))
    assert command_line.main([*words, "--output", str(tmp_path / "x.npy"), "--trust", str(keys[1])]) == 2
    assert "signed by the key that you trust" in capsys.readouterr().err and not (tmp_path / "x.npy").exists()
