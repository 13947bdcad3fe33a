"""Who says so: a release bound to its claim by an in-toto statement in a DSSE envelope.

The statement names each released file with its sha256, and the claim. It is signed with a local
Ed25519 key, or not at all, which it then says. Its bytes follow from the files and from
`privacy.json`, so that a verifier builds it anew and compares.

Formats: in-toto Attestation Framework, Statement v1; Dead Simple Signing Envelope 1.0.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # pyright: ignore[reportPrivateImportUsage]

from discreet.errors import ConfigurationError, StorageError
from discreet.statement import strict_json
from discreet.statement.schema import PrivacyRecord, Signer
from discreet.statement.summary import summarise
from discreet.storage import make_folder

VARIABLE = "DISCREET_KEY"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:x-discreet:privacy-claim:2.2"
_NO_KEY = (OSError, ValueError, TypeError, UnsupportedAlgorithm)
_OTHER_KIND = "it is of another kind"
_MAKE_KEY = "make one with `openssl genpkey -algorithm ed25519 -out key.pem`"
_GIVE_KEY = "give the public key that whoever made the release handed out"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


def default_key() -> Path:
    """`DISCREET_KEY` if it is set, else `signing-key.pem` in the user's configuration folder."""
    return Path(
        os.environ.get(VARIABLE)
        or Path(platformdirs.user_config_dir("discreet", appauthor=False)) / "signing-key.pem"
    )


@dataclass(frozen=True, kw_only=True)
class ReleaseKey:
    """A private key that signs releases."""

    private: Ed25519PrivateKey

    @property
    def signer(self) -> Signer:
        """The public half, as the record names it."""
        return signer_of(self.private.public_key())


def signer_of(public: Ed25519PublicKey) -> Signer:
    """A public key as the record names it; its id is securesystemslib's."""
    return Signer(
        algorithm="ed25519",
        key_id=SSlibKey.from_crypto(public).keyid,
        public_key=public.public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
    )


def open_key(sign: str | bool) -> ReleaseKey | None:
    """The key that `sign=` asks for.

    Args:
        sign: A key file (PEM, PKCS #8, Ed25519, without a password); True for the local key,
            which is made on first use; False for none.

    Raises:
        ConfigurationError: If the file is no such key.
        StorageError: If the local key cannot be made.
    """
    if sign is False:
        return None
    if sign is True:
        path = default_key()
        if not path.exists():
            _make_key(path)
    else:
        path = Path(sign)
    return ReleaseKey(private=_read_private(path))


def read_public_key(path: Path) -> Signer:
    """A public key from a PEM file; of a private key's file, its public half.

    Raises:
        ConfigurationError: If the file is no Ed25519 key.
    """
    try:
        data = path.read_bytes()
        if b"PRIVATE KEY" in data:
            key = load_pem_private_key(data, password=None).public_key()
        else:
            key = load_pem_public_key(data)
    except _NO_KEY as error:
        raise _unreadable(path, error, where="key", do=_GIVE_KEY) from error
    if not isinstance(key, Ed25519PublicKey):
        raise _unreadable(path, _OTHER_KIND, where="key", do=_GIVE_KEY)
    return signer_of(key)


def public_pem(signer: Signer) -> str:
    """A public key as PEM text, to hand to whoever verifies."""
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer.public_key))
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def make_statement(record: PrivacyRecord, digests: Mapping[str, str]) -> dict[str, Any]:
    """The in-toto statement of a release.

    Args:
        record: The content of `privacy.json`.
        digests: sha256 of every released file by name, `privacy.json` among them.
    """
    signer = record.signer
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {"name": name, "digest": {"sha256": digests[name]}} for name in sorted(digests)
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "claim": summarise(record),
            "signed": signer is not None,
            "signer": None if signer is None else signer.model_dump(mode="json"),
        },
    }


def make_envelope(statement: Mapping[str, Any], key: ReleaseKey | None) -> bytes:
    """The statement in its envelope, as the file's bytes.

    Args:
        statement: The in-toto statement.
        key: Signs it; None leaves it unsigned.
    """
    envelope = Envelope(_payload(statement), PAYLOAD_TYPE, {})
    if key is not None:
        envelope.sign(CryptoSigner(key.private))
    return _file(envelope)


def envelope_faults(
    data: bytes, *, statement: Mapping[str, Any], signer: Signer | None
) -> list[str]:
    """What is wrong with an envelope, given the statement that belongs in it.

    Args:
        data: The file's bytes.
        statement: The statement built anew from the other files.
        signer: The public key that has to have signed it; None where it has to be unsigned.
    """
    try:
        envelope = Envelope.from_dict(strict_json.loads(data))
        written = _file(envelope)
    except Exception as error:  # the library raises what its decoders raise
        return [f"not an envelope ({type(error).__name__})"]
    if written != data:
        return ["not written as this program writes an envelope: it was changed"]
    if envelope.payload_type != PAYLOAD_TYPE:  # perhaps not even text: nothing can be verified
        return ["its content is said to be something else than an in-toto statement"]
    faults: list[str] = []
    if envelope.payload != _payload(statement):
        faults.append("its statement is not that of the files in this folder")
    if signer is None:
        if envelope.signatures:
            faults.append("it is signed, and the record says that it is not")
        return faults
    if any(signature.unrecognized_fields for signature in envelope.signatures.values()):
        faults.append("its signature carries more than a signature")
    key = _public(signer)
    if key.keyid != signer.key_id or set(envelope.signatures) != {signer.key_id}:
        faults.append("it is not signed, once, by the key that the record names")
        return faults
    try:
        envelope.verify([key], threshold=1)
    except VerificationError:
        faults.append("the signature is not one of the key that the record names")
    return faults


def _public(signer: Signer) -> SSlibKey:
    return SSlibKey.from_crypto(
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signer.public_key))
    )


def _payload(statement: Mapping[str, Any]) -> bytes:
    return json.dumps(statement, ensure_ascii=False, allow_nan=False).encode()


def _file(envelope: Envelope) -> bytes:
    return json.dumps(envelope.to_dict(), indent=2).encode() + b"\n"


def _read_private(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except _NO_KEY as error:
        raise _unreadable(path, error, where="sign", do=_MAKE_KEY) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _unreadable(path, _OTHER_KIND, where="sign", do=_MAKE_KEY)
    return key


def _make_key(path: Path) -> None:
    data = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    try:
        make_folder(path.parent)
        # Whole under its name or not there, and never open to others, not even for a moment.
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.link(temporary, path)
        except FileExistsError:
            pass  # another run made one meanwhile, and that is the one to use
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, StorageError) as error:
        raise StorageError(
            f"no signing key can be made there ({getattr(error, 'strerror', None) or error})",
            where=str(path),
            do="give sign=KEYFILE, or sign=false for a release without a signature",
        ) from error


def _unreadable(path: Path, why: object, *, where: str, do: str) -> ConfigurationError:
    if isinstance(why, TypeError):
        why = "it has a password"
    return ConfigurationError(
        f"not an Ed25519 key in PEM without a password ({getattr(why, 'strerror', None) or why})",
        where=f"{where}={path}",
        do=do,
    )
