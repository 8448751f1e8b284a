"""The protocols by name, exactly as FACTS section 4 has them."""

from __future__ import annotations

from collections.abc import Mapping

from vggt3 import checks
from vggt3.data.readers.sevenscenes import SPLITS
from vggt3.evaluation.protocols.base import Protocol
from vggt3.evaluation.protocols.points import PointMaps
from vggt3.evaluation.protocols.selection import Every

SEVEN_TEST = tuple(
    f"{scene}/seq-{number:02d}" for scene, (_, test) in SPLITS.items() for number in test
)


def _seven(kind: str, step: int) -> PointMaps:
    about = f"point maps of 7-Scenes' test sequences, every {step}th frame"
    return PointMaps(f"7scenes-{kind}", about, "sevenscenes", "test", SEVEN_TEST, Every(step))


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        _seven("sparse", 200),
        _seven("dense", 40),
    )
}


def protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        UsageError: there is none; lists them.
    """
    return PROTOCOLS[checks.choose("protocol", name, PROTOCOLS)]
