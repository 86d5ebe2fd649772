"""The layout of a workspace: the place of every file."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flywheel.core import hashes
from flywheel.core.errors import UsageError
from flywheel.core.files import read_json, write_json
from flywheel.core.storage import located, remote, require_bucket

# Version of the layout; raised when an older version could misread a newer workspace.
# 2: the slice of a shard row and of a plan's mix is named `slice`; in format 1 it is named `track`.
# 3: every file has a recorded hash; an older version writes files without one.
# 4: snapshots share shard files, listed in `shards/<snapshot>.json`; before, each had a folder of its own.
FORMAT = 4
_MARKER = hashes.MARKER
_ROUND = "round-"
_MISREAD_PREFIX = re.compile(r"[\x00-\x1f\x7f*\[\]]|%[0-9A-Fa-f]{2}|//|/_delta_log/")


class Workspace:
    """The folder of a pool, its scores, shards, checkpoints and ledgers; `Workspace(root)` opens or creates it.

    root: a folder, or s3://bucket/prefix. Paths on S3 have the methods of `Path`; `flywheel.core.storage` opens them
    for other libraries. create: False opens existing workspaces only. Errors: `UsageError` if the path is a file or a
    folder of other files, a newer version wrote the workspace, or S3 refuses access.

    >>> import flywheel as fw
    >>> workspace = fw.Workspace("empty")
    >>> workspace.round(1).plan.relative_to(workspace.root).as_posix()
    'rounds/round-0001/plan.json'
    """

    def __init__(self, root: str | os.PathLike[str], *, create: bool = True) -> None:
        if not str(root):
            raise UsageError("--workspace is empty: pass a folder or s3://bucket/prefix")
        self.root = located(root).expanduser().resolve()
        if remote(self.root):
            _require_prefix(self.root)
            require_storage(self.root)
        else:
            _require_text(self.root)
        marker = self.root / _MARKER
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"--workspace {root} is a file: pass a folder")
        if not marker.exists():
            if not create:
                raise UsageError(
                    f"no workspace at {root}: create one with `flywheel run --source DIR --workspace {root}`"
                )
            used = self.root.exists() and any(p for p in self.root.iterdir() if not p.name.startswith("."))
            if used and not marker.exists():  # checked again: another process may have created it
                raise UsageError(f"--workspace {root} is not empty and not a workspace: pass a new or an empty folder")
            try:
                write_json(marker, {"format": FORMAT})
            except (FileNotFoundError, NotADirectoryError) as error:
                raise UsageError(
                    f"--workspace {root} cannot be made ({error.strerror}): pass another folder"
                ) from error
            hashes.record(marker)
        self.format = self._read_format(marker)
        self.fence: Callable[[], None] | None = None  # raises if this process no longer holds the workspace

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"fence": None}  # another process does not hold the workspace

    def _read_format(self, marker: Path) -> int:
        try:
            version = int(read_json(marker)["format"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"cannot read the workspace marker {marker}: restore it or choose another folder"
            ) from error
        if version > FORMAT:
            raise UsageError(
                f"workspace {self.root} has format {version}, this version reads up to {FORMAT}: upgrade image-flywheel"
            )
        return version

    def upgrade(self) -> None:
        """Mark a workspace of an older format as written by this version, so that older versions refuse to open it.

        The old marker is kept as `workspace.format-N.json`. No other file changes: readers accept all formats.
        """
        if self.format < FORMAT:
            write_json(self.path(f"workspace.format-{self.format}.json"), {"format": self.format})
            write_json(self.path(_MARKER), {"format": FORMAT})
            self.format = FORMAT

    def path(self, *parts: str) -> Path:
        """A path below the root; nothing is created."""
        return self.root.joinpath(*parts)

    def relative(self, path: Path) -> str:
        """A path below the root as records keep it; a path elsewhere stays whole."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def round(self, number: int) -> RoundPlaces:
        """The files and folders of one round."""
        return RoundPlaces(self.root, number)

    @property
    def suite(self) -> Path:
        """The held-out prompts with their checks."""
        return self.path("suite", "suite.jsonl")

    @property
    def held_out(self) -> Path:
        """Ids of the pictures that are kept out of training."""
        return self.path("suite", "held_out.json")

    @property
    def vectors(self) -> Path:
        """Vectors of the pool's captions and pictures, by embedder; may be deleted at any time."""
        return self.path("derived", "vectors")

    @property
    def report(self) -> Path:
        """The HTML report of the last run."""
        return self.path("reports", "report.html")

    def snapshot(self, name: str, table: str = "") -> Path:
        """A snapshot's record, or one of its tables (`decisions`, `funnel`, …)."""
        return self.path("snapshots", name, f"{table}.parquet") if table else self.path("snapshots", f"{name}.json")

    def snapshots(self) -> list[Path]:
        """Records of all snapshots."""
        return sorted(self.path("snapshots").glob("*.json"))

    def shard_manifest(self, snapshot: str) -> Path:
        """Manifest of a snapshot's training shards; the paths of files in it start at its folder."""
        own_folder = self.path("shards", snapshot, "manifest.json")  # of a version before snapshots shared files
        return own_folder if own_folder.exists() else self.path("shards", f"{snapshot}.json")

    def batches(self) -> list[Path]:
        """Folders of the finished pool batches, oldest first: a batch is finished once its manifest exists."""
        return sorted(p.parent for p in self.path("pool").glob("*/manifest.json"))

    def shard_manifests(self) -> list[Path]:
        """Every manifest of training shards: of snapshots, then of remedies."""
        snapshots = sorted((*self.path("shards").glob("*.json"), *self.path("shards").glob("*/manifest.json")))
        return [*snapshots, *sorted(self.path("remedies").glob("*/manifest.json"))]

    def remedies(self) -> list[Path]:
        """The remedy folders of all rounds, oldest round first."""
        return sorted(self.path("remedies").glob(f"{_ROUND}*"))

    def sweep(self) -> int:
        """Remove temporary files of killed writers; returns how many. Call it only while holding the workspace."""
        found = set(self.root.rglob(".*.tmp")) if not remote(self.root) else set()
        stale = [p for p in found if found.isdisjoint(p.parents)]  # folders go with what is in them
        for p in stale:
            if p.is_dir():
                shutil.rmtree(p, ignore_errors=True)
                continue
            final = p.with_name(p.name.split(".", 1)[1].rsplit(".", 2)[0])  # of .NAME.UNIQUE.tmp
            hashes.undo(final, hashes.Entry(final.name, hashes.FILE, *hashes.content(p)))
            p.unlink(missing_ok=True)
        return len(stale)


