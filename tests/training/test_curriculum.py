"""Which scenes a step sees."""

from __future__ import annotations

import itertools

import pytest
import torch

from vggt3.checks import UsageError
from vggt3.data.procedural.config import ProceduralConfig
from vggt3.training.curriculum import Recipe, RecipeScenes, Steps, parse_recipes


def test_recipes_are_read() -> None:
    assert parse_recipes("8@168x168*32, 16@168x224*12:0.5") == (
        Recipe(8, (168, 168), 32),
        Recipe(16, (168, 224), 12, 0.5),
    )


@pytest.mark.parametrize("text", ["", "8", "8@168*2", "8@170x168*2", "0@168x168*2", "8@14x14*1:0"])
def test_bad_recipes_are_named(text: str) -> None:
    with pytest.raises(UsageError, match=r"--data\.recipes"):
        parse_recipes(text)


def test_no_scene_is_seen_twice_by_any_rank() -> None:
    recipes = parse_recipes("2@14x14*3,4@14x14*2")
    seen = []
    for rank in range(2):
        steps = Steps(recipes, seed=5, count=20, rank=rank, ranks=2)
        seen += [index for batch in steps for _, index in batch]
    assert len(set(seen)) == len(seen)


def test_ranks_see_the_same_recipe_and_a_resumed_run_the_same_scenes() -> None:
    recipes = parse_recipes("2@14x14*3,4@14x14*2")
    whole = list(Steps(recipes, seed=5, count=20))
    assert {len({recipe for recipe, _ in batch}) for batch in whole} == {1}
    assert {batch[0][0] for batch in whole} == {0, 1}
    later = list(itertools.islice(iter(Steps(recipes, seed=5, first=12)), 8))
    assert later == whole[12:]
    other = list(Steps(recipes, seed=5, count=20, rank=1, ranks=2))
    assert [batch[0][0] for batch in other] == [batch[0][0] for batch in whole]


def test_scenes_have_the_recipe_s_shape() -> None:
    recipes = parse_recipes("2@14x28*1,3@28x14*1")
    scenes = RecipeScenes(recipes, ProceduralConfig(), seed=3)
    one, other = scenes[0, 7], scenes[1, 7]
    assert (one.views, one.size, other.views, other.size) == (2, (14, 28), 3, (28, 14))
    assert torch.equal(one.camera_from_world, scenes[0, 7].camera_from_world)
