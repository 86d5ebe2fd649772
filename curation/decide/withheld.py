"""Withheld: rows that show a held-out picture, or one that looks like it, as their own picture or as a reference.

`tables/withheld-<key>.parquet` is derived from the score tables: it can be deleted at any time and is written again.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from curation.decide.judging import Judging, Look
from curation.policy.policy import Policy
from flywheel.core.files import digest, write_parquet
from flywheel.core.storage import read_table

_FORMAT = 1  # raised when the same tables would give another file
_HAMMING, _COLOUR = 8, 48  # tolerances of a policy without a check of duplicates


def load(judging: Judging) -> np.ndarray:
    """Places in the pool (int64, ascending) of the rows that must not be trained on because of what they show.

    Two pictures look alike within the tolerances of the policy's check of duplicates. Computed once per pool, pictures
    and tolerances; then read from its file.
    """
    held, tolerances = judging.held_out, _tolerances(judging.policy)
    looks = sorted(held.looks)
    key = digest(_FORMAT, [t.name for t in judging.tables], sorted(held.ids), looks, tolerances)[:16]
    path = judging.workspace.path("tables", f"withheld-{key}.parquet")
    if not path.exists():
        write_parquet(path, _places(judging, looks, *tolerances).cast(pa.schema([("n", pa.int64())])))
    return read_table(path)["n"].to_numpy()


def _tolerances(policy: Policy) -> tuple[int, int]:
    """(bits of the perceptual hash, levels of the thumbnail) of the policy's first check of duplicates."""
    checks = (f for s in policy.stages for f in s.filters if f.check == "duplicates")
    return next(((f.hamming, f.colour) for f in checks), (_HAMMING, _COLOUR))


def _places(judging: Judging, looks: list[Look], hamming: int, colour: int) -> pa.Table:
    con = judging.connection
    con.register("held_ids", pa.table({"id": pa.array(sorted(judging.held_out.ids), pa.string())}))
    con.execute(
        """CREATE TEMP TABLE held_rows AS SELECT n, image_id, "pixels.phash" AS phash, "pixels.thumbnail" AS thumbnail
        FROM every WHERE sample_id IN (FROM held_ids) OR image_id IN (FROM held_ids)"""
    )
    pool = con.execute("SELECT DISTINCT phash, thumbnail FROM held_rows WHERE phash IS NOT NULL").fetchall()
    known = sorted({*looks, *(Look(*row) for row in pool)})
    images = [i for (i,) in con.execute("SELECT DISTINCT image_id FROM held_rows").fetchall()]
    images += _alike(judging, known, hamming, colour)
    con.register("held_images", pa.table({"id": pa.array(sorted({*images, *judging.held_out.ids}), pa.string())}))
    return judging.query(
        """SELECT n FROM (
            SELECT n FROM held_rows UNION SELECT n FROM every WHERE image_id IN (FROM held_images)
            UNION SELECT n FROM (SELECT n, unnest(reference_ids) AS id FROM every) SEMI JOIN held_images USING (id)
        ) ORDER BY n"""
    )


def _alike(judging: Judging, looks: list[Look], hamming: int, colour: int) -> list[str]:
    """Ids of the pool's pictures that look like one of these."""
    if not looks:
        return []
    number = pa.array(range(len(looks)), pa.int32())
    hashes = pa.array([x.phash for x in looks], pa.uint64())
    judging.connection.register("looks", pa.table({"look": number, "phash": hashes}))
    near = judging.connection.execute(
        f"""SELECT DISTINCT image_id, "pixels.thumbnail", look FROM every JOIN looks
        ON bit_count(xor("pixels.phash", phash)) <= {int(hamming)}"""
    ).fetchall()
    thumbnails = [np.frombuffer(x.thumbnail, np.uint8).astype(np.int16) for x in looks]
    return [i for i, t, n in near if np.abs(thumbnails[n] - np.frombuffer(t, np.uint8)).max() <= colour]
