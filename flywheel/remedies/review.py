"""The human review queue: the loop's only manual step. What an item's state is, is a fold over its events.

Each item has as many slots as it needs reviews. A slot's history is numbered, and an event takes the next number by
compare-and-swap: of all who want the same slot one wins, whatever the number of processes and machines.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from flywheel.core.errors import UsageError
from flywheel.core.files import digest
from flywheel.core.ledger import Ledger
from flywheel.core.workspace import Workspace

AUTO = "auto-approve"
DEADLINE = "deadline"  # rejects, as a reviewer does, what nobody reviewed in time
DECIDED = ("accepted", "rejected")


class Waiting(UsageError):
    """A round can go on only when people have reviewed, or their deadline has passed. `round`: its number."""

    def __init__(self, round_: int, message: str) -> None:
        super().__init__(message)
        self.round = round_


@dataclass(frozen=True)
class Slot:
    """One review of an item: free (version 0, or its claim ran out), claimed, or decided."""

    version: int = 0
    kind: str = "free"  # free | claimed | accepted | rejected
    reviewer: str | None = None
    until: datetime | None = None  # when a claim runs out
    caption: str | None = None  # as edited
    at: datetime | None = None

    def held(self, now: datetime) -> bool:
        """Is somebody looking at it?"""
        return self.kind == "claimed" and self.until > now


@dataclass(frozen=True)
class Item:
    """A sample in the queue, as it stands after its last event."""

    item: str
    round: int
    capability: str
    sample_id: str
    priority: float
    proposed: str  # caption
    evidence: dict[str, Any]
    slots: tuple[Slot, ...]

    @property
    def outcome(self) -> str | None:
        """accepted (by more than half of its reviews) | rejected; None while a review is missing."""
        kinds = [s.kind for s in self.slots]
        if any(k not in DECIDED for k in kinds):
            return None
        return "accepted" if 2 * kinds.count("accepted") > len(kinds) else "rejected"

    @property
    def deadline(self) -> datetime | None:
        """When what is not reviewed is left out; None: never."""
        until = self.evidence.get("deadline")
        return datetime.fromisoformat(until) if until else None

    @property
    def caption(self) -> str:
        """As proposed, or as the last accepting reviewer edited it."""
        edits = [(s.at, s.caption) for s in self.slots if s.kind == "accepted" and s.caption]
        return max(edits)[1] if edits else self.proposed


def item_id(round_: int, capability: str, sample_id: str) -> str:
    """16 hex digits."""
    return digest("review", round_, capability, sample_id)[:16]


def fold(events: Iterable[Mapping[str, Any]]) -> dict[str, Item]:
    """Items by id. The events' order does not matter: `version` orders a slot's."""
    items: dict[str, Item] = {}
    slots: dict[tuple[str, int], Slot] = {}
    for e in events:
        evidence = json.loads(e["evidence"] or "{}")
        if e["kind"] == "queued":
            items[e["item"]] = Item(
                e["item"], e["round"], e["capability"], e["sample_id"], e["priority"], e["caption"], evidence, ()
            )
            continue
        key = (e["item"], e["slot"])
        if e["version"] > slots.get(key, Slot()).version:
            until = datetime.fromisoformat(evidence["until"]) if e["kind"] == "claimed" else None
            slots[key] = Slot(e["version"], e["kind"], e["reviewer"], until, e["caption"], e["at"])
    return {
        i: replace(x, slots=tuple(slots.get((i, n), Slot()) for n in range(x.evidence["reviews"])))
        for i, x in items.items()
    }


class Queue:
    """The review queue of a workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.ledger = Ledger(workspace, "reviews")

    def items(self, round_: int | None = None) -> dict[str, Item]:
        """Items of a round, or of all, by id."""
        found = fold(self.ledger.rows())
        return {i: x for i, x in found.items() if round_ in (None, x.round)}

    def add(
        self,
        round_: int,
        rows: Sequence[Mapping[str, Any]],
        *,
        reviews: int = 1,
        claim_minutes: float = 30,
        deadline_hours: float = 0,
    ) -> None:
        """Queue samples (capability, sample_id, caption, priority, evidence), once per round.

        `reviews`: how many each needs; `claim_minutes`: how long a claim on one holds; `deadline_hours`: how long a
        round waits, 0 for ever.
        """
        shared: dict[str, Any] = {"reviews": reviews, "claim_minutes": claim_minutes}
        if deadline_hours:
            shared["deadline"] = (datetime.now(UTC) + timedelta(hours=deadline_hours)).isoformat()
        events = []
        for r in rows:
            item = item_id(round_, r["capability"], r["sample_id"])
            row = {k: r[k] for k in ("capability", "sample_id", "caption", "priority")}
            row |= {"event_id": digest(item, "queued")[:32], "item": item, "round": round_, "kind": "queued"}
            evidence = {**r["evidence"], **shared}
            events.append(row | {"evidence": json.dumps(evidence, ensure_ascii=False, sort_keys=True)})
        self.ledger.append(events, key=f"queue/{round_}")

    def pending(self, round_: int | None = None) -> list[Item]:
        """Items that lack a review and whose deadline has not passed."""
        now = datetime.now(UTC)
        return [x for x in self.items(round_).values() if x.outcome is None and not (x.deadline and x.deadline <= now)]

    def approve_all(self, round_: int) -> int:
        """Accept whatever no person has decided, in the name of `auto-approve`; returns how many slots that were."""
        return self._decide_rest(round_, "accepted", AUTO)

    def leave_out(self, round_: int) -> int:
        """Reject whatever no person has decided, in the name of `deadline`; returns how many slots that were."""
        return self._decide_rest(round_, "rejected", DEADLINE)

    def wait(self, round_: int, *, seconds: float = 10.0, progress: Callable[..., None] | None = None) -> None:
        """Return once nothing of the round waits for people; looks every so many seconds."""
        before = 0
        while waiting := len(self.pending(round_)):
            if progress and waiting != before:  # a line for each change, not for each look: it may take days
                total = len(self.items(round_))
                progress(total - waiting, total, "reviewed")
            before = waiting
            time.sleep(seconds)

    def next(self, reviewer: str) -> Item | None:
        """Claim the most uncertain item that waits for this reviewer; their running claim is given again.

        None when nothing waits for them. Two reviewers never hold one slot, and nobody reviews an item twice.
        """
        _require_name(reviewer)
        while True:
            now = datetime.now(UTC)
            items = self.items()
            if mine := held_by(reviewer, items.values()):
                return mine
            open_ = [(x, n) for x in items.values() if (n := _free_slot(x, reviewer, now)) is not None]
            if not open_:
                return None
            item, slot = min(open_, key=lambda found: (-found[0].priority, found[0].item))
            until = now + timedelta(minutes=item.evidence["claim_minutes"])
            if self._take(item, slot, "claimed", reviewer, {"until": until.isoformat()}):
                return item  # else somebody was faster: look again

    def decide(self, name: str, kind: str, reviewer: str, *, caption: str | None = None, reason: str = "") -> Item:
        """`accepted` (with `caption` where it was edited) or `rejected`; `name` is an item's id or its start.

        Errors: `UsageError` for an unknown item, one that this reviewer has not claimed, and a claim that ran out.
        """
        _require_name(reviewer)
        item = self.find(name)
        slot = next((n for n, s in enumerate(item.slots) if s.reviewer == reviewer and s.kind == "claimed"), None)
        if slot is None:
            raise UsageError(f"{reviewer} holds no claim on {item.item}: ask for an item with `flywheel review next`")
        evidence = {"reason": reason} if reason else {}
        expired = not item.slots[slot].held(datetime.now(UTC))
        if expired or not self._take(item, slot, kind, reviewer, evidence, caption):
            raise UsageError(f"the claim on {item.item} has run out: ask again with `flywheel review next`")
        return self.items()[item.item]

    def find(self, name: str) -> Item:
        """The item that an id or its first characters name. Errors: `UsageError`."""
        found = [x for i, x in self.items().items() if i.startswith(name)]
        if len(found) != 1:
            known = "several items start" if found else "no item starts"
            raise UsageError(f"{known} with {name!r}: `flywheel review next` and `status` print the ids")
        return found[0]

    def _decide_rest(self, round_: int, kind: str, by: str) -> int:
        events = [
            self._event(x, n, kind, by, {})
            for x in self.items(round_).values()
            for n, s in enumerate(x.slots)
            if s.kind not in DECIDED
        ]
        if events:
            self.ledger.append(events, key=f"{by}/{round_}")
        return len(events)

    def _take(
        self, item: Item, slot: int, kind: str, reviewer: str, evidence: Mapping[str, Any], caption: str | None = None
    ) -> bool:
        """Append the slot's next event; False when somebody else did."""
        event = self._event(item, slot, kind, reviewer, evidence, caption)
        return self.ledger.append([event], key=f"{item.item}/{slot}/{event['version']}")

    def _event(
        self, item: Item, slot: int, kind: str, reviewer: str, evidence: Mapping[str, Any], caption: str | None = None
    ) -> dict[str, Any]:
        version = item.slots[slot].version + 1
        return {
            "event_id": digest(item.item, slot, version)[:32],
            "item": item.item,
            "round": item.round,
            "capability": item.capability,
            "sample_id": item.sample_id,
            "kind": kind,
            "slot": slot,
            "version": version,
            "reviewer": reviewer,
            "caption": caption,
            "evidence": json.dumps(evidence, ensure_ascii=False),
        }


