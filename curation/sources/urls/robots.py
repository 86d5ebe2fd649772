"""What a server says about the use of its pictures: robots.txt (RFC 9309) and the header X-Robots-Tag."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit, urlunsplit

from protego import Protego

MAX_BYTES = 512 * 1024  # RFC 9309: at least 500 KiB of a robots.txt must be read
_NO = ("no", "n", "disallow", "0", "false")
_SIGNALS = {"content-signal": "ai-train", "content-usage": "train-ai"}  # line → its key about training
_DIRECTIVES = ("noai", "noimageai", "noindex", "noimageindex")  # lines of robots.txt with a path, beside Disallow
_TAG_KEYS = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")  # directives with a colon


@dataclass(frozen=True)
class Robots:
    """The rules of one host; an empty text allows everything."""

    text: str = ""

    @cached_property
    def _rules(self) -> Protego:
        return Protego.parse(self.text)

    def allows(self, url: str, agent: str) -> bool:
        """Whether robots.txt lets this agent fetch the URL."""
        return not self.text or self._rules.can_fetch(url, agent)

    def delay(self, agent: str) -> float:
        """Seconds between requests that robots.txt asks for; 0 if it says nothing."""
        return float(self._rules.crawl_delay(agent) or 0.0) if self.text else 0.0

    def directives(self, url: str, agent: str) -> tuple[str, ...]:
        """Opt-outs for this URL beside Disallow: noai and its like, and `noai` for signals against training."""
        path = urlsplit(url).path or "/"
        found = {d for d, prefix in self._opt_outs(agent) if path.startswith(prefix)}
        return tuple(sorted(found))

    def _opt_outs(self, agent: str) -> Iterable[tuple[str, str]]:
        for key, value in _group(self.text, agent):
            if key in _DIRECTIVES:
                yield key, value or "/"
            elif key in _SIGNALS:
                path, _, rest = value.partition(" ") if value.startswith("/") else ("/", "", value)
                for part in rest.split(","):
                    name, _, answer = part.partition("=")
                    if name.strip().lower() == _SIGNALS[key] and answer.strip().lower() in _NO:
                        yield "noai", path


def robots_url(url: str) -> str:
    """Address of the robots.txt that holds for a URL."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "/robots.txt", "", ""))


def tagged(headers: Mapping[str, str] | Iterable[tuple[str, str]], agent: str) -> tuple[str, ...]:
    """Directives for this agent in the headers of an answer, in lower case: X-Robots-Tag, and TDM-Reservation as noai.

    A directive behind another agent's name does not count.
    """
    found: set[str] = set()
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        lower = name.lower()
        if lower == "tdm-reservation" and value.strip() == "1":
            found.add("noai")
        elif lower == "x-robots-tag":
            found |= set(_tag(value, agent.lower()))
    return tuple(sorted(found))


def refused_by(directives: Collection[str], opt_outs: Collection[str]) -> str | None:
    """The first directive that is honoured; None if there is none."""
    return next((d for d in sorted(directives) if d in opt_outs), None)


def _tag(value: str, agent: str) -> Iterable[str]:
    addressed = ""
    for part in value.lower().split(","):
        name, colon, rest = part.partition(":")
        if colon and name.strip() not in _TAG_KEYS:
            addressed, part = name.strip(), rest
        if addressed in ("", "*", agent):
            yield part.strip()


def _group(text: str, agent: str) -> list[tuple[str, str]]:
    """Lines of the groups that name the agent, or else of those for all; names and values in lower case."""
    groups: dict[str, list[tuple[str, str]]] = {}
    agents: list[str] = []
    in_rules = False
    for line in text.splitlines():
        key, colon, value = line.partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if not key:
            continue
        if key == "user-agent":
            agents = [value.lower()] if in_rules else [*agents, value.lower()]
            in_rules = False
        else:
            in_rules = True
            for name in agents or ["*"]:
                groups.setdefault(name, []).append((key, value.lower() if key in _SIGNALS else value))
    own = next((name for name in groups if name != "*" and name and agent.lower().startswith(name)), "*")
    return groups.get(own, [])
