"""Candidates of the pre-training remedy: samples of the pool near the cases, then generated ones."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flywheel.cases.checks import Check, checks_for
from flywheel.cases.events import Case
from flywheel.core.errors import UsageError
from flywheel.core.schema import SHARD, column
from flywheel.presets import Preset
from flywheel.remedies.augment import augment
from flywheel.remedies.buckets import Buckets, first_fitted, trained
from flywheel.remedies.held_out import NEAR, HeldOut
from flywheel.remedies.index import CaptionIndex
from flywheel.remedies.named import names, pattern
from flywheel.remedies.picture_index import PictureIndex
from flywheel.remedies.picture_index import build as index_pictures
from flywheel.remedies.retrieval import Hit, alike, alternate, captions, nearest, pictures, rows_of
from flywheel.signals.pool_suite import PICTURE_EDITING
from flywheel.signals.suite import Prompt

if TYPE_CHECKING:
    from curation.synthesis import Sample
    from curation.synthesis.photos import Operation
    from curation.verify.checks import Outcome

Row = dict[str, Any]
Asked = Mapping[str, tuple[Check, ...]]  # {case_id: checks}
SHOWN = 16  # pictures near the cases' captions that are looked for others like them
EVALUATION_PROMPT = "evaluation_prompt"  # name of the decontamination filter

GENERATED = pa.schema(
    [
        column("sample_id", pa.string(), "SHA-256 of the image bytes, references and instruction"),
        column("round", pa.int32(), "round that asked for it"),
        column("capability", pa.string(), "capability that it serves"),
        column("recipe", pa.string(), "'retrieved', 'augmented', or the generator that made it"),
        column("caption", pa.large_string(), "text condition"),
        column("outcome", pa.string(), "admitted | dropped"),
        column("filter", pa.string(), "entry check, 'evaluation_prompt' or 'review': what dropped it"),
        column("score", pa.float64(), "the check's value"),
        column("threshold", pa.float64(), "value needed to enter"),
    ]
)

CANDIDATE = pa.schema(
    [
        *SHARD,
        column("bucket", pa.int32(), "resolution bucket, pixels"),
        column("recipe", pa.string(), "as in GENERATED"),
        column("priority", pa.float64(), "uncertainty in [0, 1]: what a reviewer should see first"),
        column("evidence", pa.large_string(), "JSON: why it is a candidate"),
    ]
)


@dataclass(frozen=True)
class Request:
    """What a plan asks of one capability: `samples` new ones for its `cases`."""

    capability: str
    samples: int
    cases: tuple[Case, ...]
    seed: int


@dataclass(frozen=True)
class BasePool:
    """The base pool of a round, as its remedies read it; the caption index is built on first use.

    manifest: of the snapshot's shards; suite: the held-out prompts, which no remedy may say; vectors: folder that keeps
    the vectors of captions and pictures; None: samples are retrieved by their captions alone, embedded anew.
    """

    manifest: Path
    suite: Sequence[Prompt]
    preset: Preset
    vectors: Path | None = None

    @cached_property
    def buckets(self) -> Buckets:
        """The buckets that the pool fills and the recipe reads; a command reads all of them."""
        return trained(self.manifest, None if self.preset.trainer.command else self.preset.training.recipe)

    @cached_property
    def captions(self) -> list[tuple[str, str]]:
        """(sample_id, caption) of every sample."""
        return captions(self.manifest)

    @cached_property
    def index(self) -> CaptionIndex:
        """Vectors of every caption."""
        return CaptionIndex.build(self.captions, folder=self.vectors)

    @cached_property
    def pictures(self) -> PictureIndex | None:
        """Vectors of every picture, as the smallest bucket shows it; None if no vectors are kept."""
        if self.vectors is None:
            return None
        return index_pictures(self.manifest, min(self.buckets), self.vectors, self.preset.evaluation.scorers)

    @cached_property
    def held_out(self) -> HeldOut:
        """Finds texts near a held-out prompt."""
        return HeldOut(p.text for p in self.suite)

    def scarcity(self, request: Request) -> dict[str, dict[str, float]]:
        """How dense the pool is around the request's cases; empty without cases."""
        if not request.cases:
            return {}
        prompts = {request.capability: sorted({c.prompt for c in request.cases})}
        limits = self.preset.attribution
        return self.index.scarcity(prompts, neighbours=limits.neighbours, sparse=limits.sparse_percentile)


@dataclass(frozen=True)
class Refused:
    """A sample that did not become a candidate: a row of `GENERATED`."""

    row: Row


def take(request: Request, pool: BasePool, progress: Callable[..., None] | None) -> tuple[list[Row], list[Row]]:
    """(up to `request.samples` candidates, rows of the samples that were refused before the last of them)."""
    rows: list[Row] = []
    refused: list[Row] = []
    stream = candidates(request, pool)
    while len(rows) < request.samples and (entry := next(stream, None)):
        if isinstance(entry, Refused):
            refused.append(entry.row)
            continue
        rows.append(entry)
        if progress:
            progress(len(rows), request.samples, f"samples for {request.capability}")
    return rows, refused


