"""Who may do what: roles by token, signed sessions, and proof that a form came from our own page."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from flywheel.core.errors import UsageError

ROLES = ("read", "review", "operate")  # each may do what those before it may
SESSION_SECONDS = 12 * 3600
MIN_TOKEN = 16  # characters
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Person:
    """Who asks; without tokens nobody has a name."""

    name: str
    role: str

    def may(self, role: str) -> bool:
        """Does their role include this one?"""
        return ROLES.index(self.role) >= ROLES.index(role)


ANYBODY = Person("", "review")  # where only this machine can ask


def load_tokens(path: Path) -> dict[str, Person]:
    """Token → person, from TOML: a table per person with `role` and `token`. Errors: `UsageError`."""
    try:
        people = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--tokens {path} cannot be read as TOML: {error}") from error
    found: dict[str, Person] = {}
    for name, given in people.items():
        role, token = (given.get("role"), given.get("token")) if isinstance(given, dict) else (None, None)
        if role not in ROLES:
            raise UsageError(f'--tokens {path}: [{name}] needs role = "read", "review" or "operate"')
        if not isinstance(token, str) or len(token) < MIN_TOKEN or token in found:
            raise UsageError(f"--tokens {path}: [{name}] needs a token of its own, of {MIN_TOKEN} characters or more")
        found[token] = Person(name, role)
    if not found:
        raise UsageError(f"--tokens {path} names nobody: write [NAME], role and token")
    return found


@dataclass(frozen=True)
class Access:
    """Sessions are cookies signed with a key that lives as long as the process; no token is ever stored in one."""

    people: Mapping[str, Person] = field(default_factory=dict)
    key: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    cookie: str = field(default_factory=lambda: f"flywheel_{secrets.token_hex(4)}")  # ports share cookies

    @property
    def open(self) -> bool:
        """Are there no tokens? Then only this machine is served."""
        return not self.people

    def known(self, token: str) -> Person | None:
        """Whose token it is; every token is compared, so that the time taken says nothing."""
        matches = [p for t, p in self.people.items() if _equal(t, token)]
        return matches[0] if matches else None

    def person(self, request: HTTPConnection) -> Person | None:
        """Who asks, by bearer token or session; None for a stranger."""
        if self.open:
            return ANYBODY
        if token := self._bearer(request):
            return self.known(token)
        name = self._session(request)
        return next((p for p in self.people.values() if p.name == name), None)

    def start(self, name: str) -> str:
        """The cookie of a new session."""
        text = f"{name.encode().hex()}.{int(time.time()) + SESSION_SECONDS}.{secrets.token_hex(8)}"
        return f"{text}.{self._sign(text)}"

    def form_token(self, cookie: str) -> str:
        """What a form has to carry for a request of this session to be ours."""
        return self._sign(f"form {cookie}")

    def genuine(self, request: HTTPConnection, sent: str) -> bool:
        """Was the form on a page that we gave to this session? A bearer token needs none: no browser adds it."""
        if not self.open and self._bearer(request):
            return True
        cookie = request.cookies.get(self.cookie, "")
        return self._session(request) is not None and _equal(self.form_token(cookie), sent)

    def same_origin(self, request: HTTPConnection) -> bool:
        """Does the browser say that the request came from one of our pages, or nothing?"""
        origin = request.headers.get("Origin")
        return origin is None or urlsplit(origin).netloc == request.headers.get("Host")

    def has_session(self, request: HTTPConnection) -> bool:
        """Is its cookie one of ours, and not over?"""
        return self._session(request) is not None

    def _session(self, request: HTTPConnection) -> str | None:
        text, _, signature = request.cookies.get(self.cookie, "").rpartition(".")
        if not _equal(self._sign(text), signature):
            return None
        name, until, _ = text.split(".")
        return bytes.fromhex(name).decode() if int(until) > time.time() else None

    def _bearer(self, request: HTTPConnection) -> str:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        return token if kind.lower() == "bearer" else ""

    def _sign(self, text: str) -> str:
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()


def _equal(a: str, b: str) -> bool:
    return hmac.compare_digest(a.encode(), b.encode())


def require_reachable_safely(host: str, access: Access) -> None:
    """Errors: `UsageError` when others could reach the pages without a token."""
    if access.open and host not in LOOPBACK:
        raise UsageError(
            f"--host {host} lets other machines in: give --tokens FILE (a table [NAME] with role and token for each"
            " person), or bind to 127.0.0.1"
        )
