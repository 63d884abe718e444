"""Sign files and heads with Ed25519, and check signatures with the public key alone."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greentrain.errors import ConfigurationError
from greentrain.ledger.hashing import canonical
from greentrain.regular_files import open_regular, read_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNING_VARIABLE = "GREENTRAIN_SIGNING_KEY"
"""Environment variable with the file of the private key."""
PRIVATE_NAME, PUBLIC_NAME = "greentrain.key", "greentrain.pub"
_LARGEST = 2**16
_VERSION = 1


def new_keys(folder: Path) -> tuple[Path, Path]:
    """Make a pair of keys: ``greentrain.key`` (mode 0600) and ``greentrain.pub``, as PEM.

    Args:
        folder: Their folder, created if missing.

    Returns:
        The files of the private and of the public key.

    Raises:
        ConfigurationError: If one of the files exists, or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private, public = folder / PRIVATE_NAME, folder / PUBLIC_NAME
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise ConfigurationError(
                f"{str(path)!r} exists, and no key is overwritten; give another folder"
            )
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    shown = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _create(private, secret, 0o600)
        _create(public, shown, 0o644)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write the keys into {str(folder)!r}: {error.strerror}"
        ) from None
    return private, public


class Signer:
    """Sign with a private key.

    Args:
        path: The file of the private key.

    Raises:
        ConfigurationError: If the file cannot be read, is no Ed25519 private key, or may be read by
            other users.
    """

    def __init__(self, path: Path) -> None:
        self._key = _private_key(path)
        self.fingerprint = _fingerprint(self._key.public_key())

    @classmethod
    def configured(cls) -> Signer | None:
        """Return the signer of ``GREENTRAIN_SIGNING_KEY``; ``None`` if it is not set."""
        path = os.environ.get(SIGNING_VARIABLE)
        return cls(Path(path)) if path else None

    def sign(self, kind: str, content: dict[str, Any]) -> dict[str, Any]:
        """Return a signed statement: the content, the key's fingerprint and the signature.

        Args:
            kind: The kind of the statement, which is signed with it.
            content: Plain values.
        """
        signed = {"greentrain_signature": _VERSION, "kind": kind, **content}
        signed["key"] = self.fingerprint
        return {**signed, "signature": self._key.sign(canonical(signed).encode()).hex()}

    def sign_file(self, path: Path) -> Path:
        """Sign the bytes of a file in ``FILE.sig``, which is replaced.

        Raises:
            OSError: If a file cannot be read or written.
        """
        place = signature_file(path)
        statement = json.dumps(self.sign("file", {"sha256": _sha256(path)}), indent=2)
        temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
        temporary.write_text(statement + "\n", encoding="utf-8")
        temporary.replace(place)
        return place


class Checker:
    """Check signatures with a public key.

    Args:
        path: The file of the public key.

    Raises:
        ConfigurationError: If the file cannot be read, or is no Ed25519 public key.
    """

    def __init__(self, path: Path) -> None:
        self._key = _public_key(path)
        self.fingerprint = _fingerprint(self._key)

    def fault(self, statement: Any, kind: str) -> str | None:
        """Return why a statement is not one of this key; ``None`` if it is.

        Args:
            statement: The values of :meth:`Signer.sign`, as JSON holds them.
            kind: The kind that it has to be of.
        """
        from cryptography.exceptions import InvalidSignature

        if not isinstance(statement, dict) or statement.get("greentrain_signature") != _VERSION:
            return "it is no signature of this version of greentrain"
        if statement.get("kind") != kind:
            return f"it does not sign {kind}"
        if statement.get("key") != self.fingerprint:
            return f"it is of another key, and {self.fingerprint} was given"
        try:
            signature = bytes.fromhex(str(statement.get("signature")))
            signed = {name: one for name, one in statement.items() if name != "signature"}
            self._key.verify(signature, canonical(signed).encode())
        except (InvalidSignature, ValueError, RecursionError):
            return "the signature does not fit what is signed"
        return None

    def file_fault(self, path: Path) -> str | None:
        """Return why a file is not the one that was signed; ``None`` if it is.

        Raises:
            ConfigurationError: If the file cannot be read.
        """
        try:
            digest = _sha256(path)
        except OSError as error:
            raise ConfigurationError(f"cannot read {str(path)!r}: {error.strerror}") from None
        place = signature_file(path)
        try:
            statement = json.loads(read_regular(place, _LARGEST))
        except FileNotFoundError:
            return f"there is no signature {place.name}"
        except (OSError, ValueError, RecursionError):
            return f"{place.name} is cut short, or no signature"
        if (fault := self.fault(statement, "file")) is not None:
            return f"{place.name}: {fault}"
        if statement.get("sha256") != digest:
            return f"it was changed after it was signed, or {place.name} is of another file"
        return None


def check_signature(path: Path, public_key: Path) -> tuple[list[str], int]:
    """Check the signature of a file, and describe the result.

    Args:
        path: The file, next to its ``FILE.sig``.
        public_key: The file of the public key.

    Returns:
        Lines of text, and the exit code: 0 if the key signed the file, otherwise 1.

    Raises:
        ConfigurationError: If the file or the key cannot be read.
    """
    checker = Checker(public_key)
    fault = checker.file_fault(path)
    if fault is None:
        return [f"signed {path}: the owner of the key {checker.fingerprint} signed it"], 0
    return [f"FAILED: {path}: {fault}"], 1


def signature_file(path: Path) -> Path:
    """Return the place of a file's signature: ``FILE.sig`` next to it."""
    return path.with_name(f"{path.name}.sig")


def _create(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fingerprint(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def _key_file(path: Path) -> bytes:
    try:
        return read_regular(path, _LARGEST)
    except OSError as error:
        raise ConfigurationError(f"cannot read the key {str(path)!r}: {error.strerror}") from None


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _key_file(path)
    if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigurationError(
            f"other users may read the private key {str(path)!r}; run chmod 600 on it, or make new "
            "keys if someone may have read it"
        )
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: a password is needed
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(
            f"{str(path)!r} is no Ed25519 private key without a password; make one with "
            "`greentrain keys new`"
        )
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _key_file(path)
    if b"PRIVATE KEY" in content:
        raise ConfigurationError(
            f"{str(path)!r} is a private key; give the public one, such as {PUBLIC_NAME}, and keep "
            "the private one where only its owner can read it"
        )
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(
            f"{str(path)!r} is no Ed25519 public key in PEM; give the {PUBLIC_NAME} of "
            "`greentrain keys new`"
        )
    return key
