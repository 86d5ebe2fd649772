"""Lists as files: CSV and Parquet, each written in the asking person's turn and removed once it is sent."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from dashboards.site import Site
from flywheel.catalog.database import Answer
from flywheel.core.errors import UsageError
from flywheel.core.scratch import Scratch

FORMS: Mapping[str, str] = {"csv": "text/csv; charset=utf-8", "parquet": "application/vnd.apache.parquet"}


Writer = Callable[[Mapping[str, str]], Callable[[Path], None]]
"""What the parameters of an address ask for → what writes it to a local path, in the form of the path's ending."""


def add_files(app: FastAPI, site: Site, address: str, name: str, writer: Writer) -> None:
    """Answer `address`.csv and `address`.parquet with files called `name`."""

    def add(form: str) -> None:
        async def file(request: Request) -> Response:
            return await _download(site, request, f"{name}.{form}", writer(request.query_params))

        app.get(f"{address}.{form}")(file)

    for form in FORMS:
        add(form)


async def _download(site: Site, request: Request, name: str, write: Callable[[Path], None]) -> Response:
    folder = Scratch()
    path = folder.path / name
    try:
        async with site.turns.turn(request.state.person.name):
            await run_in_threadpool(write, path)
    except BaseException:
        folder.close()
        raise
    kind = FORMS[path.suffix[1:]]
    return FileResponse(path, media_type=kind, filename=name, background=BackgroundTask(folder.close))


def write_answer(answer: Answer, path: Path) -> None:
    """Write the rows as CSV or Parquet, by the path's ending. Errors: `UsageError` for what Parquet cannot hold."""
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(answer.columns)
            writer.writerows(map(_cells, answer.rows))
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = zip(*answer.rows) if answer.rows else [()] * len(answer.columns)
    try:
        pq.write_table(pa.Table.from_arrays([pa.array(list(c)) for c in columns], names=answer.columns), path)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise UsageError(f"Parquet cannot hold this answer, ask for CSV: {error}") from error


def _cells(row: Sequence[Any]) -> list[Any]:
    """Values as CSV has them: lists, structs and truth values as JSON; null is empty."""
    return [json.dumps(v, ensure_ascii=False, default=str) if isinstance(v, list | dict | bool) else v for v in row]
