"""Where the photos are taken from: orbits, walks, scattered, always from free space."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vggt3.data.procedural.build import Builder, Point
from vggt3.data.procedural.config import PATHS
from vggt3.data.procedural.draw import Draw
from vggt3.data.procedural.space import Space

Array = NDArray[np.float64]
CLEARANCE_M = 0.15
"""Least distance of a camera from any solid."""
ROUNDS, LAST_ROUNDS = 10, 4
"""Times that other places are tried for cameras which stand badly; at last, any place at all."""
CANDIDATES = 3
"""Places tried for each in a round."""
GOOD = 1.0
"""Worth of a place that is good enough."""
MEDIAN_M, LEAST_M = 1.1, 0.35
"""A good place sees at least this far in the median, and nothing nearer than the second."""
MOST_M = 30.0
"""Where the median is farther, the photo would show little but sky."""


@dataclass(frozen=True)
class Shot:
    """One photo to be taken."""

    centre: Point
    target: Point
    apart: Point = (0.2, 0.2, 0.1)
    """How far the camera may be moved to stand well, metres."""


def shots(builder: Builder, spread: float) -> list[Shot]:
    """The scene's photos, in the order that they are given to the model."""
    draw, config = builder.draw, builder.config
    space = Space.of(builder.arrays())
    weights = {name: weight for name in PATHS if (weight := getattr(config, name)) > 0}
    path = list(weights)[draw.weighted(list(weights.values()))]
    distinct = max(1, round(config.views * (1 - config.duplicates)))
    if path in FIXED:
        taken = _best_of_several(builder, space, lambda: WAYS[path](builder, spread, distinct))
    else:
        taken = _settled(builder, space, WAYS[path](builder, spread, distinct))
    again = [taken[draw.integer(0, distinct - 1)] for _ in range(config.views - distinct)]
    if again:
        taken += _again(draw, space, again)
    return draw.shuffled(taken) if path in UNORDERED or again else taken


def _settled(builder: Builder, space: Space, wanted: list[Shot]) -> list[Shot]:
    """The shots, each moved to a place that is free and has something to see."""
    draw, best = builder.draw, list(wanted)
    worth = _worth(space, best)
    for attempt in range(ROUNDS):
        poor = [n for n, value in enumerate(worth) if value < GOOD]
        if not poor:
            break
        grow = 1 + attempt / 2
        nearby = attempt < ROUNDS - LAST_ROUNDS
        tried = [
            (n, replace(shot, centre=_moved(draw, shot, grow) if nearby else _anywhere(builder)))
            for n, shot in ((n, wanted[n]) for n in poor)
            for _ in range(CANDIDATES)
        ]
        for (n, shot), value in zip(tried, _worth(space, [s for _, s in tried]), strict=True):
            if value > worth[n]:
                best[n], worth[n] = shot, value
    free = [shot.centre for shot, value in zip(best, worth, strict=True) if value >= 0]
    return [
        shot if value >= 0 or not free else replace(shot, centre=draw.choice(free))
        for shot, value in zip(best, worth, strict=True)
    ]


def _best_of_several(builder: Builder, space: Space, way: Callable[[], list[Shot]]) -> list[Shot]:
    """Shots whose arrangement counts: all are drawn again until all stand well."""
    best: list[Shot] = []
    most = -math.inf
    for _ in range(ROUNDS):
        tried = way()
        worth = min(_worth(space, tried))
        if worth > most:
            best, most = tried, worth
        if most >= GOOD:
            break
    return best if most >= 0 else _settled(builder, space, best)


def _moved(draw: Draw, shot: Shot, grow: float) -> Point:
    x, y, z = shot.centre
    return (
        x + draw.uniform(-1, 1) * shot.apart[0] * grow,
        y + draw.uniform(-1, 1) * shot.apart[1] * grow,
        z + draw.uniform(-1, 1) * shot.apart[2],
    )


def _worth(space: Space, taken: list[Shot]) -> list[float]:
    """≥ 1 for a good place: clear of solids, with something to see at a distance."""
    centres = np.array([shot.centre for shot in taken])
    way = np.array([shot.target for shot in taken]) - centres
    forward = way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-6)
    side = np.cross(forward, (0.0, 0.0, 1.0))
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-6)
    up = np.cross(side, forward)
    steps = (-0.45, 0.0, 0.45)
    rays = np.stack([forward + a * side + b * up for a in steps for b in steps], axis=1)
    rays /= np.linalg.norm(rays, axis=2, keepdims=True)
    seen = space.depths(centres, rays)
    middle = np.median(seen, axis=1)
    far = np.minimum(middle / MEDIAN_M, seen.min(axis=1) / LEAST_M)
    far = np.where(middle > MOST_M, np.minimum(far, 0.5), far)
    clear = space.clearance(centres)
    return [float(x) for x in np.where(clear < CLEARANCE_M, clear - 1, far)]


def _inside(builder: Builder, point: Point) -> Point:
    low_x, high_x, low_y, high_y = builder.region
    low, high = builder.heights
    return (
        min(max(point[0], low_x), high_x),
        min(max(point[1], low_y), high_y),
        min(max(point[2], low), high),
    )


def _interest(builder: Builder) -> Point:
    return builder.draw.choice(builder.points) if builder.points else (0.0, 0.0, 1.0)


def _anywhere(builder: Builder) -> Point:
    low_x, high_x, low_y, high_y = builder.region
    draw = builder.draw
    return (
        draw.uniform(low_x, high_x),
        draw.uniform(low_y, high_y),
        draw.uniform(*builder.heights),
    )


