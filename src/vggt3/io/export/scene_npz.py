"""``scene.npz``: the dense maps, one member a view and kind, written as views arrive.

``numpy.load(path)["depth/photo.jpg"]`` is [H, W]; likewise ``depth_confidence/…``,
``points/…`` ([H, W, 3], world frame) and ``points_confidence/…``, in scene units; ``image/…`` is
the photo as the model saw it ([H, W, 3] uint8 RGB).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from vggt3 import checks
from vggt3.types import DenseView

KINDS = ("depth", "depth_confidence", "points", "points_confidence")
"""The maps of a view, as fields of DenseView and as folders in the archive."""


class SceneArchiveWriter:
    """Appends views to a ``scene.npz``; nothing but the table of contents stays in memory."""

    def __init__(
        self,
        path: Path,
        *,
        half: bool = False,
        compress: bool = False,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        """Open ``path`` anew, for these maps.

        ``half`` stores float16 (values beyond ±65504 are held there); ``compress`` deflates: about
        a tenth smaller, several times slower.
        """
        self._half, self._kinds = half, tuple(kinds)
        self._method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        self._zip = zipfile.ZipFile(path, "w", self._method, compresslevel=1)
        self._written: set[str] = set()

    def add(
        self,
        name: str,
        view: DenseView,
        image: Tensor | None = None,  # [3, H, W] uint8
    ) -> None:
        """Append the maps of ``view`` and its ``image`` under ``name``, which must be new."""
        checks.require(name not in self._written, "view name", "be new in the archive", name)
        self._written.add(name)
        for kind in self._kinds:
            self._append(f"{kind}/{name}.npy", self._array(getattr(view, kind)))
        if image is not None:
            pixels = image.detach().cpu().numpy().transpose(1, 2, 0).copy()
            self._append(f"image/{name}.npy", pixels)

    def close(self) -> None:
        """Write the table of contents; without it the file cannot be read."""
        self._zip.close()

    def __enter__(self) -> SceneArchiveWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, path: str, array: np.ndarray) -> None:
        # A fixed date: the same scene gives the same bytes.
        member = zipfile.ZipInfo(path, date_time=(1980, 1, 1, 0, 0, 0))
        member.compress_type = self._method
        member.external_attr = 0o644 << 16
        with self._zip.open(member, "w", force_zip64=True) as file:
            # As npy.write_array does, but for its copy of the array.
            npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(array))
            file.write(array.data.cast("B"))

    def _array(self, values: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.floating]]:
        array = values.detach().to("cpu", torch.float32).contiguous().numpy()
        if not self._half:
            return array
        limit = np.finfo(np.float16).max
        return np.clip(array, -limit, limit).astype(np.float16)


class SceneArchive:
    """Reads a ``scene.npz`` view by view; nothing is loaded before it is asked for."""

    def __init__(self, path: str | Path, order: Sequence[str] | None = None) -> None:
        """Open ``path``; ``order`` (the names in ``cameras.json``) gives the views their places,
        else they keep the order in which they were written.
        """
        self._path = path
        try:
            self._arrays = np.load(path, allow_pickle=False)
        except OSError as error:
            self._fail(error.strerror or error)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            self._fail(error)
        if not isinstance(self._arrays, np.lib.npyio.NpzFile):
            self._fail("a single array")
        files = self._arrays.files
        found = tuple(f.removeprefix("depth/") for f in files if f.startswith("depth/"))
        self.names: tuple[str, ...] = found if order is None else tuple(order)
        missing = [f"{k}/{n}" for n in self.names for k in KINDS if f"{k}/{n}" not in set(files)]
        if missing or not self.names:
            self._fail(f"none of '{missing[0]}'" if missing else "no view")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[tuple[str, DenseView]]:
        for index, name in enumerate(self.names):
            yield name, self._view(index, name)

    def __getitem__(self, name: str) -> DenseView:
        """The maps of the view called ``name``, float32."""
        return self._view(self.names.index(checks.choose("view", name, self.names)), name)

    def image(self, name: str) -> Tensor | None:
        """The photo as the model saw it, [3, H, W] uint8 RGB; None where it was not kept."""
        member = f"image/{name}"
        if member not in self._arrays.files:
            return None
        return torch.from_numpy(self._read(member).astype(np.uint8)).permute(2, 0, 1)

    def close(self) -> None:
        """Close the file."""
        self._arrays.close()

    def __enter__(self) -> SceneArchive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _view(self, index: int, name: str) -> DenseView:
        return DenseView(index, *(self._load(f"{kind}/{name}") for kind in KINDS))

    def _load(self, member: str) -> Tensor:
        return torch.from_numpy(np.asarray(self._read(member), dtype=np.float32))

    def _read(self, member: str) -> np.ndarray:
        try:
            return self._arrays[member]
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            self._fail(f"a damaged '{member}': {error}")

    def _fail(self, got: object) -> NoReturn:
        checks.fail(f"'{self._path}'", "be a scene.npz", got, error=checks.DataError)
