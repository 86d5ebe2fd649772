"""A table of the pool without pictures: one Parquet file with the columns of COYO-700M, to join and to share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from flywheel.catalog.database import connect
from flywheel.core.errors import UsageError
from flywheel.core.exports import TABLES, remember
from flywheel.core.files import replacing
from flywheel.core.scratch import Scratch
from flywheel.core.storage import quoted
from flywheel.core.workspace import Workspace

# Column → expression over samples, scores and decisions. The first 13 are those of COYO-700M (Byeon et al., 2022).
COLUMNS = {
    "id": "sample_id",
    "url": "samples.source_url",
    "text": "nullif(samples.caption, '')",
    "width": "samples.width",
    "height": "samples.height",
    "image_phash": "format('{:016x}', \"pixels.phash\")",
    "text_length": "CAST(length(nullif(samples.caption, '')) AS INTEGER)",
    "word_count": "CAST(len(regexp_extract_all(nullif(samples.caption, ''), '\\S+')) AS INTEGER)",
    "num_faces": '"face.count"',
    "clip_similarity_vitb32": '"clip.similarity"',
    "nsfw_score_opennsfw2": '"nsfw.probability"',
    "watermark_score": '"clip.watermark"',
    "aesthetic_score_laion_v2": '"clip.aesthetic"',
    "source_uri": "source_uri",
    "task": "samples.task",
    "license": "samples.license",
    "consent": "samples.consent",
    "language": '"caption.language"',
    "outcome": "decisions.outcome",
    "stage_reached": "decisions.stage_reached",
    "filter": "decisions.filter",
}


def export_metadata(workspace: Workspace, path: Path) -> int:
    """Write the table of all inputs that the pool holds; returns its rows. A score that nobody computed is null.

    `flywheel erase` removes the file, as it does every exported table.

    Errors: `UsageError` if the folder or the file cannot be made, or the pool is empty.
    """
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with closing(connect(workspace)) as con:
        ((rows,),) = con.execute("SELECT count(*) FROM samples").fetchall()
        if not rows:
            raise UsageError("the pool is empty: `flywheel curate` fills it")
        chosen = ", ".join(f'{expression} AS "{name}"' for name, expression in COLUMNS.items())
        joined = (
            "samples LEFT JOIN scores USING (sample_id, source_uri) LEFT JOIN decisions USING (sample_id, source_uri)"
        )
        # DuckDB reads some characters of a path as patterns: the file is written where no folder has one.
        with replacing(path) as final, Scratch() as folder:
            with _told(path):
                final.touch()  # a place that refuses is not remembered
            remember(workspace, TABLES, path, {"columns": list(COLUMNS)})
            made = Path(folder, "metadata.parquet")
            query = f"SELECT {chosen} FROM {joined}"
            con.execute(f"COPY ({query}) TO {quoted(str(made))} (FORMAT parquet, COMPRESSION zstd)")
            with _told(path):
                shutil.copyfile(made, final)
    return int(rows)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Errors: `UsageError` where the file system refuses."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"--output {path} cannot be written ({error.strerror}): pass another place") from error