def candidates(request: Request, pool: BasePool) -> Iterator[Row | Refused]:
    """Candidates for a request, with the refused samples among them: retrieved ones, up to half, then generated ones.

    No candidate says or nearly says a held-out prompt. The stream may be endless: stop reading at `request.samples`.
    """
    asked = _asked(request, pool)
    hits = _near(request, pool, asked)
    kept: dict[str, Row] = {}
    for entry in _retrieved(request, pool, hits):
        if not isinstance(entry, Refused):
            kept[entry["sample_id"]] = entry
        yield entry
    known = set(kept)
    passed = refused = 0
    for sample in _samples(request, pool, asked, [h.sample_id for h in hits], request.samples - len(kept)):
        if isinstance(sample, Refused):
            refused += 1
            yield sample
            continue
        passed += 1
        doubt = refused / (passed + refused)  # samples of a recipe that often fails its checks need review first
        identity = sample_id(sample)
        if near := pool.held_out.near(sample.caption):
            refused += 1
            said = generated_row(sample.caption, identity, request.capability, sample.recipe)
            yield Refused(said | contaminated(near))
        elif identity not in known:
            known.add(identity)
            row = first_fitted(sample, identity, pool.buckets)
            yield row | _proposal(request, sample.recipe, doubt, {"cases": len(request.cases)})
    if not passed:  # no generator serves the capability: vary the retrieved samples
        for row in augment(list(kept.values()), seed=str(request.seed)):
            varied = {**row, "sample_id": _identity(row)}
            yield varied | _proposal(request, "augmented", 0.5, {"of": row["sample_id"]})


def teachable(suite: Sequence[Prompt], held_out: Sequence[Prompt]) -> set[str]:
    """Capabilities of the suite for which samples can be made that its own verifiers judge, and that say no prompt."""
    from curation.synthesis import allowed, fitting, generators

    judges: dict[str, list[Check]] = {}
    for check in (c for p in suite for c in p.checks):
        judges.setdefault(check["capability"], []).append(check)
    prompts, made = frozenset(p.text for p in held_out), judges.keys() & {PICTURE_EDITING}
    for capability in judges.keys() & generators():
        with suppress(UsageError):  # every variant is held out
            recipes = fitting(capability, _suits(capability, judges[capability]))
            made |= {capability} if [allowed(r, prompts) for r in recipes] else set()
    return made


def _near(request: Request, pool: BasePool, asked: Asked) -> list[Hit]:
    """Samples whose captions are near the cases, in turn with those whose pictures are.

    Where captions name what a case asks for, the others of that case are left out. Pictures are compared with the
    references of the cases' prompts, and with what their captions' neighbours show.
    """
    if not request.cases:
        return []
    settings = pool.preset.plan
    said = _naming(pool, asked, nearest(pool.index, request.cases, settings.retrieval_similarity))
    if pool.pictures is None:
        return said
    references = {p.prompt_id: p.reference_bytes() for p in pool.suite if p.references}
    shown = [(c.case_id, r) for c in request.cases for r in references.get(c.prompt_id, ())]
    rows = rows_of(pool.manifest, [h.sample_id for h in said[:SHOWN]], min(pool.buckets))
    shown += [(h.case_id, rows[h.sample_id]["image"]) for h in said[:SHOWN] if h.sample_id in rows]
    limits = {"similarity": settings.picture_similarity, "text_similarity": settings.picture_text_similarity}
    return _naming(pool, asked, alternate(said, alike(pool.pictures, request.cases, shown, **limits)))


def _naming(pool: BasePool, asked: Asked, hits: list[Hit]) -> list[Hit]:
    """The hits without those that do not name what their case asks for by name, where others of the case do."""
    named = {case: [re.compile(pattern(name), re.IGNORECASE) for name in names(c)] for case, c in asked.items()}
    texts = dict(pool.captions) if any(named.values()) else {}
    naming = {h for h in hits if any(name.search(texts[h.sample_id]) for name in named.get(h.case_id, ()))}
    served = {h.case_id for h in naming}
    return [h for h in hits if h in naming or h.case_id not in served]


def _asked(request: Request, pool: BasePool) -> Asked:
    """The checks that judge the capability on the prompt of each case; without cases, on the suite's, by prompt id."""
    suite = {p.prompt_id: p for p in pool.suite}
    if not request.cases:
        return {i: tuple(c for c in p.checks if c["capability"] == request.capability) for i, p in suite.items()}
    found = {}
    for case in request.cases:
        if prompt := suite.get(case.prompt_id):
            found[case.case_id] = tuple(c for c in prompt.checks if c["capability"] == request.capability)
        else:
            settings = pool.preset.evaluation
            found[case.case_id] = checks_for(case.prompt, (), capability=request.capability, settings=settings)
    return found


