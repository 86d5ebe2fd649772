"""Writes checkpoints: whole ones and shares, at once, or from a copy while training goes on.

A folder is written under a temporary name, then renamed, so that a killed writer leaves the former checkpoint valid.
Files are hashed as they are written, each by the process that writes it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from flywheel.core import hashes
from flywheel.core.errors import UsageError, first_line
from flywheel.core.files import file_digest, is_whole, rename_folder, write_json
from flywheel.core.hash_line import Entry
from training.checkpoint import FORMAT, SHARES, WRITER, Checkpoint, flat

if TYPE_CHECKING:
    from torch import Tensor

    from training.distributed import World
    from training.models.autoencoder import Autoencoder

log = logging.getLogger(__name__)


def write(
    path: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    autoencoder: Autoencoder | None,
    config: Mapping[str, Any],
    world: World | None = None,
) -> Checkpoint:
    """Write a checkpoint folder of whole tensors; a whole `path` is kept.

    `autoencoder`: of the model's latents; None if the model is itself an autoencoder. `world`: of the processes that
    hold shares of the tensors; every one must call it. They gather one tensor of each part at a time, and write as many
    files at once as there are processes.
    """
    from training.distributed import World

    world = world or World()
    if not world.sum(is_whole(path)):
        temporary = _emptied(path, world)
        known = world.merged(lambda: _write_parts(temporary, tensors, world))
        if world.first:
            _close(temporary, path, autoencoder, config, known)
        world.wait()
    return Checkpoint(path)


def _write_parts(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], world: World) -> dict[str, dict[str, Any]]:
    """Write this process's files, each of a part; returns their entries. Parts without shares are the first's."""
    from training.distributed import full_tensor
    from training.tensor_file import TensorFile

    shared = [part for part, values in tensors.items() if any(hasattr(t, "full_tensor") for t in values.values())]
    owners = {part: shared.index(part) % world.size if part in shared else 0 for part in tensors}
    with ExitStack() as stack:
        files = {
            part: stack.enter_context(
                TensorFile(folder / f"{part}.safetensors", {k: (tuple(t.shape), t.dtype) for k, t in values.items()})
            )
            for part, values in tensors.items()
            if owners[part] == world.rank
        }
        for row in zip_longest(*([(part, *item) for item in values.items()] for part, values in tensors.items())):
            whole = [(part, name, full_tensor(t.detach())) for part, name, t in filter(None, row)]
            for part, name, tensor in whole:
                if part in files:
                    files[part].write(name, tensor)
    return {file.path.name: _entry(file.path, (file.size, file.sha256)) for file in files.values()}


def write_together(
    path: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    autoencoder: Autoencoder,
    config: Mapping[str, Any],
    world: World,
) -> Checkpoint:
    """Write a checkpoint from several processes, each its share of the tensors; every process must call it."""
    from torch.distributed.checkpoint import save

    if world.size == 1:
        return write(path, tensors, autoencoder, config)
    temporary = _emptied(path, world)
    save(flat(tensors), checkpoint_id=temporary / SHARES, process_group=world.group)
    written = (temporary / SHARES).glob(f"__{world.rank}_*")
    known = world.merged(lambda: {f"{SHARES}/{p.name}": _entry(p) for p in written})
    if world.first:
        _close(temporary, path, autoencoder, config, known)
    world.wait()
    return Checkpoint(path)


def _emptied(path: Path, world: World) -> Path:
    """The temporary folder of `path`, empty."""
    temporary = path.with_name(f".{path.name}.tmp")
    if world.first:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    world.wait()
    return temporary


def _close(
    temporary: Path,
    path: Path,
    autoencoder: Autoencoder | None,
    config: Mapping[str, Any],
    known: Mapping[str, Mapping[str, Any]],
) -> None:
    if autoencoder is not None:
        autoencoder.save(temporary / "autoencoder.safetensors")
    seal(temporary, path, config, known)


def seal(
    temporary: Path, path: Path, config: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write the configuration, with every file's size and hash, and rename the folder to `path`.

    known: entries of files that were hashed already.
    """
    paths = {str(p.relative_to(temporary)): p for p in sorted(temporary.rglob("*")) if p.is_file()}
    paths = {name: p for name, p in paths.items() if hashes.FOLDER not in p.parts}
    files = {name: (known or {}).get(name) or _entry(p) for name, p in paths.items()}
    write_json(temporary / "config.json", {"format": FORMAT, **config, "files": files})
    rename_folder(temporary, path)


def _entry(path: Path, content: tuple[int, str] | None = None) -> dict[str, Any]:
    """Size and hash of a file of a checkpoint, where they are not known yet; in a workspace they are recorded, too."""
    size, sha256 = content or (path.stat().st_size, file_digest(path))
    if hashes.covered(path):
        hashes.write(path.parent, [Entry(path.name, hashes.FILE, size, sha256)])
    return {"bytes": size, "sha256": sha256}


def copied(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """Copies in main memory, of shares as well: later steps do not change them."""
    return {part: {k: t.detach().to("cpu", copy=True) for k, t in values.items()} for part, values in tensors.items()}


def taken_by_first(world: World, take: Callable[[], Callable[[], object]]) -> Callable[[], object]:
    """Let the first process copy a checkpoint; returns what writes it there, and does nothing in the others.

    Errors: as `World.each`.
    """
    taken: list[Callable[[], object]] = []
    world.by_first(lambda: taken.append(take()))
    return lambda: [write() for write in taken]


class Writer:
    """Writes checkpoints in a thread while training goes on, one at a time.

    Leaving its block waits for the last one; where an error leaves it, what the thread fails with is only logged.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def start(self, take: Callable[[], Callable[[], object]]) -> None:
        """Once the checkpoint before is written, `take` a copy, and begin what that returns, which writes it.

        Every process must call it. Errors: as `wait`.
        """
        self.wait()
        self._thread = Thread(target=self._do, args=(take(),), name=WRITER, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for what was started. Errors: in every process the `UsageError` with which it failed in one."""
        self._world.each(self._joined)

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits
            self._error = error

    def _joined(self) -> None:
        if self._thread is not None:
            self._thread.join()
        error, self._thread, self._error = self._error, None, None
        if error is not None:
            raise _sentence(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.wait()
        elif issubclass(kind, Exception):  # whoever interrupts a run does not wait
            try:
                self._joined()
            except UsageError as failure:
                log.error("%s", failure)


def _sentence(error: BaseException) -> BaseException:
    """A `UsageError` for what a disk or another process fails with; any other error as it is."""
    failures = getattr(error, "failures", None)  # of PyTorch's checkpoints: {rank: (error, trace)}
    if not failures and not isinstance(error, OSError):
        return error
    cause = next(iter(failures.values()))[0] if failures else error
    return UsageError(
        f"a checkpoint was not written ({first_line(cause)}): look for free space on its disk, then run again to "
        "resume from the one before it"
    )
