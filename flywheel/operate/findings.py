"""What a check of a workspace found, and the check in progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flywheel.core import hashes
from flywheel.core.files import file_digest, read_json
from flywheel.core.storage import readable
from flywheel.core.workspace import Workspace

if TYPE_CHECKING:
    import pyarrow as pa

ERROR, NOTE = "error", "note"  # a note is harmless, such as what a killed run leaves and the next one removes


@dataclass(frozen=True)
class Finding:
    """One fault: where it is, what it is, and how to repair it."""

    severity: str  # error | note
    path: str  # relative to the workspace
    problem: str
    advice: str


@dataclass(frozen=True)
class Report:
    """Number of files checked, and the findings."""

    files: int
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """True if there is no error; notes are harmless."""
        return not any(f.severity == ERROR for f in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return {"sound": self.sound, "files": self.files, "findings": [asdict(f) for f in self.findings]}


class Check:
    """The workspace being checked, and the findings so far."""

    def __init__(self, workspace: Workspace, progress: Callable[..., None] | None) -> None:
        self.workspace = workspace
        self.progress = progress
        self.files = 0
        self.findings: list[Finding] = []
        self._damaged: set[str] = set()
        self._records = lru_cache(maxsize=64)(hashes.read)

    def fault(self, path: Path, problem: str, advice: str, severity: str = ERROR) -> None:
        """Add a finding."""
        name = str(path.relative_to(self.workspace.root))
        if severity == ERROR:
            self._damaged.add(name)
        self.findings.append(Finding(severity, name, problem, advice))

    def damaged(self, path: Path) -> bool:
        """True if a file has an error already."""
        return str(path.relative_to(self.workspace.root)) in self._damaged

    def any_damaged(self, folder: Path) -> bool:
        """True if a file in a folder, or below it, has an error already."""
        above = f"{folder.relative_to(self.workspace.root)}/"
        return any(name.startswith(above) for name in self._damaged)

    def opened(self) -> None:
        """Count a file that was checked."""
        self.files += 1
        if self.progress:
            self.progress(self.files, None, "files checked")

    def each(self, paths: Iterable[Path], part: Callable[[Path], None]) -> None:
        """Check each of the paths; what one of them makes fail is a finding about that one."""
        for path in paths:
            try:
                part(path)
            except Exception as error:  # noqa: BLE001 - whatever damaged content raises
                if not self.damaged(path):
                    problem = f"cannot be checked ({type(error).__name__}: {error})"
                    self.fault(path, problem, "restore it from a copy")

    def json(self, path: Path, advice: str) -> Any:
        """The content of a JSON file; None, and a fault, if it cannot be read."""
        if self.damaged(path):
            return None
        try:
            return read_json(path)
        except FileNotFoundError:
            self.fault(path, "missing", advice)
        except (OSError, ValueError) as error:
            self.fault(path, f"cannot be read as JSON: {error}", advice)
        return None

    def hashed(self, path: Path, entry: dict[str, Any], advice: str) -> bool:
        """True if a file has the size and the hash listed in its manifest; otherwise a fault."""
        if self.damaged(path):
            return False
        if not path.is_file():
            self.fault(path, "missing, but listed in its manifest", advice)
        elif path.stat().st_size != entry["bytes"]:
            self.fault(path, f"has {path.stat().st_size} bytes instead of {entry['bytes']}", advice)
        elif self.sha256(path) != entry["sha256"]:
            self.fault(path, "its content does not match the sha256 in its manifest", advice)
        else:
            return True
        return False

    def sha256(self, path: Path) -> str:
        """Hash of a file: the recorded one, which was verified, or else of its bytes."""
        entry = self._records(path.parent).newest.get(path.name)
        return entry.sha256 if entry and entry.kind == hashes.FILE else file_digest(path)

    def table(self, path: Path, advice: str) -> pa.Table | None:
        """A whole Parquet file, page checksums verified; None, and a fault, if it cannot be read."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.damaged(path):
            return None
        try:
            with pq.ParquetFile(readable(path), page_checksum_verification=True) as file:
                return file.read()  # every column: a flipped byte may be in any
        except (OSError, pa.ArrowException) as error:
            self.fault(path, f"cannot be read completely: {error}", advice)
            return None
