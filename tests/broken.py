"""Settings files that someone has half written or mistyped."""

from __future__ import annotations

from collections.abc import Iterator

VALUES = ("3", "-1", '"x"', "[]", "{}", "true", '[1, "a"]', "{ a = 1 }", "nan", "inf", "[[1]]", "1979-05-27", "")


def broken(text: str, step: int = 1) -> Iterator[str]:
    """The text cut after each line, without it, with other values for its key, with another table; every `step`-th."""
    lines = text.splitlines()
    for n in range(0, len(lines), step):
        before, line, after = lines[:n], lines[n], lines[n + 1 :]
        yield "\n".join(before)
        yield "\n".join([*before, *after])
        changed = [f"{line.split('=')[0]}= {v}" for v in VALUES] if "=" in line and line[:1] not in "#" else []
        if line.startswith("["):
            changed = [f"[{line}]", f"[1{line[1:]}", line.strip("[]").replace(".", "_") + " = 1"]
        yield from ("\n".join([*before, other, *after]) for other in changed)
