"""One output folder that several processes write, whole or not at all."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from vggt3 import checks
from vggt3.distributed import World
from vggt3.files import leave_shelter
from vggt3.io.staging import staged


@contextmanager
def staged_together(
    world: World,
    out: str | os.PathLike[str],
    overwrite: bool = False,
    keep: Sequence[Path] = (),
    undo: list[Callable[[], object]] | None = None,
) -> Iterator[Path]:
    """:func:`~vggt3.io.staging.staged` for several processes that see one disk.

    The first makes the folder and puts it in its place when all have left the block; where one
    fails, whoever is left removes it. How to do that is put into ``undo``, for whoever must end
    this process without leaving the block.

    Raises:
        InputError: as for one process, on all of them; or one does not see the folder.
    """
    stack = ExitStack()

    def make() -> tuple[Path, list[Path]] | None:
        if world.rank:
            return None
        place = Path(os.path.realpath(Path(out).expanduser()))
        missing = [folder for folder in place.parents if not folder.exists()]
        return stack.enter_context(staged(out, overwrite, keep)), missing

    with stack:
        made = world.agreed(make)[0]
        assert made is not None
        partial, missing = made
        if undo is not None:
            undo.append(lambda: _remove(partial, missing))
        try:
            world.agreed(lambda: _check_seen(out, partial))
            yield partial
            world.exchange(None)
        except BaseException as error:
            # Not the first one's task alone: it may be the one that is gone.
            _remove(partial, missing)
            if isinstance(error, OSError) and error.errno is not None and error.filename is None:
                where = f"{out} (nothing was kept)"
                raise OSError(error.errno, error.strerror, where) from error
            raise
        world.agreed(stack.close)


def _remove(partial: Path, made: Sequence[Path]) -> None:
    """All that was made. Others may be at it too: whoever comes last finds the rest."""
    shelter = partial.parent
    leave_shelter(shelter, shelter.with_name(partial.name), made)


def _check_seen(out: str | os.PathLike[str], partial: Path) -> None:
    seen = partial.is_dir() and os.access(partial, os.W_OK | os.X_OK)
    wanted = "be on a disk that every process can write"
    checks.require(seen, f"OUT '{out}'", wanted, f"one that {socket.gethostname()} cannot")
