"""robots.txt and X-Robots-Tag."""

from __future__ import annotations

from curation.sources.urls import OPT_OUTS
from curation.sources.urls.robots import Robots, refused_by, robots_url, tagged

AGENT = "image-flywheel/0.2"


def test_disallow_for_us_and_for_others() -> None:
    rules = Robots("User-agent: *\nDisallow: /a/\nAllow: /a/b\nDisallow: /*.gif$\nCrawl-delay: 3\n")
    urls = {"/a/x.png": False, "/a/b.png": True, "/c.gif": False, "/c.gif?x": True, "/": True}
    assert {u: rules.allows(f"http://h{u}", AGENT) for u in urls} == urls
    assert rules.delay(AGENT) == 3.0 and Robots("").delay(AGENT) == 0.0
    ours = Robots("User-agent: image-flywheel\nDisallow: /\n\nUser-agent: *\nAllow: /\n")
    assert not ours.allows("http://h/x", AGENT) and ours.allows("http://h/x", "other")
    assert Robots("<html>not a robots.txt").allows("http://h/x", AGENT) and Robots().allows("http://h/x", AGENT)


def test_opt_outs_in_robots_txt() -> None:
    text = "User-agent: *\nNoai: /art/\nNoindex: /old\nContent-Signal: search=yes, ai-train=no\n"
    rules = Robots(text)
    assert rules.directives("http://h/art/x.png", "image-flywheel") == ("noai",)
    assert rules.directives("http://h/old.png", "image-flywheel") == ("noai", "noindex")
    scoped = Robots("User-agent: *\nContent-Usage: /art/ train-ai=n\n")
    assert scoped.directives("http://h/art/x", "b") == ("noai",) and scoped.directives("http://h/x", "b") == ()
    others = Robots(
        "User-agent: otherbot\nContent-Signal: ai-train=no\n\nUser-agent: *\nContent-Signal: ai-train=yes\n"
    )
    assert others.directives("http://h/x", "image-flywheel") == ()
    assert others.directives("http://h/x", "otherbot") == ("noai",)


def test_headers() -> None:
    def said(*values: str) -> tuple[str, ...]:
        return tagged([("X-Robots-Tag", v) for v in values], "image-flywheel")

    assert said("noai, NoImageAI") == ("noai", "noimageai")
    assert said("otherbot: noindex, noai") == () and said("otherbot: noindex", "noai") == ("noai",)
    assert said("image-flywheel: noindex") == ("noindex",) and said("*: noai") == ("noai",)
    assert said("max-snippet: 5, noindex") == ("max-snippet: 5", "noindex")
    assert "noai" in tagged({"tdm-reservation": "1"}, "x") and tagged({"TDM-Reservation": "0"}, "x") == ()
    assert refused_by(["all", "noindex"], OPT_OUTS) == "noindex" and refused_by(["all"], OPT_OUTS) is None


def test_the_address_of_the_rules() -> None:
    assert robots_url("https://user:word@h.org:8443/a/b?c#d") == "https://h.org:8443/robots.txt"
