"""Photos and videos in, scene files out."""

from vggt3.io.export.cameras_json import (
    CameraFile,
    CameraFrame,
    load_cameras_json,
    write_cameras_json,
)
from vggt3.io.export.colmap import ColmapSummary, write_colmap
from vggt3.io.export.glb import write_glb
from vggt3.io.export.nerfstudio import write_nerfstudio
from vggt3.io.export.ply import read_cloud, write_cloud
from vggt3.io.export.sampled_cloud import Cloud, SampledCloud
from vggt3.io.export.scene_npz import SceneArchive, SceneArchiveWriter
from vggt3.io.export.tracks import Observations, observe
from vggt3.io.photo_set import Photo, PhotoSet
from vggt3.io.photos import read_photos
from vggt3.io.scene_folder import SceneFolder, open_scene
from vggt3.io.scene_writer import SceneOptions, SceneSummary, SceneWriter
from vggt3.io.sources import find_photos, is_video
from vggt3.io.staging import check_out, staged
from vggt3.io.video import read_video
from vggt3.io.views import read_views

__all__ = [
    "CameraFile",
    "CameraFrame",
    "Cloud",
    "ColmapSummary",
    "Observations",
    "Photo",
    "PhotoSet",
    "SampledCloud",
    "SceneArchive",
    "SceneArchiveWriter",
    "SceneFolder",
    "SceneOptions",
    "SceneSummary",
    "SceneWriter",
    "check_out",
    "find_photos",
    "is_video",
    "load_cameras_json",
    "observe",
    "open_scene",
    "read_cloud",
    "read_photos",
    "read_video",
    "read_views",
    "staged",
    "write_cameras_json",
    "write_cloud",
    "write_colmap",
    "write_glb",
    "write_nerfstudio",
]
