"""Content Credentials of pictures that the test signs with certificates of its own."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any

import c2pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from curation.policy.reader import load_policy
from curation.run import configure
from curation.scorers import load
from flywheel.core.image import BadImage
from flywheel.core.scorer import Item
from tests.curation.corpus import encoded, texture

KINDS = "http://cv.iptc.org/newscodes/digitalsourcetype/"
NOTHING = {"training": None, "by_model": None, "state": None, "issuer": None}


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """A certificate; of an authority if it signs itself."""
    authority = key is by
    start = datetime.datetime(2026, 1, 1)
    usage = [not authority, False, False, False, False, authority, authority, False, False]
    built = (
        x509.CertificateBuilder()
        .subject_name(named(name)).issuer_name(named(issuer)).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start).not_valid_after(start + datetime.timedelta(days=36500))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(x509.KeyUsage(*usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by.public_key()), critical=False)
    )  # fmt: skip
    if not authority:
        built = built.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    return built.sign(by, hashes.SHA256())


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(o, name) for o in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)])


@pytest.fixture(scope="module")
def signer() -> Any:
    """Signs as "A Paper"."""
    ours, theirs = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pem = serialization.Encoding.PEM
    chain = [certificate("A Paper", ours, "Authority", theirs), certificate("Authority", theirs, "Authority", theirs)]
    key = ours.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    info = c2pa.C2paSignerInfo(
        alg=b"es256", sign_cert=b"".join(c.public_bytes(pem) for c in chain), private_key=key, ta_url=None
    )
    return c2pa.Signer.from_info(info)


def created(kind: str = "digitalCapture") -> dict[str, Any]:
    action = {"action": "c2pa.created", "digitalSourceType": KINDS + kind}
    return {"label": "c2pa.actions", "data": {"actions": [action]}}


def training(label: str = "cawg", **uses: str) -> dict[str, Any]:
    entries = {f"{label}.{name}": {"use": use} for name, use in uses.items()}
    return {"label": f"{label}.training-mining", "data": {"entries": entries}}


def signed(
    signer: Any,
    assertions: Sequence[dict[str, Any]],
    *,
    parent: bytes = b"",
    remote: str = "",
    mime: str = "image/jpeg",
) -> bytes:
    """A picture with a manifest of these assertions; `parent`: what it was edited from; `remote`: kept there only."""
    picture, out = encoded(texture(1), mime.partition("/")[2].upper()), BytesIO()
    made = {"claim_generator_info": [{"name": "test"}], "assertions": list(assertions)}
    builder = c2pa.Builder(json.dumps(made))
    if parent:
        builder.add_ingredient(json.dumps({"title": "before", "relationship": "componentOf"}), mime, BytesIO(parent))
    if remote:
        builder.set_no_embed()
        builder.set_remote_url(remote)
    builder.sign(signer, mime, BytesIO(picture), out)
    return out.getvalue()


def score(*pictures: bytes) -> list[Any]:
    return list(load("c2pa").score([Item(p) for p in pictures]))


def test_what_an_author_says_of_training(signer: Any) -> None:
    forbids = [created(), training(ai_generative_training="notAllowed", data_mining="allowed")]
    asks = [created(), training("c2pa", ai_training="constrained")]
    allows = [created(), training(ai_generative_training="allowed")]
    elsewhere = [created(), training(ai_inference="notAllowed")]
    odd = [created(), training(data_mining="perhaps")]
    rows = score(*(signed(signer, a) for a in (forbids, asks, allows, elsewhere, odd)))
    assert [r["training"] for r in rows] == [0.0, 0.5, 1.0, None, 0.0]
    assert {r["issuer"] for r in rows} == {"A Paper"} and {r["state"] for r in rows} == {"Valid"}


def test_what_a_model_drew_is_told(signer: Any) -> None:
    kinds = ("digitalCapture", "trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia")
    assert [r["by_model"] for r in score(*(signed(signer, [created(k)]) for k in kinds))] == [0.0, 1.0, 1.0]


def test_of_an_edited_picture_the_strictest_manifest_counts(signer: Any) -> None:
    before = signed(signer, [created("trainedAlgorithmicMedia"), training(ai_training="notAllowed")])
    (row,) = score(signed(signer, [created(), training(ai_training="allowed")], parent=before))
    assert (row["training"], row["by_model"]) == (0.0, 1.0)


@pytest.mark.parametrize("mime", ["image/jpeg", "image/png", "image/webp"])
def test_a_picture_that_was_changed_afterwards_still_says_it(signer: Any, mime: str) -> None:
    picture = signed(signer, [created(), training(ai_training="notAllowed")], mime=mime)
    assert score(picture)[0]["state"] == "Valid"
    (row,) = score(picture + b"\0\0")
    assert (row["training"], row["state"]) == (0.0, "Invalid")


def test_pictures_without_a_manifest_say_nothing_and_damage_costs_its_own_row(signer: Any) -> None:
    sound = signed(signer, [created(), training(ai_training="notAllowed")])
    at = sound.index(b"c2pa.claim")
    broken = sound[:at] + b"\xff" * 200 + sound[at + 200 :]
    mentioned = encoded(texture(2), "JPEG") + b"c2pa"
    rows = score(encoded(texture(2)), mentioned, broken, sound[: len(sound) // 20], b"", sound)
    assert rows[0] == rows[1] == rows[2] == NOTHING
    assert all(isinstance(r, BadImage) for r in rows[3:5]) and rows[5]["training"] == 0.0


@pytest.fixture
def requests() -> Iterator[tuple[str, list[str]]]:
    """(address of a server, the paths that it was asked for)."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()


def test_no_picture_makes_this_machine_ask_another(signer: Any, requests: tuple[str, list[str]]) -> None:
    address, asked = requests
    picture = signed(signer, [created(), training(ai_training="notAllowed")], remote=f"{address}/store.c2pa")
    assert b"store.c2pa" in picture
    assert score(picture) == [NOTHING] and asked == []
    with pytest.raises(c2pa.C2paError):  # what it does by default
        c2pa.Reader("image/jpeg", BytesIO(picture))
    assert asked == ["/store.c2pa"]


def test_a_policy_filters_by_it_and_goes_on_without_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "qwen-image-2"\n[S1.filters.do_not_train]\nscore = "c2pa.training"\nmin = 1\n')
    policy = load_policy(str(path))
    assert "c2pa" in configure(policy)[0]

    version = metadata.version

    def missing(name: str) -> str:
        if name == "c2pa-python":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("curation.scorers.c2pa.metadata.version", missing)
    scorers, reasons = configure(policy)
    assert "c2pa" not in scorers and "install the extra `c2pa`" in reasons["c2pa"]
