"""The fast weights' Triton kernels beside plain torch: error, time, share of the matmul rate.

python experiments/fast_weight_kernels.py            the table
python experiments/fast_weight_kernels.py --tune     and other launches of each bf16 kernel

Times are medians after warming up, of one layer and one head width 64, hidden 256. ``ratio`` is
plain torch's time over Triton's. Plain torch is what the model runs without the kernels: fp32
products ("highest"), or TF32 ones ("high"). ``share`` is of the rate of a bf16 product of 8192³
measured in the same run; FLOPs are the equation's, without what a backward computes again.
Exits with 1 where a kernel is further from float64 than its operands' rounding explains.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from event_timing import milliseconds
from torch import Tensor

from vggt3.attention import fast_weights
from vggt3.attention.fast_weights import Weights
from vggt3.attention.kernels import fast_weights as kernels
from vggt3.attention.kernels import fast_weights_ops as ops

WIDTH, HIDDEN, CHUNK = 64, 256, 64
LIMITS = {torch.bfloat16: 1e-2, torch.float32: 1e-5}
DEVICE = torch.device("cuda")


@dataclass(frozen=True)
class Size:
    """Views of one scene, or of a batch of them."""

    name: str
    batch: int
    heads: int
    views: int
    tokens: int
    """Of a view."""

    def draw(self, dtype: torch.dtype, views: int | None = None) -> tuple[Tensor, ...]:
        """k (also q), v, rates, W0, W1, W2, tokens before heads in memory."""
        count = (views or min(self.views, CHUNK)) * self.tokens
        shape = (self.batch, count, self.heads, WIDTH)
        k, v = (torch.randn(shape, device=DEVICE).transpose(1, 2) for _ in range(2))
        k = torch.nn.functional.normalize(k, dim=-1).to(dtype)
        rates = torch.rand(self.batch, count, 3, self.heads, device=DEVICE).permute(0, 3, 1, 2)
        shapes = ((WIDTH, HIDDEN), (HIDDEN, WIDTH), (WIDTH, HIDDEN))
        start = (
            torch.randn(self.batch, self.heads, *s, device=DEVICE) * (2 / s[0]) ** 0.5
            for s in shapes
        )
        return k, torch.nn.functional.silu(v).to(dtype), rates, *start

    def chunks(self) -> list[int]:
        """Views of each chunk of the whole scene."""
        full, rest = divmod(self.views, CHUNK)
        return [CHUNK] * full + [rest] * (rest > 0)


SIZES = (
    Size("vggt_1b, 64 views", 1, 16, 64, 1041),
    Size("vggt_1b, 1000 views in chunks", 1, 16, 1000, 1041),
    Size("small, 24 views", 1, 3, 24, 261),
    Size("small, 32 scenes of 8", 32, 3, 8, 149),
)


def matmul_rate() -> float:
    """TFLOP/s of a bf16 product of 8192³."""
    a, b = (torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / milliseconds(lambda: a @ b) / 1e9


def relative(found: Tensor, exact: Tensor) -> float:
    """Relative L2 distance."""
    return float((found.double() - exact).norm() / exact.norm())


def errors(dtype: torch.dtype) -> dict[str, float]:
    """Largest relative error of values and of gradients against float64, 2 views of vggt_1b."""
    given = [x.requires_grad_() for x in SIZES[0].draw(dtype, 2)]
    exact = [x.detach().double().requires_grad_() for x in given]
    sums = kernels.gradient(*given[:3], Weights(*given[3:]), kernel="triton")
    read = kernels.apply(given[0], Weights(*given[3:]), kernel="triton")
    exact_sums = fast_weights.gradient(*exact[:3], Weights(*exact[3:]))
    exact_read = fast_weights.apply(exact[0], Weights(*exact[3:]))
    found = {
        "sums": max(relative(a, b) for a, b in zip(sums, exact_sums, strict=True)),
        "read": relative(read, exact_read),
    }
    for name, outputs, wanted, inputs in (
        ("sums' backward", list(sums), list(exact_sums), range(6)),
        ("read's backward", [read], [exact_read], (0, 3, 4, 5)),
    ):
        pulls = [torch.randn_like(x) for x in outputs]
        grads = torch.autograd.grad(outputs, [given[n] for n in inputs], pulls)
        truth = torch.autograd.grad(wanted, [exact[n] for n in inputs], [p.double() for p in pulls])
        found[name] = max(relative(a, b) for a, b in zip(grads, truth, strict=True))
    return found


def steps(tensors: tuple[Tensor, ...], kernel: str) -> dict[str, Callable[[], object]]:
    """What is timed; training asks for the gradients of k, v and rates only, as a first sweep."""
    k, v, rates, *rest = tensors
    weights = Weights(*rest)
    learned = [x.detach().requires_grad_() for x in (k, v, rates)]

    def forward(read: bool) -> object:
        with torch.no_grad():
            if read:
                return kernels.apply(k, weights, kernel=kernel)
            return kernels.gradient(k, v, rates, weights, kernel=kernel)

    def train(read: bool) -> object:
        if read:
            out = kernels.apply(learned[0], weights, kernel=kernel)
            return torch.autograd.grad(out, learned[0], torch.ones_like(out))
        sums = kernels.gradient(*learned, weights, kernel=kernel)
        return torch.autograd.grad(sums, learned, list(weights))

    return {
        "sums": lambda: forward(False),
        "read": lambda: forward(True),
        "sums, forward + backward": lambda: train(False),
        "read, forward + backward": lambda: train(True),
    }


PRODUCTS = {"sums": 6, "read": 3, "sums, forward + backward": 18, "read, forward + backward": 6}
"""Of N×d×h; backwards without what is computed again: 12 and 3."""


def compare(size: Size, rate: float) -> None:
    """A row for each step: Triton in both dtypes, plain torch in fp32 and TF32."""
    training = size.views <= CHUNK
    for name, products in PRODUCTS.items():
        if "backward" in name and not training:
            continue
        spent: dict[str, float] = {}
        for label, kernel, dtype, precision in (
            ("triton bf16", "triton", torch.bfloat16, "highest"),
            ("triton fp32", "triton", torch.float32, "highest"),
            ("torch fp32", "torch", torch.float32, "highest"),
            ("torch tf32", "torch", torch.float32, "high"),
        ):
            torch.set_float32_matmul_precision(precision)
            total = 0.0
            for views, again in itertools.groupby(size.chunks()):
                step = steps(size.draw(dtype, views), kernel)[name]
                total += milliseconds(step) * len(list(again))
            spent[label] = total
            torch.cuda.empty_cache()
        work = 2 * products * size.batch * size.heads * size.views * size.tokens * WIDTH * HIDDEN
        fused = spent["triton bf16"]
        cells = [f"{label} {value:8.3f}" for label, value in spent.items()]
        ratios = " / ".join(f"{spent[x] / fused:.1f}" for x in ("torch fp32", "torch tf32"))
        share = work / fused / 1e9 / rate
        print(f"{size.name:30} {name:25} {' '.join(cells)} ms, ratio {ratios}, share {share:.0%}")


def settle(size: Size) -> None:
    """Newton–Schulz of three matrices in one batch, and one after the other."""
    given = Weights(*size.draw(torch.float32, 1)[3:])
    norms = Weights(*(fast_weights.column_norms(w) for w in given))
    apart = milliseconds(lambda: [fast_weights.newton_schulz(g, 5) for g in given])
    together = milliseconds(lambda: fast_weights.update(given, given, norms, 5))
    print(f"{size.name}: update {together:.3f} ms; Newton–Schulz one by one, alone {apart:.3f} ms")


def tune() -> None:
    """Other launches of the two inference kernels, bf16, 64 views of vggt_1b."""
    tensors = SIZES[0].draw(torch.bfloat16)
    for name in ("sums", "read"):
        pinned, table = ops.LAUNCHES[name, 2][WIDTH], ops.LAUNCHES[name, 2]
        for launch in itertools.product((32, 64), (64, 128), (4, 8), (1, 2, 3)):
            table[WIDTH] = launch
            try:
                spent = f"{milliseconds(steps(tensors, 'triton')[name]):.3f} ms"
            except Exception as error:  # shared memory runs out: the next one may fit
                spent = type(error).__name__
            print(f"{name} {launch}: {spent}{' (pinned)' if launch == pinned else ''}", flush=True)
        table[WIDTH] = pinned


def main() -> int:
    """Print errors, then times; 1 where an error is too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tune", action="store_true", help="time other launches too")
    asked = parser.parse_args()
    rate = matmul_rate()
    print(torch.__version__, torch.cuda.get_device_name(), f"bf16 product {rate:.0f} TFLOP/s")
    worst = 0.0
    for dtype, limit in LIMITS.items():
        for name, error in errors(dtype).items():
            print(f"{dtype} {name}: relative error {error:.1e}, at most {limit:.0e}")
            worst = max(worst, error / limit)
    for size in SIZES:
        compare(size, rate)
    settle(SIZES[0])
    if asked.tune:
        tune()
    return int(not worst <= 1)


if __name__ == "__main__":
    raise SystemExit(main())
