"""Where every file of a workspace lives."""

from __future__ import annotations

import os
from pathlib import Path

from flywheel.core.errors import UsageError
from flywheel.core.files import read_json, write_json
from flywheel.core.storage import located, remote, require_bucket

FORMAT = 1  # version of the on-disk layout; raised when an older reader could misread a newer workspace
_MARKER = "workspace.json"


class Workspace:
    """The folder of one pool, its scores, shards, checkpoints and ledgers; `Workspace(root)` opens or creates it.

    root: a folder, or s3://bucket/prefix. Paths on S3 have the methods of `Path`; other libraries open them by
    `flywheel.core.storage`. Errors: `UsageError` when the path is a file, was written by a newer version, or S3
    refuses.
    """

    def __init__(self, root: str | os.PathLike[str], *, create: bool = True) -> None:
        self.root = located(root).expanduser().resolve()
        if remote(self.root):
            require_storage(self.root)
        marker = self.root / _MARKER
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"--workspace {root} is a file: give a folder")
        if not marker.exists():
            if not create:
                raise UsageError(
                    f"no workspace at {root}: create one with `flywheel run --source DIR --workspace {root}`"
                )
            used = self.root.exists() and any(p for p in self.root.iterdir() if not p.name.startswith("."))
            if used and not marker.exists():  # asked again: another process may just have made it
                raise UsageError(f"--workspace {root} is not empty and not a workspace: give a new or an empty folder")
            write_json(marker, {"format": FORMAT})
        self._check_format(marker)

    def _check_format(self, marker: Path) -> None:
        try:
            found = int(read_json(marker)["format"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{marker} is not readable as a workspace marker: restore it or choose another folder"
            ) from error
        if found > FORMAT:
            raise UsageError(
                f"workspace {self.root} has format {found}, this version reads up to {FORMAT}: upgrade image-flywheel"
            )

    def path(self, *parts: str) -> Path:
        """A path below the root; nothing is created."""
        return self.root.joinpath(*parts)

    def sweep(self) -> int:
        """Remove temporary files that killed writers left behind; returns how many. Only the run's owner calls this."""
        stale = [p for p in self.root.rglob(".*.tmp") if p.is_file()] if not remote(self.root) else []
        for p in stale:
            p.unlink(missing_ok=True)
        return len(stale)


def require_storage(root: Path) -> None:
    """Errors: `UsageError` that says why S3 does not serve `root`."""
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
