"""The hidden part of the held-out prompts: judged at each round, and read by no plan, attribution or remedy.

A suite that rounds chase for long is fitted in the end, although no picture of it is trained on: cases, quotas and
prompts follow its failures. The hidden part has the same capabilities and is followed by nothing, so that its failure
rate falls less where a suite is fitted. The gate does not read it either: a decision that uses it would fit it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flywheel.core.errors import UsageError
from flywheel.core.files import digest, read_json, write_json
from flywheel.core.workspace import Workspace
from flywheel.signals import pinned
from flywheel.signals.suite import Prompt, copy_suite, load_suite

ARM = "hidden"  # of an evaluation
# Prompts of the same capabilities that must stay chased: with fewer, the gate could not rule out a loss of its default
# margin even if no prompt broke, and no round would ever be promoted.
LEFT = 29


def choose(prompts: Sequence[Prompt], share: float, seed: int) -> list[str]:
    """Ids of the hidden prompts: of each group of equal capabilities the `share` with the lowest keyed hash.

    A group that would keep too few prompts for the gate is chased whole.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for p in prompts:
        groups.setdefault(tuple(sorted({c["capability"] for c in p.checks})), []).append(p.prompt_id)
    hidden: list[str] = []
    for ids in groups.values():
        if len(ids) - round(share * len(ids)) >= LEFT:
            hidden += sorted(ids, key=lambda i: digest("hidden", seed, i))[: round(share * len(ids))]
    return sorted(hidden)


def write(workspace: Workspace, hidden: float | str, seed: int) -> None:
    """Fix the hidden prompts once, beside the suite: a share of its prompts, or a suite of their own (a file).

    Call it before the first round: afterwards the suite has been chased. Errors: `UsageError`.
    """
    if _listed(workspace).exists():
        return
    if isinstance(hidden, str):
        copied = copy_suite(Path(hidden), _own_suite(workspace))
        known = {p.prompt_id for p in load_suite(workspace.suite)}
        if shared := sorted(known & {p.prompt_id for p in load_suite(copied)}):
            raise UsageError(f"{hidden} and the suite share the prompt id {shared[0]!r}: rename it in one of them")
        write_json(_listed(workspace), [])
    else:
        write_json(_listed(workspace), choose(load_suite(workspace.suite), hidden, seed))


def split(workspace: Workspace) -> tuple[list[Prompt], list[Prompt]]:
    """(prompts that rounds chase, hidden prompts); none before the suite is written. Errors: as `pinned.load_own`."""
    if not workspace.suite.exists():
        return [], []
    listed, own = _listed(workspace), _own_suite(workspace)
    ids = set(read_json(listed)) if listed.exists() else set()
    prompts = pinned.load_own(workspace)
    hidden = [p for p in prompts if p.prompt_id in ids] + (load_suite(own) if own.exists() else [])
    return [p for p in prompts if p.prompt_id not in ids], hidden


def held_out(workspace: Workspace) -> list[Prompt]:
    """Every held-out prompt, chased or hidden: none may be trained on. Errors: as `pinned.load_own`."""
    chased, hidden = split(workspace)
    return [*chased, *hidden]


def _listed(workspace: Workspace) -> Path:
    return workspace.suite.parent / "hidden.json"


def _own_suite(workspace: Workspace) -> Path:
    return workspace.suite.parent / "hidden.jsonl"
