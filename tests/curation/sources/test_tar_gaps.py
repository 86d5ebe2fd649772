"""What a tar has lost leaves an entry, and what its writer fills up is no loss."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from curation.sources.ingest import ingest
from flywheel.core.workspace import Workspace
from tests.curation.corpus import encoded, texture
from tests.curation.sources.pooled import reasons, write_tar


def test_an_archive_cut_between_members_says_so(workspace: Workspace, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {f"{n}.png": encoded(texture(n)) for n in range(3)})
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1].offset
    assert ingest(workspace, path).quarantined == 0
    path.write_bytes(path.read_bytes()[:last])
    found = ingest(Workspace(tmp_path / "cut"), path)
    assert (found.new, found.quarantined) == (2, 1)
    assert "end marker" in next(iter(reasons(Workspace(tmp_path / "cut")).values()))


def _places(path: Path) -> dict[str, tuple[int, int]]:
    """Offset of each member's header, and of what follows its content."""
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        return {m.name: (m.offset, m.offset_data + -(-m.size // 512) * 512) for m in members}


def _zeroed(path: Path, start: int, end: int) -> Path:
    data = bytearray(path.read_bytes())
    data[start:end] = bytes(end - start)
    path.write_bytes(bytes(data))
    return path


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    members = {f"{n}.{e}": encoded(texture(n)) if e == "png" else b"words" for n in range(4) for e in ("png", "txt")}
    return write_tar(tmp_path / "captioned.tar", members)


@pytest.mark.parametrize(
    ("first", "last"),
    [("1.png", "1.txt"), ("1.png", "2.txt"), ("0.txt", "1.png"), ("2.png", "3.txt"), ("0.png", "2.txt")],
)
def test_zeros_over_whole_members_leave_one_entry(captioned: Path, workspace: Workspace, first: str, last: str) -> None:
    """Headers and contents: a tar reader sees the end of the archive, or a longer one, and says nothing."""
    places = _places(captioned)
    assert places["3.txt"][1] - places["2.png"][0] > 10_752  # more than a writer fills up
    _zeroed(captioned, places[first][0], places[last][1])
    found = ingest(workspace, captioned)
    lost = sum(1 for n in range(4) if places[first][0] <= places[f"{n}.png"][0] < places[last][1])
    assert found.new == 4 - lost and found.found == found.new + found.quarantined
    assert sum("are zero" in why for why in reasons(workspace).values()) == 1


def test_zeros_over_a_caption_leave_an_entry(captioned: Path, workspace: Workspace) -> None:
    """As long as an end marker: but this archive's writer fills up its end."""
    start, end = _places(captioned)["1.txt"]
    assert end - start == 1024
    found = ingest(workspace, _zeroed(captioned, start, end))
    assert (found.new, found.quarantined) == (4, 1) and "are zero" in next(iter(reasons(workspace).values()))


@pytest.mark.parametrize("filled", [True, False])
def test_joined_archives_have_no_gaps(tmp_path: Path, workspace: Workspace, filled: bool) -> None:
    """With ends filled up to the record, and with bare ones, as some writers leave them."""
    joined = b""
    for n in range(4):
        part = write_tar(tmp_path / "part.tar", {f"{n}.png": encoded(texture(n)), f"{n}.txt": b"words"})
        joined += part.read_bytes() if filled else part.read_bytes()[: _places(part)[f"{n}.txt"][1] + 1024]
    (tmp_path / "joined.tar").write_bytes(joined)
    found = ingest(workspace, tmp_path / "joined.tar")
    assert (found.new, found.quarantined) == (4, 0)


def test_a_header_for_all_members_is_no_loss(tmp_path: Path, workspace: Workspace) -> None:
    """As `git archive` writes one, and a folder and an unknown kind of member."""
    path, picture = tmp_path / "s.tar", encoded(texture(1))
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "f" * 40}) as archive:
        for name, kind, content in (
            ("a", tarfile.DIRTYPE, b""), ("a/b.png", tarfile.REGTYPE, picture), ("odd", b"Z", b"12"),
            ("c.png", tarfile.REGTYPE, encoded(texture(2))),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(content)
            archive.addfile(info, io.BytesIO(content))
    found = ingest(workspace, path)
    assert (found.new, found.quarantined) == (2, 1), reasons(workspace)
    assert "special file" in reasons(workspace)["s.tar::odd"]


@pytest.mark.parametrize("factor", [128, 256, 2048])
def test_records_of_another_length_are_no_loss(captioned: Path, workspace: Workspace, factor: int) -> None:
    """As `tar -b` fills up its end."""
    end, record = _places(captioned)["3.txt"][1], 512 * factor
    data = captioned.read_bytes()[:end]
    captioned.write_bytes(data + bytes(-(-(end + 1024) // record) * record - end))
    assert captioned.stat().st_size % 10_240, "else a loss would look the same"
    assert ingest(workspace, captioned).quarantined == 0
    start = _places(captioned)["1.png"][0]
    found = ingest(Workspace(captioned.parent / "v"), _zeroed(captioned, start, end))
    assert (found.new, found.quarantined) == ((1, 1) if end - start + 1024 > record else (1, 0))