def _jitter(draw: Draw, point: Point, amount: float) -> Point:
    return (
        point[0] + draw.normal(amount),
        point[1] + draw.normal(amount),
        point[2] + draw.normal(amount * 0.5),
    )


def _orbit(builder: Builder, spread: float, count: int) -> list[Shot]:
    """Around one object, over an arc."""
    draw = builder.draw
    focus = _interest(builder)
    low_x, high_x, low_y, high_y = builder.region
    widest = max(1.0, 0.5 * min(high_x - low_x, high_y - low_y))
    radius = draw.uniform(0.8, 1.6) * widest
    arc = (0.3 + 1.7 * spread) * math.pi
    # The arc begins on the side of the free space, for things at a wall.
    start = math.atan2(-focus[1], -focus[0]) - arc / 2 + draw.normal(0.4)
    height = draw.uniform(*builder.heights)
    wanted = []
    for n in range(count):
        turn = start + arc * (n + draw.uniform(0, 0.6)) / max(1, count)
        far = radius * draw.uniform(0.8, 1.2)
        place = (
            focus[0] + far * math.cos(turn),
            focus[1] + far * math.sin(turn),
            height + draw.normal(0.15),
        )
        target = _jitter(draw, focus, 0.15)
        wanted.append(Shot(_inside(builder, place), target, (0.25, 0.25, 0.1)))
    return wanted


def _walk(builder: Builder, spread: float, count: int) -> list[Shot]:
    """Along a bent line, looking from one thing to the next."""
    draw = builder.draw
    place, heading = _anywhere(builder), draw.angle()
    low_x, high_x, low_y, high_y = builder.region
    size = (high_x - low_x + high_y - low_y) / 2
    step = draw.uniform(0.3, 1.2) * spread * size / max(count, 4)
    look, following = _interest(builder), _interest(builder)
    wanted = []
    for n in range(count):
        share = n / max(1, count - 1) * spread
        x, y, z = (a + (b - a) * share for a, b in zip(look, following, strict=True))
        wanted.append(Shot(place, _jitter(draw, (x, y, z), 0.1), (0.1, 0.1, 0.05)))
        heading += draw.normal(0.5)
        further = (
            place[0] + step * math.cos(heading),
            place[1] + step * math.sin(heading),
            place[2] + draw.normal(0.05),
        )
        place = _inside(builder, further)
        if place[:2] != further[:2]:
            heading += math.pi / 2
    return wanted


def _scattered(builder: Builder, spread: float, count: int) -> list[Shot]:
    """From all over the region, towards a few interesting things."""
    draw = builder.draw
    middle, look = _anywhere(builder), _interest(builder)
    low_x, high_x, low_y, high_y = builder.region
    low, high = builder.heights
    reach = tuple(spread * (b - a) / 2 for a, b in ((low_x, high_x), (low_y, high_y), (low, high)))
    wanted = []
    for _ in range(count):
        x, y, z = (m + draw.uniform(-1, 1) * r for m, r in zip(middle, reach, strict=True))
        target = _interest(builder) if draw.chance(spread * 0.7) else look
        wanted.append(Shot(_inside(builder, (x, y, z)), _jitter(draw, target, 0.3)))
    return wanted


def _turn(builder: Builder, spread: float, count: int) -> list[Shot]:
    """From one place, round about: the photos differ by a rotation alone."""
    draw = builder.draw
    place, start = _anywhere(builder), draw.angle()
    arc = (0.2 + 1.8 * spread) * math.pi
    wanted = []
    for n in range(count):
        turn = start + arc * (n + draw.uniform(-0.3, 0.3)) / max(1, count)
        rise = 0.4 * draw.uniform(-1, 1) * spread
        target = (
            place[0] + math.cos(turn), place[1] + math.sin(turn), place[2] + math.tan(rise),
        )  # fmt: skip
        wanted.append(Shot(place, target))
    return wanted


def _advance(builder: Builder, spread: float, count: int) -> list[Shot]:
    """Straight ahead, looking ahead: what moves least in the photos is what matters."""
    draw = builder.draw
    (x, y, z), (end_x, end_y, _) = _anywhere(builder), _anywhere(builder)
    climb = draw.normal(0.1)
    wanted = []
    for n in range(count):
        share = spread * n / max(1, count - 1)
        place = (x + share * (end_x - x), y + share * (end_y - y), z + share * climb)
        ahead = (x + 3 * (end_x - x), y + 3 * (end_y - y), z + 3 * climb)
        wanted.append(Shot(_inside(builder, place), _jitter(draw, ahead, 0.1)))
    return wanted


def _again(draw: Draw, space: Space, taken: list[Shot]) -> list[Shot]:
    """Nearly the same photos once more."""
    moved = [
        Shot(_jitter(draw, shot.centre, 0.03), _jitter(draw, shot.target, 0.03)) for shot in taken
    ]
    free = space.clearance(np.array([shot.centre for shot in moved])) > 0.05
    return [new if ok else old for new, old, ok in zip(moved, taken, free, strict=True)]


WAYS = {
    "orbits": _orbit, "walks": _walk, "scattered": _scattered, "turns": _turn,
    "advances": _advance,
}  # fmt: skip
"""By the names of their weights."""
UNORDERED, FIXED = {"scattered", "turns"}, {"turns", "advances"}
"""Ways whose photos come in any order; ways whose photos do not move one by one."""