@dataclass(frozen=True)
class RoundPlaces:
    """The files and folders of one round; nothing is created."""

    root: Path  # of the workspace
    number: int

    @property
    def name(self) -> str:
        """`round-0001` for round 1."""
        return f"{_ROUND}{self.number:04d}"

    def arm(self, arm: str) -> str:
        """Name of an arm's folders: `round-0001-candidate`."""
        return f"{self.name}-{arm}"

    @property
    def plan(self) -> Path:
        """The round's plan."""
        return self.root / "rounds" / self.name / "plan.json"

    @property
    def result(self) -> Path:
        """The round's result."""
        return self.root / "rounds" / self.name / "result.json"

    @property
    def remedies(self) -> Path:
        """Folder of the samples, rewards and prompts for the round's cases."""
        return self.root / "remedies" / self.name

    @property
    def remedy_manifest(self) -> Path:
        """Manifest of the round's remedy shards."""
        return self.remedies / "manifest.json"

    @property
    def remedy_counts(self) -> Path:
        """Numbers of remedy samples by capability: retrieved, generated, refused, rejected."""
        return self.remedies / "counts.json"

    @property
    def probes(self) -> Path:
        """Pictures of the round's attribution experiments."""
        return self.root / "probes" / self.name

    @property
    def export(self) -> Path:
        """DuckDB file for analysts."""
        return self.root / "exports" / f"{self.name}.duckdb"

    def checkpoint(self, arm: str) -> Path:
        """Folder of an arm's training run."""
        return self.root / "checkpoints" / self.arm(arm)

    def system(self, arm: str) -> Path:
        """What an arm draws with."""
        return self.checkpoint(arm) / "system.json"

    @property
    def enhancer(self) -> Path:
        """Folder of the prompt enhancer that the round trained."""
        return self.root / "enhancers" / self.name

    def samples(self, arm: str) -> Path:
        """Folder of an arm's pictures of the held-out suite."""
        return self.root / "samples" / self.arm(arm)


def _require_text(folder: Path) -> None:
    """Check that Delta and DuckDB can name a folder. Errors: `UsageError` if its name is in no UTF-8."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        shown = str(folder).encode("utf-8", "backslashreplace").decode()
        raise UsageError(f"the path of workspace {shown} is not UTF-8: rename that folder, or pass another") from error


def _require_prefix(root: Path) -> None:
    """Check that the clients of S3 agree on a prefix. Errors: `UsageError` for one that some of them read otherwise."""
    if odd := _MISREAD_PREFIX.search(f"{str(root).partition('://')[2]}/"):
        raise UsageError(
            f"--workspace {str(root)!r} has {odd[0]!r}, which not all clients of S3 read alike: choose a prefix "
            "without control characters, *, [, ], encoded characters like %20, and parts that are empty or _delta_log"
        )


def require_storage(root: Path) -> None:
    """Check that S3 serves `root`. Errors: `UsageError` with the reason."""
    try:
        require_bucket(root)
    except FileNotFoundError as error:
        raise UsageError(f"there is no bucket {root.drive}: create it, or correct --workspace {root}") from error
    except PermissionError as error:
        raise UsageError(
            f"S3 refuses access to bucket {root.drive}: check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and its policy"
        ) from error
    except OSError as error:
        raise UsageError(
            f"S3 does not serve {root} ({error}): check AWS_ENDPOINT_URL, AWS_REGION and the credentials in AWS's"
            " environment variables or profile"
        ) from error
