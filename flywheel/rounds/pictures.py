"""Pictures that any model drew become signals, cases and routes: the evaluation of a model that is not here.

The picture of a prompt's lowest seed opens cases. Pictures of further seeds, and of enhanced prompts, are the
experiment that routes them, as in `flywheel.cases.attribution` where the model can be asked. What is missing is listed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel.cases.attribution import affordable
from flywheel.cases.events import Case, load_cases
from flywheel.cases.stored import gather, route_stored
from flywheel.core.files import digest, discard, file_digest, read_json, write_bytes
from flywheel.core.ledger import Ledger
from flywheel.core.lens import connect, latest_snapshot, shard_manifest
from flywheel.core.text import normalise
from flywheel.core.workspace import Workspace
from flywheel.presets import Attribution, Preset
from flywheel.remedies.enhancer import load_enhancer
from flywheel.remedies.index import CaptionIndex
from flywheel.remedies.retrieval import captions
from flywheel.signals.drawing import picture_name
from flywheel.signals.drawn_elsewhere import Drawn, seed_ranges
from flywheel.signals.evaluation import signal
from flywheel.signals.feedback import known_ids, one_at_a_time
from flywheel.signals.judged_pictures import Judged, judge_pictures
from flywheel.signals.judging import Verifiers
from flywheel.signals.suite import Prompt, copy_reference, write_rows

_STORED = "SELECT case_id, folder, density IS NOT NULL FROM probes WHERE checkpoint = ?"


@dataclass(frozen=True)
class Missing:
    """A case that cannot be routed yet, and the seeds of its prompt that would route it."""

    case: Case
    prompt: Prompt
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Evaluated:
    """What was judged and recorded. events, tracks: numbers of case events and of routed cases; see `flywheel.cases`.

    needed: number of pictures that would route the rest; needed_list: JSON Lines with one row per such picture; say:
    sentences for the user.
    """

    judged: tuple[Judged, ...]
    signals: int
    events: Mapping[str, int]
    tracks: Mapping[str, int]
    needed: int = 0
    needed_list: str | None = None
    say: tuple[str, ...] = ()


def evaluate_pictures(
    workspace: Workspace, suite: Sequence[Prompt], drawn: Drawn, system: str, preset: Preset
) -> Evaluated:
    """Judge the pictures, record signals under the name `system`, open cases, and route those with enough pictures.

    Equal pictures count once, however often this runs. A picture that is missing or cannot be read costs its own
    prompt's rows, whose `Judged` says why.
    """
    by = Verifiers.of(workspace, preset.evaluation)
    judged = tuple(judge_pictures([(p, _first(p, drawn)) for p in suite], by=by))
    recorded = _record(workspace, judged, system)
    events = gather(workspace)
    waiting = _undecided(workspace, suite)
    missing = _probe(workspace, waiting, drawn, system, preset, by)
    tracks = route_stored(workspace, preset.attribution)
    still = _undecided(workspace, suite)
    missing = [m for m in missing if m.case.case_id in {c.case_id for c, _ in still}]
    needed_list, needed, say = _needed(workspace, missing, drawn, system, preset)
    if unsure := len(still) - len(missing):
        say.append(_unsure(unsure, latest_snapshot(workspace) is not None))
    return Evaluated(judged, recorded, events, tracks, needed, needed_list, tuple(say))


def _first(prompt: Prompt, drawn: Drawn) -> Path | str:
    """The picture of the lowest seed, or why there is none."""
    missing = f"there is no picture {picture_name(prompt.prompt_id)} in {drawn.root}"
    return next(iter(drawn.pictures(prompt).values()), missing)


# Signals ------------------------------------------------------------------------------------------------------------
def _record(workspace: Workspace, judged: Iterable[Judged], system: str) -> int:
    """Record one signal per check, with a copy of its picture; returns how many are new."""
    folder = workspace.path("samples", "pictures")
    rows: dict[str, dict[str, Any]] = {}
    for each in judged:
        if each.picture is None:
            continue
        prompt, sha256 = each.prompt, file_digest(each.picture)
        copy = folder / f"{sha256[:32]}{each.picture.suffix}"
        if not copy.exists():
            write_bytes(copy, each.picture.read_bytes())
        shown = [_inside(workspace, r, folder) for r in prompt.references]
        for number, outcome in enumerate(each.outcomes):
            row = signal(None, None, system, prompt, outcome, workspace.relative(copy))
            row["signal_id"] = digest("picture", system, prompt.prompt_id, sha256, number, prompt.checks[number])[:32]
            if shown:
                row["evidence"] = json.dumps(json.loads(row["evidence"]) | {"references": shown}, ensure_ascii=False)
            rows[row["signal_id"]] = row
    with one_at_a_time(workspace):
        known = known_ids(workspace, "evaluation")
        new = [row for identity, row in rows.items() if identity not in known]
        if new:
            Ledger(workspace, "signals").append(new, key=f"pictures/{digest(sorted(r['signal_id'] for r in new))[:32]}")
    return len(new)


def _inside(workspace: Workspace, reference: Path, folder: Path) -> str:
    """The workspace path of a reference; one from outside is copied, so that later rounds find it."""
    inside = reference.is_relative_to(workspace.root)
    return workspace.relative(reference if inside else folder / copy_reference(reference, folder))


# Experiments --------------------------------------------------------------------------------------------------------
def _undecided(workspace: Workspace, suite: Sequence[Prompt]) -> list[tuple[Case, Prompt]]:
    """Open cases without a sure track on prompts of the suite. Equal texts share a case, under one of their ids."""
    by_id = {p.prompt_id: p for p in suite}
    by_text = {normalise(p.text): p for p in reversed(suite) if p.task == "t2i"}
    found = []
    for case in load_cases(workspace).values():
        prompt = by_id.get(case.prompt_id) or by_text.get(normalise(case.prompt))
        judged = prompt and any(c["capability"] == case.capability for c in prompt.checks)
        if prompt and judged and case.is_open and case.track in (None, "unsure"):
            found.append((case, prompt))
    return found


def _probe(
    workspace: Workspace,
    waiting: Sequence[tuple[Case, Prompt]],
    drawn: Drawn,
    system: str,
    preset: Preset,
    by: Verifiers,
) -> list[Missing]:
    """Judge the further pictures of these cases and store them as probes; returns the cases that need more of them.

    A case is probed once one further picture passes, or as many fail as attribution asks for: fewer failures would
    send it to a track on little evidence.
    """
    settings, prompts = preset.attribution, list({p.prompt_id: p for _, p in waiting}.values())
    counted, dense = _counted(workspace, system)
    plain = _verdicts(prompts, lambda p: dict(list(drawn.pictures(p).items())[1:]), by)
    better = _verdicts(prompts, drawn.rewritten, by)
    rows, missing = [], []
    for case, prompt in waiting:
        tried = plain.get((prompt.prompt_id, case.capability), {})
        enhanced = better.get((prompt.prompt_id, case.capability), {})
        if len(tried) < settings.seeds and not any([*tried.values(), *enhanced.values()]):
            missing.append(Missing(case, prompt, _open_seeds(prompt, drawn, tried, settings)))
            continue
        new = {p: passed for p, passed in tried.items() if file_digest(p) not in counted.get(case.case_id, ())}
        new_enhanced = {p: ok for p, ok in enhanced.items() if file_digest(p) not in counted.get(case.case_id, ())}
        if new or new_enhanced or case.case_id not in dense:
            rows.append((case, prompt, new, new_enhanced))
    _store(workspace, rows, system, preset)
    return missing


def _verdicts(
    prompts: Sequence[Prompt], pictures: Callable[[Prompt], Mapping[int, Path]], by: Verifiers
) -> dict[tuple[str, str], dict[Path, bool]]:
    """{(prompt id, capability): {picture: passes}}; pictures to which no check of it applies are left out."""
    pairs = [(p, path) for p in prompts for path in pictures(p).values()]
    out: dict[tuple[str, str], dict[Path, bool]] = {}
    for judged in judge_pictures(pairs, by=by):
        applied = [o for o in judged.outcomes if o.passed is not None]
        for capability in {o.capability for o in applied}:
            passed = all(o.passed for o in applied if o.capability == capability)
            if judged.picture is not None:
                out.setdefault((judged.prompt.prompt_id, capability), {})[judged.picture] = passed
    return out


def _counted(workspace: Workspace, system: str) -> tuple[dict[str, set[str]], set[str]]:
    """({case id: SHA-256 of the pictures that its probes have counted}, ids of cases whose density is known)."""
    with closing(connect(workspace, ("probes",))) as con:
        rows = con.execute(_STORED, [system]).fetchall()
    counted: dict[str, set[str]] = {}
    for case_id, folder, _ in rows:
        listed = workspace.path(folder, "pictures.json")
        counted.setdefault(case_id, set()).update(read_json(listed) if listed.exists() else ())
    return counted, {case_id for case_id, _, known in rows if known}


def _store(
    workspace: Workspace,
    rows: Sequence[tuple[Case, Prompt, Mapping[Path, bool], Mapping[Path, bool]]],
    system: str,
    preset: Preset,
) -> None:
    """Append one probe per case; its pictures are copied to a folder that lists them, written first."""
    near = _density(workspace, [p.text for _, p, _, _ in rows], preset.attribution)
    if near is None:
        rows = [r for r in rows if r[2] or r[3]]
    if not rows:
        return
    enhance = load_enhancer(preset.enhancer, workspace.path("enhanced"))
    last = max((r["round"] for r in Ledger(workspace, "rounds").rows()), default=0)
    probes: list[dict[str, Any]] = []
    for number, (case, prompt, plain, enhanced) in enumerate(rows):
        shas = {file_digest(p): p for p in (*plain, *enhanced)}
        identity = digest("pictures", case.case_id, system, sorted(shas), near is None)[:32]
        folder = workspace.path("probes", "pictures", identity)
        for sha256, picture in shas.items():
            write_bytes(folder / f"{sha256[:32]}{picture.suffix}", picture.read_bytes())
        write_bytes(folder / "pictures.json", json.dumps(sorted(shas)).encode())
        probes.append(
            {
                "probe_id": identity,
                "case_id": case.case_id,
                "prompt_id": case.prompt_id,
                "capability": case.capability,
                "round": last,
                "checkpoint": system,
                "seeds": len(plain) or None,
                "seeds_passed": sum(plain.values()) if plain else None,
                "enhanced": enhance(prompt.text, prompt.reference_bytes()) if enhanced else None,
                "enhanced_seeds": len(enhanced) or None,
                "enhanced_passed": sum(enhanced.values()) if enhanced else None,
                "density": near[number] if near is not None else None,
                "folder": workspace.relative(folder),
            }
        )
    key = f"probe/pictures/{digest(sorted(p['probe_id'] for p in probes))[:32]}"
    Ledger(workspace, "probes").append(probes, key=key)


def _density(workspace: Workspace, texts: Sequence[str], settings: Attribution) -> list[float] | None:
    """Percentile of the pool's own density around each text; None without a pool."""
    snapshot = latest_snapshot(workspace)
    if snapshot is None or not texts:
        return None
    pool = captions(shard_manifest(workspace, snapshot))
    return CaptionIndex.build(pool, folder=workspace.vectors).density(texts, settings.neighbours).tolist()


