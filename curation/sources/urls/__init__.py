"""URL lists: their pictures are fetched into the workspace, politely and once, and enter the pool like others."""

from __future__ import annotations

from dataclasses import dataclass

from flywheel.core.errors import UsageError
from flywheel.core.ranges import Above, Amount, Count, Positive, require_ranges

AGENT = "image-flywheel/0.2"
OPT_OUTS = ("noai", "noimageai", "noindex", "noimageindex", "none")  # directives that are honoured by default
FETCHED, REFUSED, FAILED = "fetched", "refused", "failed"


@dataclass(frozen=True, kw_only=True)
class Fetching:
    """How URLs are fetched; times in seconds."""

    agent: str = AGENT  # sent to servers; its first word is what robots.txt may name
    concurrency: Positive = 64  # requests at once per Ray task
    per_host: Positive = 2  # requests at once per host, over all tasks
    delay: Amount = 0.1  # least time between two requests to a host
    attempts: Positive = 3  # per URL, where trying again may help
    backoff: Amount = 1.0  # before the second attempt, doubled before each further one
    longest_wait: Amount = 60.0  # a server that asks for more is left for --retry
    timeout: Above = 30.0  # per attempt, redirects included
    max_bytes: Positive = 32 * 1024 * 1024  # per picture
    redirects: Count = 5
    robots: bool = True  # obey robots.txt
    opt_outs: tuple[str, ...] = OPT_OUTS  # directives in X-Robots-Tag and robots.txt that refuse a picture
    allow_private: bool = False  # addresses of this machine and of private networks
    part_rows: Positive = 1000  # URLs per task and per file of answers

    def __post_init__(self) -> None:
        require_ranges(self, "fetch.")
        if not self.agent.strip() or not self.agent.isascii() or not self.agent.isprintable():
            raise UsageError(f"fetch.agent is {self.agent!r}: give a name of plain characters")

    @property
    def token(self) -> str:
        """The product name that robots.txt and X-Robots-Tag may address."""
        return self.agent.split("/")[0].split()[0].lower()


@dataclass(frozen=True)
class Outcome:
    """How the fetch of one URL ended, and every answer that led there.

    status: fetched | refused (not to be fetched, or not to be used; reason says why) | failed (reason, code, attempts).
    directives: opt-outs that the server stated, honoured or not.
    """

    status: str
    reason: str = ""
    code: int = 0  # HTTP status of the last answer; 0: none
    attempts: int = 0
    final_url: str = ""
    content_type: str = ""
    directives: tuple[str, ...] = ()
    image: bytes | None = None
