from __future__ import annotations

import base64
import json
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from discreet.errors import ConfigurationError, StorageError
from discreet.statement.schema import PrivacyRecord
from discreet.statement.signing import (
    ReleaseKey,
    default_key,
    envelope_faults,
    make_envelope,
    make_statement,
    open_key,
    public_pem,
    read_public_key,
)

DIGESTS = {"weights.pt": "aa" * 32, "privacy.json": "bb" * 32}


@pytest.fixture
def statement(record: PrivacyRecord, key: ReleaseKey) -> dict[str, Any]:
    return make_statement(record.model_copy(update={"signer": key.signer}), DIGESTS)


def test_the_key_is_made_once_and_for_its_owner_alone():
    assert not default_key().exists()
    first = open_key(True)
    assert first is not None
    assert stat.S_IMODE(default_key().stat().st_mode) == 0o600
    again = open_key(True)
    assert again is not None
    assert again.signer == first.signer
    assert [path.name for path in default_key().parent.iterdir()] == ["key.pem"]


def test_no_key_is_made_for_nothing():
    assert open_key(False) is None
    assert not default_key().exists()


def test_where_no_key_can_be_made_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DISCREET_KEY", str(tmp_path / "file" / "key.pem"))
    with pytest.raises(StorageError, match="sign=false"):
        open_key(True)


def test_keys_of_openssl_work(tmp_path: Path):
    made, public = tmp_path / "made.pem", tmp_path / "public.pem"
    if subprocess.run(["which", "openssl"], capture_output=True).returncode:
        pytest.skip("needs openssl")
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", made], check=True)
    subprocess.run(["openssl", "pkey", "-in", made, "-pubout", "-out", public], check=True)
    opened = open_key(str(made))
    assert opened is not None
    assert read_public_key(public) == opened.signer == read_public_key(made)
    assert public_pem(opened.signer) == public.read_text()


@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN PUBLIC KEY-----\nAAAA\n"])
def test_what_is_no_key_is_refused(tmp_path: Path, content: str):
    path = tmp_path / "key.pem"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="Ed25519"):
        open_key(str(path))
    with pytest.raises(ConfigurationError, match="Ed25519"):
        read_public_key(path)


def _pem(kind: str) -> bytes:
    if kind == "rsa":
        made: Any = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        made = Ed25519PrivateKey.generate()
    shut = NoEncryption() if kind == "rsa" else BestAvailableEncryption(b"secret")
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, shut)


@pytest.mark.parametrize("kind", ["rsa", "encrypted"])
def test_advice_about_a_verifiers_key_is_given_once_and_is_theirs(tmp_path: Path, kind: str):
    path = tmp_path / "key.pem"
    path.write_bytes(_pem(kind))
    with pytest.raises(ConfigurationError) as caught:
        read_public_key(path)
    said = str(caught.value)
    assert said.count("Ed25519") == 1
    assert "sign=" not in said
    assert "openssl genpkey" not in said
    assert ("password" if kind == "encrypted" else "another kind") in said


def test_the_statement_is_in_totos(statement: dict[str, Any]):
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert [entry["name"] for entry in statement["subject"]] == ["privacy.json", "weights.pt"]
    assert all(set(entry["digest"]) == {"sha256"} for entry in statement["subject"])
    assert statement["predicate"]["claim"]["claim_valid"] is True
    assert statement["predicate"]["signer"]["key_id"]


def test_the_signature_is_over_dsses_encoding(statement: dict[str, Any], key: ReleaseKey):
    # The formula of the DSSE specification, written out here once more.
    envelope = json.loads(make_envelope(statement, key))
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    key.private.public_key().verify(signature, message)
    assert json.loads(payload) == statement


def test_a_signed_envelope_is_right(statement: dict[str, Any], key: ReleaseKey):
    data = make_envelope(statement, key)
    assert envelope_faults(data, statement=statement, signer=key.signer) == []
    unsigned = make_envelope(statement, None)
    assert envelope_faults(unsigned, statement=statement, signer=None) == []


def test_signed_or_not_has_to_be_as_on_record(statement: dict[str, Any], key: ReleaseKey):
    signed, unsigned = make_envelope(statement, key), make_envelope(statement, None)
    assert envelope_faults(signed, statement=statement, signer=None)
    assert envelope_faults(unsigned, statement=statement, signer=key.signer)


def test_another_key_or_statement_is_wrong(statement: dict[str, Any], key: ReleaseKey):
    other = open_key(True)
    assert other is not None
    data = make_envelope(statement, other)
    assert envelope_faults(data, statement=statement, signer=key.signer)
    data = make_envelope(statement, key)
    assert envelope_faults(data, statement={**statement, "subject": []}, signer=key.signer)
    # A signature of another key under this key's id.
    spoiled = json.loads(data)
    spoiled["signatures"][0]["sig"] = json.loads(make_envelope(statement, other))["signatures"][0][
        "sig"
    ]
    text = json.dumps(spoiled, indent=2).encode() + b"\n"
    assert envelope_faults(text, statement=statement, signer=key.signer) == [
        "the signature is not one of the key that the record names"
    ]


def test_nothing_can_be_added_to_an_envelope(statement: dict[str, Any], key: ReleaseKey):
    data = make_envelope(statement, key)
    content = json.loads(data)
    more = [
        data + b"\n",
        json.dumps(content).encode(),
        json.dumps({**content, "note": "hello"}, indent=2).encode() + b"\n",
        json.dumps(
            {**content, "signatures": [{**content["signatures"][0], "note": 1}]}, indent=2
        ).encode()
        + b"\n",
        json.dumps({**content, "signatures": content["signatures"] * 2}, indent=2).encode() + b"\n",
        b"[]",
        b"",
        b"\xff",
    ]
    for spoiled in more:
        assert envelope_faults(spoiled, statement=statement, signer=key.signer), spoiled[-60:]
