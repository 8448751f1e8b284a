"""A scene's photos read by the processes that share it: each decodes its own, all know of all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from vggt3 import checks
from vggt3.distributed import World
from vggt3.io.photo_set import Photo, PhotoSet, Progress
from vggt3.io.photos import checked, decode_photos, deepest_of
from vggt3.io.sources import Source, find_photos, relative_names


def read_photos_shared(
    world: World,
    source: Source,
    *,
    long_side: int,
    strict: bool = False,
    progress: Progress | None = None,
) -> PhotoSet:
    """As :func:`~vggt3.io.photos.read_photos`, by several processes at once.

    Each holds the pixels of an even share of the files, less where some cannot be read.

    Raises:
        InputError: as for one process, on all of them; or they do not see the same files.
    """
    paths = world.agreed(lambda: find_photos(source))[world.rank]
    names = relative_names(paths)
    _check_same(world, names)
    own = slice(*world.share(len(paths)))
    deepest = max(world.exchange(deepest_of(paths[own])))
    decoded: list[PhotoSet] = []

    def decode() -> PhotoSet:
        given = paths[own], names[own], long_side
        decoded.append(decode_photos(*given, strict=strict, progress=progress, deepest=deepest))
        return _without_pixels(decoded[0])

    shares = world.agreed(decode)
    first = sum(len(share) for share in shares[: world.rank])
    photos = [photo for share in shares for photo in share.photos]
    held = range(first, first + len(decoded[0]))
    photos[first : held.stop] = decoded[0].photos
    skipped = tuple(skip for share in shares for skip in share.skipped)
    return checked(PhotoSet(tuple(photos), skipped, tuple(held)))


def read_video_shared(world: World, read: Callable[[], PhotoSet]) -> PhotoSet:
    """A video's frames, of which each process keeps the pixels of its share.

    All call ``read`` and decode all of it, since its frames follow from one another.
    """
    decoded: list[PhotoSet] = []
    world.agreed(lambda: decoded.append(read()))
    (whole,) = decoded
    _check_same(world, whole.names)
    start, stop = world.share(len(whole))
    photos = list(_without_pixels(whole).photos)
    photos[start:stop] = whole.photos[start:stop]
    return PhotoSet(tuple(photos), whole.skipped, tuple(range(start, stop)))


def _without_pixels(photos: PhotoSet) -> PhotoSet:
    def told(photo: Photo) -> Photo:
        return replace(photo, image=photo.image.to("meta"))

    return replace(photos, photos=tuple(told(photo) for photo in photos.photos))


def _check_same(world: World, names: Sequence[str]) -> None:
    for rank, found in enumerate(world.exchange(tuple(names))):
        checks.require(
            found == tuple(names),
            "photos",
            "be the same files for every process",
            f"{len(names)} on rank {world.rank} and {len(found)} on rank {rank}, not the same",
            error=checks.DataError,
        )