# What is missing ----------------------------------------------------------------------------------------------------
def _open_seeds(prompt: Prompt, drawn: Drawn, tried: Mapping[Path, bool], settings: Attribution) -> tuple[int, ...]:
    """The seeds after the first one that attribution asks for and that have no usable picture yet."""
    there = drawn.pictures(prompt)
    first = next(iter(there), 0)
    return tuple(s for s in range(first + 1, first + 1 + settings.seeds) if there.get(s) not in tried)


def _needed(
    workspace: Workspace, missing: Sequence[Missing], drawn: Drawn, system: str, preset: Preset
) -> tuple[str | None, int, list[str]]:
    """(list of the missing pictures, their number, a sentence); within attribution's budget, as in a round."""
    path = workspace.path("needed", f"{digest(system)[:8]}.jsonl")
    if not missing:
        discard(path)
        return None, 0, []
    enhance = load_enhancer(preset.enhancer, workspace.path("enhanced"))
    seeds = {m.prompt.prompt_id: m.seeds for m in missing}
    chosen = affordable(list({m.prompt.prompt_id: m.prompt for m in missing}.values()), preset.attribution)
    rows = []
    for prompt in chosen:
        for seed in seeds[prompt.prompt_id]:
            rows.append(_row(prompt, prompt.text, seed, str(seed)))
        if better := enhance(prompt.text, prompt.reference_bytes()):
            there = drawn.rewritten(prompt)
            asked = [k for k in range(preset.attribution.enhanced_seeds) if k not in there]
            rows += [_row(prompt, better, k, f"enhanced-{k}") for k in asked]
    write_rows(path, rows)
    ranges = seed_ranges([s for p in chosen for s in seeds[p.prompt_id]])
    prompts = f"{len(chosen)} prompts" if len(chosen) > 1 else "1 prompt"
    sentence = (
        f"{len(missing)} cases cannot be routed yet: draw seeds {ranges} of {prompts} into {drawn.root}/<seed>/ and run"
        f" this again; {path} lists the {len(rows)} pictures, with the prompts that the enhancer rewrites"
    )
    return str(path), len(rows), [sentence]


def _row(prompt: Prompt, text: str, seed: int, folder: str) -> dict[str, Any]:
    """A picture to draw. path: relative to the folder of pictures."""
    return {
        "path": f"{folder}/{picture_name(prompt.prompt_id)}",
        "prompt_id": prompt.prompt_id,
        "prompt": text,
        "seed": seed,
        "references": [str(r) for r in prompt.references],
    }


def _unsure(count: int, pool: bool) -> str:
    if pool:
        return f"{count} cases stay unsure: no seed passes, and the pool is neither sparse nor dense around them"
    return (
        f"{count} cases stay unsure: no seed passes, and this workspace has no pool to compare them with: fill it with"
        " `flywheel curate`, then run this again"
    )
