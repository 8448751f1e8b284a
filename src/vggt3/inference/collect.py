"""``vggt3.reconstruct``: photos in, a scene out, in memory."""

from __future__ import annotations

from collections.abc import Collection

from vggt3.inference.engine import Engine
from vggt3.inference.options import RunOptions
from vggt3.io.photo_set import PhotoSet
from vggt3.io.sources import Source
from vggt3.io.views import read_views
from vggt3.model.choice import ModelChoice
from vggt3.model.opening import open_model
from vggt3.model.vggt3 import VGGT3
from vggt3.types import Cameras, DenseView, Reconstruction


class Collector:
    """A sink that keeps the cameras and the dense maps."""

    def __init__(self, wanted: Collection[int] | None = None) -> None:
        """Args:
        wanted: the views whose maps are kept; all of them if not given.
        """
        self.wanted = wanted
        self.views: dict[int, DenseView] = {}
        self.found: Cameras | None = None

    def cameras(self, cameras: Cameras) -> None:
        """Keep the cameras."""
        self.found = cameras

    def add(self, view: DenseView) -> None:
        """Keep one view's maps, apart from memory that is used again."""
        if self.wanted is not None and view.index not in self.wanted:
            return
        maps = (view.depth, view.depth_confidence, view.points, view.points_confidence)
        self.views[view.index] = DenseView(view.index, *(x.clone() for x in maps))

    def reconstruction(self, photos: PhotoSet) -> Reconstruction:
        """All of it, in the order of the photos."""
        assert self.found is not None
        return Reconstruction(
            names=photos.names,
            cameras=self.found,
            original_sizes=photos.original_sizes,
            views=tuple(self.views[i] for i in range(len(photos))),
            images=tuple(photo.image for photo in photos.photos),
        )


def reconstruct(
    photos: Source,
    model: VGGT3 | None = None,
    options: RunOptions | None = None,
    *,
    long_side: int | None = None,
) -> Reconstruction:
    """Cameras, depth and points of all photos, in the first photo's camera frame.

    Args:
        photos: a folder, a glob, a text file of paths, a video, one file, or a list of files.
        model: from :func:`vggt3.model.opening.open_model`; the shipped one if not given.
        options: device, precision, memory.
        long_side: pixels of the photos' long side in the model; what the weights were trained
            for if not given.

    Raises:
        InputError: nothing readable, a device that is not there, a plan that does not fit.
    """
    model = open_model(ModelChoice()).model if model is None else model
    engine = Engine(model, options)
    read = read_views(photos, long_side=long_side or model.config.long_side)
    collector = Collector()
    engine.run(read.views(), collector)
    return collector.reconstruction(read)
