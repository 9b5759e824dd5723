"""Who made a folder: an Ed25519 signature of its checksums."""

import importlib.util
import os
import pathlib
from typing import Any

from keras_sip.errors import three_part
from keras_sip.files import CHECKSUMS, SIGNATURE, verify_checksums, write_atomically
from keras_sip.untrusted import one_line

KEYS = "Make a pair: openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out public.pem"


class UntrustedError(ValueError):
    """A folder is not signed, or not by the key that is trusted."""


def sign(folder: str | os.PathLike, key: Any) -> None:
    """Write `SHA256SUMS.sig`, the signature of `SHA256SUMS`, 64 bytes (RFC 8032, Ed25519).

    `openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig` checks it too.

    Args:
        folder: With its checksums.
        key: A private key: `cryptography`'s `Ed25519PrivateKey`, or a PEM file of one without a password.

    Raises:
        ImportError: The extra `signing` is not installed.
        ValueError: The key is none.
    """
    key = private_key(key)
    folder = pathlib.Path(folder)
    write_atomically(folder / SIGNATURE, key.sign((folder / CHECKSUMS).read_bytes()))


def verify_signature(folder: str | os.PathLike, trust: Any) -> None:
    """The folder is as the holder of a key signed it.

    Args:
        folder: With its checksums and their signature.
        trust: The public key: `cryptography`'s `Ed25519PublicKey`, or a PEM file of one.

    Raises:
        ImportError: The extra `signing` is not installed.
        UntrustedError: There is no signature, or another key or other checksums made it.
        DamagedFileError: A file is not what its checksum says.
        ValueError: The key is none.
    """
    key = _key(trust, "public")
    from cryptography.exceptions import InvalidSignature

    folder = pathlib.Path(folder)
    try:
        signature, checksums = ((folder / name).read_bytes() for name in (SIGNATURE, CHECKSUMS))
        key.verify(signature, checksums)
    except (OSError, InvalidSignature) as error:
        what = f"one of another key, or of other checksums ({SIGNATURE})"
        raise UntrustedError(
            three_part(
                f"{folder} to be signed by the key that you trust",
                one_line(error) if isinstance(error, OSError) else what,
                "Do not use it. Ask its author for the folder anew, or for the public key, by a way that you trust.",
            )
        ) from None
    verify_checksums(folder)


def private_key(key: Any) -> Any:
    """`key`, or what its PEM file holds, as an `Ed25519PrivateKey`."""
    return _key(key, "private")


def _key(key, kind):
    if importlib.util.find_spec("cryptography") is None:
        raise ImportError(
            three_part(
                "the package cryptography, to sign and to check signatures",
                "a Python environment without it",
                'Install it from a checkout of keras_sip: pip install ".[signing]"',
            )
        )
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    wanted = ed25519.Ed25519PrivateKey if kind == "private" else ed25519.Ed25519PublicKey
    received = f"an object of type {type(key).__name__}"
    if isinstance(key, (str, os.PathLike)):
        try:
            pem = pathlib.Path(key).read_bytes()
            if kind == "private":
                key = serialization.load_pem_private_key(pem, password=None)
            else:
                key = serialization.load_pem_public_key(pem)
            received = f"a key of type {type(key).__name__}"
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            # The path alone: nothing of a private key belongs in a message.
            received = f"{one_line(key)}: {one_line(error.strerror) if isinstance(error, OSError) else 'no such key'}"
    if not isinstance(key, wanted):
        raise ValueError(three_part(f"an Ed25519 {kind} key, or a PEM file of one without a password", received, KEYS))
    return key