def status(items: Iterable[Item]) -> list[dict[str, Any]]:
    """One row per round and capability: items waiting, claimed, accepted, rejected."""
    now = datetime.now(UTC)
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for x in items:
        row = rows.setdefault(
            (x.round, x.capability),
            {"round": x.round, "capability": x.capability}
            | dict.fromkeys(("waiting", "claimed", "accepted", "rejected", AUTO), 0),
        )
        row[x.outcome or ("claimed" if any(s.held(now) for s in x.slots) else "waiting")] += 1
        row[AUTO] += any(s.reviewer == AUTO for s in x.slots)
    return [rows[k] for k in sorted(rows)]


def held_by(reviewer: str, items: Iterable[Item]) -> Item | None:
    """The item that a reviewer has claimed and not decided yet."""
    now = datetime.now(UTC)
    return next((x for x in items for s in x.slots if s.reviewer == reviewer and s.held(now)), None)


def _free_slot(item: Item, reviewer: str, now: datetime) -> int | None:
    """A slot of the item that this reviewer may take."""
    if any(s.reviewer == reviewer and s.kind in DECIDED for s in item.slots):
        return None
    return next((n for n, s in enumerate(item.slots) if s.kind not in DECIDED and not s.held(now)), None)


def _require_name(reviewer: str) -> None:
    if not reviewer.strip() or reviewer in (AUTO, DEADLINE):
        raise UsageError(f"--reviewer {reviewer!r}: give the name of a person")
