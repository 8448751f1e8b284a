"""Names, options and schedules: what is known, and what a wrong one is told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import pytest
import torch

from vggt3 import checks
from vggt3.attention import registry
from vggt3.attention.base import Backend
from vggt3.attention.registry import LayerSpec, plan_layers

if TYPE_CHECKING:
    from collections import OrderedDict

PLUGINS = {
    "my-backend": f"{__name__}:Mine",
    "softmax": f"{__name__}:Mine",
    "absent": "no_such_package_of_this_test:Mine",
    "renamed": f"{__name__}:NoSuchName",
    "thing": f"{__name__}:PLUGINS",
    "shy": f"{__name__}:Shy",
}


class Mine(Backend):
    name = "my-backend"

    def __init__(
        self,
        width: int,
        heads: int,
        layer: int = 0,
        *,
        sizes: tuple[int, ...] = (1, 2),
        scale: float = 1.0,
        exact: bool = False,
    ) -> None:
        super().__init__(width, heads, layer)
        self.options = sizes, scale, exact


class Shy(Backend):
    name = "shy"

    def __init__(
        self, width: int, heads: int, layer: int = 0, *, kept: OrderedDict[str, int] | None = None
    ) -> None:
        super().__init__(width, heads, layer)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    found = [EntryPoint(name, target, registry.GROUP) for name, target in PLUGINS.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)
    registry.table.cache_clear()
    yield
    registry.table.cache_clear()


def told(name: str, options: dict[str, Any], layers: int = 4) -> str:
    """What the error says."""
    with pytest.raises(checks.UsageError) as error:
        plan_layers(name, options, layers)
    return str(error.value)


def test_every_built_in_name_is_its_class() -> None:
    for name in registry.BUILT_IN:
        found = registry.backend_class(name)
        assert found.name == name and found.summary
        assert registry.origin(name) == "vggt3"
    assert registry.DEFAULT in registry.BUILT_IN


def test_the_class_has_the_name_for_the_command_line() -> None:
    """One layer's module is built from its spec, with the options it names."""
    spec = LayerSpec("ttt_shortconv", (("kernel_size", 5), ("sweeps", 3)))
    found = spec.build(16, 2, 7)
    assert (found.width, found.heads, found.layer) == (16, 2, 7)
    assert found.get_parameter("conv.weight").shape == (16, 1, 5, 5)


def test_layers_start_from_different_fast_weights() -> None:
    drawn = [LayerSpec("ttt_mlp").build(16, 2, layer).get_buffer("w0") for layer in (0, 1, 0)]
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    seeded = LayerSpec("ttt_mlp", (("seed", 1),)).build(16, 2, 0).get_buffer("w0")
    assert not torch.equal(seeded, drawn[0])


def test_an_unknown_backend() -> None:
    message = told("ttt_shortcnov", {})
    assert "did you mean 'ttt_shortconv'?" in message and message.startswith("--attention must")
    assert all(name in message for name in registry.table())


def test_an_unknown_option() -> None:
    message = told("ttt_shortconv", {"sweep": 2})
    assert "did you mean 'sweeps'?" in message
    assert "'max_views'" in told("linear", {"max_views": 2})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("ttt_mlp", {"hidden": "many"}, "--attention.hidden must be a whole number, got 'many'"),
        ("ttt_mlp", {"hidden": 2.5}, "--attention.hidden must be a whole number, got 2.5"),
        ("ttt_mlp", {"hidden": True}, "--attention.hidden must be a whole number, got True"),
        ("ttt_mlp", {"sweeps": None}, "--attention.sweeps must be a whole number or text"),
        ("ttt_mlp", {"sweeps": "twice"}, "--attention.sweeps must be auto or at least 1"),
        ("ttt_mlp", {"sweeps": 0}, "--attention.sweeps must be auto or at least 1, got 0"),
        ("ttt_mlp", {"hidden": 0}, "--attention.hidden must be at least 1"),
        ("ttt_mlp", {"newton_schulz": -1}, "--attention.newton_schulz must be at least 0"),
        ("ttt_shortconv", {"kernel_size": 2}, "--attention.kernel_size must be odd"),
        ("softmax", {"max_views": 0}, "--attention.max_views must be at least 1"),
        ("softmax", {"kernel": "flsh"}, "did you mean 'flash'?"),
        ("softmax", {"kernel": 1}, "--attention.kernel must be text, got 1"),
    ],
)
def test_a_wrong_value(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(checks.UsageError, match=re.escape(words)):
        plan_layers(name, options, 1)[0].build(16, 2, 0)


def test_a_schedule_names_a_backend_for_each_layer() -> None:
    text = " 0-1:softmax , 3 : ttt_mlp,2:linear"
    options = {"schedule": text, "sweeps": 2, "max_views": 5}
    found = plan_layers("ttt_shortconv", options, 4)
    assert [spec.name for spec in found] == ["softmax", "softmax", "linear", "ttt_mlp"]
    assert [dict(spec.options) for spec in found] == [
        {"max_views": 5},
        {"max_views": 5},
        {},
        {"sweeps": 2},
    ]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("softmax", "look like 0-11:softmax,12-23:ttt_shortconv, got 'softmax'"),
        ("", "look like"),
        ("0-3:softmax,", "look like"),
        ("0..3:softmax", "look like"),
        ("0-4:softmax", "name layers in 0..3, got '0-4:softmax'"),
        ("3-0:softmax", "name layers in 0..3"),
        ("0-3:softmax,2:linear", "name each layer once, got layer 2 twice"),
        ("0-1:softmax,3:linear", "name every layer, got none for [2]"),
        ("0-3:sotfmax", "did you mean 'softmax'?"),
    ],
)
def test_a_wrong_schedule(schedule: str, words: str) -> None:
    message = told("softmax", {"schedule": schedule})
    assert words in message and message.startswith("--attention.schedule must")


def test_an_option_nobody_in_the_schedule_has() -> None:
    message = told("softmax", {"schedule": "0-3:linear", "sweeps": 2})
    assert "option of linear must be one of schedule, got 'sweeps'" in message


@pytest.mark.usefixtures("plugins")
class TestPlugIns:
    def test_a_plug_in_is_registered_and_replaces_nothing(self) -> None:
        assert registry.backend_class("my-backend") is Mine
        assert registry.backend_class("softmax") is not Mine
        schedule = {"schedule": "0-2:my-backend,3:softmax"}
        assert [s.name for s in plan_layers("linear", schedule, 4)][::3] == [
            "my-backend",
            "softmax",
        ]

    def test_options_of_other_types(self) -> None:
        """A list becomes a tuple (specs are looked up), a whole number is a number."""
        spec = plan_layers("my-backend", {"sizes": [3], "scale": 2, "exact": True}, 1)[0]
        assert hash(spec)
        assert vars(spec.build(16, 2, 0))["options"] == ((3,), 2, True)
        assert "true or false, got 1" in told("my-backend", {"exact": 1})

    def test_annotations_that_only_a_type_checker_sees(self) -> None:
        assert dict(plan_layers("shy", {"kept": "x"}, 1)[0].options) == {"kept": "x"}

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("absent", "import, got ModuleNotFoundError: No module named"),
            ("renamed", "import, got AttributeError"),
            ("thing", "be a vggt3.attention.base.Backend, got {"),
        ],
    )
    def test_a_plug_in_that_is_broken(self, name: str, words: str) -> None:
        message = told(name, {})
        assert words in message and f"backend {name} ({PLUGINS[name]})" in message
