"""Access control: roles by token, signed sessions, and proof that a form came from our own page."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import HTTPConnection

from flywheel.core.config import read_toml
from flywheel.core.errors import UsageError

ROLES = ("read", "review", "operate")  # each includes the ones before it
SESSION_SECONDS = 12 * 3600
MIN_TOKEN = 16  # characters
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Person:
    """The person behind a request; without tokens the name is empty."""

    name: str
    role: str

    def may(self, role: str) -> bool:
        """True if the person's role includes this one."""
        return ROLES.index(self.role) >= ROLES.index(role)


ANYBODY = Person("", "review")  # without tokens, when only this machine is served


def load_tokens(path: Path) -> dict[str, Person]:
    """Read token → person from a TOML file with a table per person: `role` and `token`. Errors: `UsageError`."""
    tokens: dict[str, Person] = {}
    for name, table in read_toml(path).items():
        role, token = (table.get("role"), table.get("token")) if isinstance(table, dict) else (None, None)
        if role not in ROLES:
            raise UsageError(f'--tokens {path}: [{name}] needs role = "read", "review" or "operate"')
        if not isinstance(token, str) or len(token) < MIN_TOKEN or token in tokens:
            raise UsageError(f"--tokens {path}: [{name}] needs a token of its own, of {MIN_TOKEN} characters or more")
        tokens[token] = Person(name, role)
    if not tokens:
        raise UsageError(f"--tokens {path} names nobody: add a table [NAME] with role and token")
    return tokens


@dataclass(frozen=True)
class Access:
    """People by token, and their sessions.

    A session is a cookie signed with a key that lives as long as the process. It never contains a token.
    """

    people: Mapping[str, Person] = field(default_factory=dict)
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    cookie: str = field(default_factory=lambda: f"flywheel_{secrets.token_hex(4)}")  # ports share cookies
    ended: dict[str, int] = field(default_factory=dict, repr=False)  # signatures of ended sessions → when they expire

    @property
    def open(self) -> bool:
        """True without tokens; then only this machine is served."""
        return not self.people

    def known(self, token: str) -> Person | None:
        """The owner of a token, or None. Compares with every token, so that timing reveals nothing."""
        matches = [p for t, p in self.people.items() if _equal(t, token)]
        return matches[0] if matches else None

    def person(self, request: HTTPConnection) -> Person | None:
        """The person behind a request, by bearer token or session; None for a stranger."""
        if self.open:
            return ANYBODY
        if token := self._bearer(request):
            return self.known(token)
        name = self._session(request)
        return next((p for p in self.people.values() if p.name == name), None)

    def start(self, name: str) -> str:
        """Cookie value of a new session."""
        text = f"{name.encode().hex()}.{int(time.time()) + SESSION_SECONDS}.{secrets.token_hex(8)}"
        return f"{text}.{self._sign(text)}"

    def end(self, request: HTTPConnection) -> None:
        """End the session of a request: its cookie is worth nothing any more, whoever has a copy."""
        if not self.has_session(request):
            return
        now = int(time.time())
        text, _, signature = request.cookies[self.cookie].rpartition(".")
        for old in [s for s, until in self.ended.items() if until < now]:
            del self.ended[old]
        self.ended[signature] = int(text.split(".")[1])

    def form_token(self, cookie: str) -> str:
        """The token that a form of this session must carry."""
        return self._sign(f"form {cookie}")

    def genuine(self, request: HTTPConnection, form_token: str) -> bool:
        """True if the form comes from a page served to this session, or the request has a bearer token.

        Browsers do not add bearer tokens by themselves, so such a request needs no form token.
        """
        if not self.open and self._bearer(request):
            return True
        cookie = request.cookies.get(self.cookie, "")
        return self._session(request) is not None and _equal(self.form_token(cookie), form_token)

    def same_origin(self, request: HTTPConnection) -> bool:
        """True unless the browser says that the request comes from another site's page."""
        origin = request.headers.get("Origin")
        return origin is None or origin.partition("://")[2] == request.headers.get("Host")

    def same_site(self, request: HTTPConnection, *, costly: bool) -> bool:
        """False if the browser says that another site sent this request.

        A link may lead here from anywhere, but not to a `costly` page: each visit would run a query.
        """
        if request.headers.get("Sec-Fetch-Site") not in ("cross-site", "same-site"):
            return True
        followed = (request.headers.get("Sec-Fetch-Mode"), request.headers.get("Sec-Fetch-Dest"))
        return not costly and request.scope.get("method") == "GET" and followed == ("navigate", "document")

    def has_session(self, request: HTTPConnection) -> bool:
        """True if the cookie is one of ours and has not expired."""
        return self._session(request) is not None

    def _session(self, request: HTTPConnection) -> str | None:
        text, _, signature = request.cookies.get(self.cookie, "").rpartition(".")
        if not _equal(self._sign(text), signature):
            return None
        name, until, _ = text.split(".")
        if signature in self.ended:
            return None
        return bytes.fromhex(name).decode() if int(until) > time.time() else None

    def _bearer(self, request: HTTPConnection) -> str:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        return token if kind.lower() == "bearer" else ""

    def _sign(self, text: str) -> str:
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()


def _equal(a: str, b: str) -> bool:
    return hmac.compare_digest(a.encode(), b.encode())


def require_reachable_safely(host: str, access: Access) -> None:
    """Check that pages served without tokens are reachable only from this machine. Errors: `UsageError`."""
    if access.open and host not in LOOPBACK:
        raise UsageError(
            f"--host {host} lets other machines in: give --tokens FILE (a table [NAME] with role and token for each"
            " person), or use --host 127.0.0.1"
        )
