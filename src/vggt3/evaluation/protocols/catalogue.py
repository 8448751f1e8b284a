"""The protocols by name, exactly as FACTS section 4 has them; three are of any data."""

from __future__ import annotations

from collections.abc import Mapping

from vggt3 import checks
from vggt3.data.readers.sevenscenes import SPLITS
from vggt3.data.readers.wayspots import SCENES as WAYSPOTS
from vggt3.evaluation.protocols.base import Protocol
from vggt3.evaluation.protocols.depth import VideoDepths
from vggt3.evaluation.protocols.localise import Localisation
from vggt3.evaluation.protocols.points import PointMaps
from vggt3.evaluation.protocols.pose import Poses
from vggt3.evaluation.protocols.selection import Every, Strided

SEVEN_TEST = tuple(
    f"{scene}/seq-{number:02d}" for scene, (_, test) in SPLITS.items() for number in test
)
NRGBD = (
    *("breakfast_room", "complete_kitchen", "green_room", "grey_white_room", "kitchen"),
    *("morning_apartment", "staircase", "thin_geometry", "whiteroom"),
)
DTU = tuple(
    f"scan{number}"
    for number in (1, 4, 9, 10, 11, 12, 13, 15, 23, 24, 29, 32, 33, 34, 48, 49, 62, 75, 77, 110,
                   114, 118)
)  # fmt: skip
ETH3D = (
    *("courtyard", "delivery_area", "electro", "facade", "kicker", "meadow", "office", "pipes"),
    *("playground", "relief", "relief_2", "terrace", "terrains"),
)
SINTEL = (
    *("alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2", "market_5"),
    *("market_6", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3"),
)
BONN = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
SUPPORT = (100, 500, 1000, 2000)
"""Views beside the ten that are scored."""


def _seven(name: str, views: Every | Strided, told: str) -> PointMaps:
    about = f"point maps of 7-Scenes' test sequences, {told}"
    return PointMaps(f"7scenes-{name}", about, "sevenscenes", "test", SEVEN_TEST, views)


def _nrgbd(name: str, views: Every | Strided, told: str) -> PointMaps:
    about = f"point maps of Neural RGB-D's nine rooms, {told}"
    return PointMaps(f"nrgbd-{name}", about, "nrgbd", "all", NRGBD, views)


def _point_maps() -> list[Protocol]:
    found: list[Protocol] = [
        _seven("sparse", Every(200), "every 200th frame"),
        _seven("dense", Every(40), "every 40th frame"),
        _nrgbd("sparse", Every(500), "every 500th frame"),
        _nrgbd("dense", Every(100), "every 100th frame"),
        PointMaps(
            "dtu", "point maps of 22 DTU scans, every 5th view", "dtu", "all", DTU, Every(5), 100.0
        ),
        PointMaps(
            "eth3d", "point maps of 13 ETH3D sites, every 5th photo", "eth3d", "all", ETH3D,
            Every(5),
        ),
    ]  # fmt: skip
    for count in SUPPORT:
        told = f"ten views scored among {count} more"
        found.append(_seven(f"scaling-{count}", Strided(10, count), told))
        found.append(_nrgbd(f"scaling-{count}", Strided(10, count), told))
    return found


def _depths() -> list[Protocol]:
    return [
        VideoDepths(
            "sintel", "depth of 14 films of Sintel", "sintel", "all", SINTEL, farthest=70.0
        ),
        VideoDepths("bonn", "depth of 5 videos of Bonn", "bonn", "all", BONN, farthest=70.0),
        VideoDepths(
            "kitti", "depth of KITTI's drives, 110 frames each", "kitti", "all", (), Every(1, 110)
        ),
    ]


def _localisations() -> list[Protocol]:
    return [
        Localisation(
            "7scenes-localise", "poses of 7-Scenes' test frames in maps of its train frames",
            "sevenscenes", "test", tuple(SPLITS), Every(20), "train", Every(50),
        ),
        Localisation(
            "wayspots-localise", "poses of Wayspots' test frames in maps of its train frames",
            "wayspots", "test", WAYSPOTS, Every(20), "train", Every(3),
        ),
    ]  # fmt: skip


def _of_any_data() -> list[Protocol]:
    return [
        PointMaps("points", "point maps of any data with cameras and depth", None),
        Poses("pose", "poses of any data with cameras", None),
        VideoDepths("depth", "depth of any video whose depth is known", None),
    ]


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (*_point_maps(), *_depths(), *_localisations(), *_of_any_data())
}


def protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UsageError: there is none; lists them.
    """
    return PROTOCOLS[checks.choose("protocol", name, PROTOCOLS)]