def _retrieved(request: Request, pool: BasePool, hits: Sequence[Hit]) -> Iterator[Row | Refused]:
    """Samples of the pool near the cases: up to half of the request; all that say a held-out prompt are refused."""
    rows: dict[str, Row] = {}
    for bucket in sorted(pool.buckets, reverse=True):  # each sample where it is largest
        missing = [h.sample_id for h in hits if h.sample_id not in rows]
        rows |= {k: r | {"bucket": bucket} for k, r in rows_of(pool.manifest, missing, bucket).items()}
    limit = pool.preset.plan.retrieval_similarity
    kept = 0
    for hit in (h for h in hits if h.sample_id in rows):
        row = rows[hit.sample_id]
        if near := pool.held_out.near(row["caption"]):
            entry = generated_row(row["caption"], hit.sample_id, request.capability, "retrieved")
            yield Refused(entry | contaminated(near))
        elif kept < request.samples // 2:
            kept += 1
            least = limit if hit.by == "caption" else pool.preset.plan.picture_similarity
            doubt = min(1.0, (1 - hit.similarity) / max(1e-6, 1 - least))
            why = {"similarity": round(hit.similarity, 4), "case": hit.case_id, "by": hit.by}
            yield row | _proposal(request, "retrieved", doubt, why)


def _edited(pool: BasePool, first: Sequence[str]) -> Iterator[tuple[str, bytes, Operation]]:
    """(sample_id, picture, operation): one operation on each picture of the pool, then the next one on each, …"""
    from curation.synthesis.photos import OPERATIONS

    for turn in range(len(OPERATIONS)):
        for n, (identity, image) in enumerate(pictures(pool.manifest, tuple(pool.buckets), first)):
            yield identity, image, OPERATIONS[(n + turn) % len(OPERATIONS)]


def _samples(
    request: Request, pool: BasePool, asked: Asked, first: Sequence[str], count: int
) -> Iterator[Sample | Refused]:
    """Fresh samples that passed their entry checks, and the refused ones among them; nothing without a generator.

    first: ids of the pool's pictures that edits start from first. A recipe is used if what judges its samples judges
    a case too (shapes on cards teach nothing to who draws no zebra), if nothing judges the cases, or if its samples
    are read: text is text, whoever judges it.
    """
    from curation.synthesis import capabilities, synthesise
    from curation.synthesis.photos import photo_edits
    from curation.verify.checks import passed, verify

    if request.capability == PICTURE_EDITING:
        for identity, image, operation in _edited(pool, first):
            seed = f"{request.seed}-{identity}"
            edits = list(photo_edits(image, seed=seed, operations=[operation], allowed=pool.held_out.allows))
            for sample, outcomes in zip(edits, verify([e.item for e in edits], [e.checks for e in edits])):
                yield sample if passed(outcomes) else _refused(request, sample, outcomes)
    elif request.capability in capabilities():
        refused: list[Refused] = []
        generated = synthesise(
            request.capability,
            count,
            seed=request.seed,
            exclude=frozenset(pool.held_out.prompts),
            suits=_suits(request.capability, [check for checks in asked.values() for check in checks]),
            on_refused=lambda sample, outcomes: refused.append(_refused(request, sample, outcomes)),
        )
        for sample in generated:
            yield from refused
            refused.clear()
            yield sample
        yield from refused


def _suits(capability: str, judging: Iterable[Check]) -> Callable[[Sample], bool]:
    """Whether something that judges a sample is among `judging`, or nothing is there, or the sample is read."""
    from curation.verify.checks import scorer_of

    judges = {scorer_of(check) for check in judging}

    def suits(sample: Sample) -> bool:
        own = {scorer_of(c) for c in sample.checks if c["capability"] == capability}
        return not judges or bool(own & {*judges, "ocr"})

    return suits


def _refused(request: Request, sample: Sample, outcomes: Sequence[Outcome]) -> Refused:
    failed = next(o for o in outcomes if not o.passed)
    return Refused(
        generated_row(sample.caption, sample_id(sample), request.capability, sample.recipe)
        | {"outcome": "dropped", "filter": failed.verifier, "score": failed.score, "threshold": failed.threshold}
    )


def sample_id(sample: Sample) -> str:
    """The id that the pool would give the sample: a digest of its content."""
    from curation.sources.ingest import pair_id

    target, *references = (hashlib.sha256(b).hexdigest() for b in (sample.image, *sample.references))
    return pair_id(target, references, sample.caption) if sample.task == "ti2i" else target


def _identity(row: Mapping[str, Any]) -> str:
    parts = [hashlib.sha256(b).hexdigest() for b in (row["image"], *row["references"])]
    return hashlib.sha256("\n".join([*parts, row["caption"]]).encode()).hexdigest()


def _proposal(request: Request, recipe: str, priority: float, evidence: Mapping[str, Any]) -> Row:
    """The columns that make a shard row a candidate."""
    columns = {"slice": request.capability, "recipe": recipe, "priority": priority}
    return columns | {"evidence": json.dumps(evidence)}


def generated_row(caption: str, identity: str, capability: str, recipe: str) -> Row:
    """An admitted row of `GENERATED`."""
    row = {"sample_id": identity, "capability": capability, "recipe": recipe, "caption": caption}
    return row | {"outcome": "admitted"}


def contaminated(near: tuple[str, float]) -> Row:
    """What `GENERATED` says of a sample that says or nearly says a held-out prompt."""
    return {"outcome": "dropped", "filter": EVALUATION_PROMPT, "score": near[1], "threshold": NEAR}
