"""The review queue, the loop's only manual step. The state of an item is a fold over its events.

An item has one slot per review that it needs. Events of a slot are numbered, and an event takes the next number by
compare-and-swap: if several processes or machines want the same slot, one of them wins.
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
from flywheel.core.text import person
from flywheel.core.workspace import Workspace

AUTO = "auto-approve"
DEADLINE = "deadline"  # recorded as the reviewer that rejects samples not reviewed in time
DECIDED = ("accepted", "rejected")


class Waiting(UsageError):
    """A round waits until its samples are reviewed or the deadline has passed. round: its number."""

    def __init__(self, round_: int, message: str) -> None:
        super().__init__(message)
        self.round = round_


@dataclass(frozen=True)
class Slot:
    """One review of an item: free (version 0, or its claim has expired), claimed, or decided."""

    version: int = 0
    kind: str = "free"  # free | claimed | accepted | rejected
    reviewer: str | None = None
    until: datetime | None = None  # when a claim expires
    caption: str | None = None  # as edited
    at: datetime | None = None

    def by(self, reviewer: str) -> bool:
        """Is it this person's, however they spell their name?"""
        return self.reviewer is not None and person(self.reviewer) == person(reviewer)

    def held(self, now: datetime) -> bool:
        """Is it claimed, and has the claim not expired?"""
        return self.kind == "claimed" and self.until is not None and self.until > now


@dataclass(frozen=True)
class Item:
    """A sample in the queue, as it is after its last event."""

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
        """accepted (more than half of its reviews accept it) | rejected; None while a review is missing."""
        kinds = [s.kind for s in self.slots]
        if any(k not in DECIDED for k in kinds):
            return None
        return "accepted" if 2 * kinds.count("accepted") > len(kinds) else "rejected"

    @property
    def deadline(self) -> datetime | None:
        """When the item is left out if it is not reviewed; None: never."""
        until = self.evidence.get("deadline")
        return datetime.fromisoformat(until) if until else None

    @property
    def caption(self) -> str:
        """The proposed caption, or the last edit of a reviewer who accepted the sample."""
        edits = [(s.at, s.caption) for s in self.slots if s.kind == "accepted" and s.caption]
        return max(edits)[1] if edits else self.proposed


def item_id(round_: int, capability: str, sample_id: str) -> str:
    """Id of an item: 16 hex digits."""
    return digest("review", round_, capability, sample_id)[:16]


def fold(events: Iterable[Mapping[str, Any]]) -> dict[str, Item]:
    """Items by id. The order of the events does not matter: `version` orders the events of a slot."""
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
        """Items of a round, or of all rounds, by id."""
        items = fold(self.ledger.rows())
        return {i: x for i, x in items.items() if round_ in (None, x.round)}

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

        reviews: number that each sample needs; claim_minutes: duration of a claim; deadline_hours: how long the round
        waits, 0 without end.
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
        """Accept all undecided slots as the reviewer `auto-approve`; returns how many."""
        return self._decide_rest(round_, "accepted", AUTO)

    def leave_out(self, round_: int) -> int:
        """Reject all undecided slots as the reviewer `deadline`; returns how many."""
        return self._decide_rest(round_, "rejected", DEADLINE)

    def wait(self, round_: int, *, seconds: float = 10.0, progress: Callable[..., None] | None = None) -> None:
        """Return once no sample of the round waits for review. seconds: between two checks."""
        before = 0
        while waiting := len(self.pending(round_)):
            if progress and waiting != before:  # one line per change, not per check: this may take days
                total = len(self.items(round_))
                progress(total - waiting, total, "reviewed")
            before = waiting
            time.sleep(seconds)

    def next(self, reviewer: str) -> Item | None:
        """Claim the most uncertain item that this reviewer can review; returns a claim that they already hold again.

        None if there is nothing to review. Two reviewers never hold the same slot, and nobody reviews an item twice,
        also under another spelling of their name; the first spelling is recorded.
        """
        _require_name(reviewer)
        while True:
            now = datetime.now(UTC)
            items = self.items()
            reviewer = _first_spelling(reviewer, items.values())
            if mine := held_by(reviewer, items.values()):
                return mine
            open_ = [(x, n) for x in items.values() if (n := _free_slot(x, reviewer, now)) is not None]
            if not open_:
                return None
            item, slot = min(open_, key=lambda place: (-place[0].priority, place[0].item))
            until = now + timedelta(minutes=item.evidence["claim_minutes"])
            if self._take(item, slot, "claimed", reviewer, {"until": until.isoformat()}):
                return item  # otherwise somebody was faster: try again

    def decide(self, name: str, kind: str, reviewer: str, *, caption: str | None = None, reason: str = "") -> Item:
        """Record `accepted` or `rejected` for a claimed item; returns the item.

        name: the item's id or its first characters; caption: the edited caption. Errors: `UsageError` for an unknown
        item, one that this reviewer has not claimed, and an expired claim.
        """
        _require_name(reviewer)
        item = self.find(name)
        slot = next((n for n, s in enumerate(item.slots) if s.by(reviewer) and s.kind == "claimed"), None)
        if slot is None:
            raise UsageError(f"{reviewer} holds no claim on {item.item}: claim an item with `flywheel review next`")
        evidence = {"reason": reason} if reason else {}
        reviewer, expired = item.slots[slot].reviewer or reviewer, not item.slots[slot].held(datetime.now(UTC))
        if expired or not self._take(item, slot, kind, reviewer, evidence, caption):
            raise UsageError(f"the claim on {item.item} has run out: claim an item again with `flywheel review next`")
        return self.items()[item.item]

    def find(self, name: str) -> Item:
        """The item with this id, or whose id starts with `name`. Errors: `UsageError` if none or several do."""
        matches = [x for i, x in self.items().items() if i.startswith(name)]
        if len(matches) != 1:
            which = "several items start" if matches else "no item starts"
            raise UsageError(f"{which} with {name!r}: `flywheel review next` and `status` print the ids")
        return matches[0]

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
        """Append the slot's next event; False if somebody else already did."""
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
    """One row per round and capability: numbers of items waiting, claimed, accepted, rejected, auto-approved."""
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
    """The item that a reviewer has claimed and not yet decided."""
    now = datetime.now(UTC)
    return next((x for x in items for s in x.slots if s.by(reviewer) and s.held(now)), None)


def _free_slot(item: Item, reviewer: str, now: datetime) -> int | None:
    """A slot of the item that this reviewer can claim; None if there is none."""
    if any(s.by(reviewer) and s.kind in DECIDED for s in item.slots):
        return None
    return next((n for n, s in enumerate(item.slots) if s.kind not in DECIDED and not s.held(now)), None)


def _first_spelling(reviewer: str, items: Iterable[Item]) -> str:
    """The name as this person has written it first, or as it is now, without needless spaces."""
    spellings = ((s.at, s.reviewer) for x in items for s in x.slots if s.by(reviewer))
    known = min(((at, name) for at, name in spellings if at and name), default=None)
    return known[1] if known else " ".join(reviewer.split())


def _require_name(reviewer: str) -> None:
    if person(reviewer) in ("", AUTO, DEADLINE):
        raise UsageError(f"--reviewer {reviewer!r}: give the name of a person")
