"""The data browser: samples of the pool by filters, their tags, and the selection as a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from dashboards import samples, scores
from dashboards.paging import Paging
from dashboards.routes.downloads import add_files
from dashboards.routes.review import reviewer_of
from dashboards.rows import Row
from dashboards.samples import SampleFilter
from dashboards.scores import ScoreFacet
from dashboards.site import Site, decimal, integer, part_of_map
from flywheel.catalog import tags
from flywheel.core.errors import UsageError
from flywheel.core.lens import latest_snapshot

KEPT = {"Cache-Control": "private, max-age=3600"}  # pictures never change
CHANGES = {"add": tags.ADDED, "remove": tags.REMOVED}
_PICK = "pick:"  # before a sample id: name of its field in the form of tags
_VIEWS = ("decisions", "samples", "scores", "tags", "map_points")


@dataclass(frozen=True)
class SamplesPage:
    """Samples of the pool that match the filters, as the latest snapshot decided; facets: values of each filter.

    scores: names of scores to choose by; score: the chosen one over the pool; meaning: what it measures, with its unit;
    least, most: ends of the listed range.
    reviewer: the name under which this visitor tags; changed: what the visitor's last change of tags did.
    """

    samples: list[Row]
    facets: dict[str, list[Row]]
    paging: Paging
    scores: list[str]
    score: ScoreFacet | None
    meaning: str
    least: float | None
    most: float | None
    reviewer: str
    changed: str


@dataclass(frozen=True)
class SamplePage:
    """One sample of the pool: its captions, decision, stages, scores, rights and tags; reviewer: who would tag it.

    meanings: what each score measures, with its unit.
    """

    sample: dict[str, Any]
    tags: list[str]
    reviewer: str
    meanings: dict[str, str]


def add(app: FastAPI, site: Site, *, page_size: int) -> None:
    """Add the routes. `page_size`: samples per page."""
    _add_pages(app, site, page_size)
    _add_tags(app, site)
    _add_pictures(app, site)
    _add_files(app, site)


def _add_pages(app: FastAPI, site: Site, page_size: int) -> None:
    workspace = site.workspace

    @site.page(app, "/samples", "samples.html", "/samples")
    def sample_list(
        request: Request,
        outcome: str = "",
        stage: str = "",
        filter: str = "",
        tag: str = "",
        within: str = "",
        text: str = "",
        score: str = "",
        least: str = "",
        most: str = "",
        of: str = "",
        page: str = "1",
        reviewer: str = "",
        changed: str = "",
    ) -> SamplesPage:
        """Samples of the pool by outcome, last stage, filter that dropped them, tag, a text, or a score and its range,
        and `within` a part of the map: a rectangle `x0,x1,y0,y1`, or a lasso `x,y x,y x,y …`.

        `of`: the score that `least` and `most` are of, by default `score`; they do not outlive a change of it.
        """
        asked = {"outcome": outcome, "stage": stage, "filter": filter, "tag": tag, "text": text, "score": score}
        asked |= {"within": within}
        if of in ("", score):
            asked |= {"least": least, "most": most}
        wanted, number, snapshot = wanted_of(asked), max(1, integer(page)), latest_snapshot(workspace)
        with site.catalog(*_VIEWS) as con:
            known = scores.offered(con)
            if score and score not in known:
                raise HTTPException(404, f"No sample has a score {score}.")
            facet = scores.facet(workspace, con, snapshot, score) if score and snapshot else None
            total, listed = samples.list_samples(con, wanted, limit=page_size, offset=(number - 1) * page_size)
            facets = samples.facets(con)
        paging = Paging("/samples", _query(wanted), total, number, page_size)
        name, said = reviewer_of(request.state.person, reviewer), _said(changed)
        means = scores.meanings().get(score, "")
        return SamplesPage(listed, facets, paging, known, facet, means, wanted.least, wanted.most, name, said)

    @site.page(app, "/samples/{sample_id}", "sample.html", "/samples")
    def sample_page(request: Request, sample_id: str, reviewer: str = "") -> SamplePage:
        """One sample of the pool, by its id."""
        sample = samples.load_sample(workspace, sample_id)
        if sample is None:
            raise HTTPException(404, f"There is no decided sample {sample_id}.")
        with site.catalog("tags") as con:
            has = samples.tags_of(con, [sample_id]).get(sample_id, [])
        measured = {name: text for name, text in scores.meanings().items() if name in sample["scores"]}
        return SamplePage(sample, has, reviewer_of(request.state.person, reviewer), measured)


def _add_pictures(app: FastAPI, site: Site) -> None:
    @app.get("/pictures/{shard}/{row}")
    def sample_picture(shard: str, row: str, side: str = "192", mask: str = "") -> Response:
        column = "mask" if mask else "image"
        found = samples.sample_picture(site.workspace, shard, integer(row), thumbnail_side(side), column)
        if found is None:
            raise HTTPException(404, "There is no such image.")
        return Response(found[0], media_type=found[1], headers=KEPT)


def _add_tags(app: FastAPI, site: Site) -> None:
    workspace = site.workspace

    @app.post("/samples/tag")
    def tag(request: Request, form: dict[str, str] = Depends(site.form("review"))) -> Response:
        """Add or remove a tag: of the picked samples, of all that match the filters in `back`, or of one (`sample`)."""
        verb, _, which = form.get("do", "").partition(" ")
        if verb not in CHANGES or which not in ("picked", "all"):
            raise UsageError(f"unknown change {form.get('do')!r}: add or remove, picked or all")
        name, text = reviewer_of(request.state.person, form.get("reviewer", "")), form.get("tag", "")
        kind, back = CHANGES[verb], dict(parse_qsl(form.get("back", "")))
        if which == "all":
            with site.catalog(*_VIEWS) as con:
                table, values = samples.choose(con, wanted_of(back))
                select = f"SELECT sample_id FROM {table}"
                count = tags.change(workspace, con, text, select, values, by=name, kind=kind)
        else:
            picked = [field.removeprefix(_PICK) for field in form if field.startswith(_PICK)]
            if not picked:
                raise UsageError("no sample is picked: pick some, or choose all")
            count = tags.tag(workspace, text, picked, by=name, kind=kind)
        if one := form.get("sample"):
            return RedirectResponse(f"/samples/{one}?" + urlencode({"reviewer": name}), 303)
        told = {"reviewer": name, "changed": f"{kind} {count} {text}"}
        return RedirectResponse("/samples?" + urlencode(back | told), 303)


def _add_files(app: FastAPI, site: Site) -> None:
    def writer(query: Mapping[str, str]) -> Callable[[Path], None]:
        wanted = wanted_of(query)

        def write(path: Path) -> None:
            with site.catalog(*_VIEWS) as con:
                if wanted.score and wanted.score not in scores.offered(con):
                    raise HTTPException(404, f"No sample has a score {wanted.score}.")
                samples.write_list(con, wanted, path)

        return write

    add_files(app, site, "/samples", "samples", writer)


def wanted_of(query: Mapping[str, str]) -> SampleFilter:
    """The filter that the parameters of an address ask for; unknown ones are left out. Errors: 404 for no number."""
    given: dict[str, Any] = {f.name: query.get(f.name, "").strip() for f in fields(SampleFilter)}
    for end in ("least", "most"):
        given[end] = decimal(given[end]) if given["score"] and given[end] else None
    if given["within"]:
        part_of_map(given["within"])
    return SampleFilter(**given)


def thumbnail_side(text: str) -> int:
    """The long side of a thumbnail. Errors: 404 for a size that no page uses."""
    if (side := integer(text)) not in samples.SIDES:
        raise HTTPException(404, f"Choose a side of {', '.join(map(str, samples.SIDES))} pixels.")
    return side


def _query(wanted: SampleFilter) -> dict[str, str]:
    """The parameters of an address that asks for this filter; empty ones do not filter."""
    return {k: f"{v:.12g}" if isinstance(v, float) else v or "" for k, v in asdict(wanted).items()}


def _said(changed: str) -> str:
    """A sentence for what a change of tags did, as its address has it: `added 12 blurred`; empty for anything else."""
    kind, _, rest = changed.partition(" ")
    count, _, name = rest.partition(" ")
    if kind not in CHANGES.values() or not count.isdigit() or not name:
        return ""
    verb = "was added to" if kind == tags.ADDED else "was removed from"
    return f"The tag {name} {verb} {int(count):,} {'sample' if count == '1' else 'samples'}."
