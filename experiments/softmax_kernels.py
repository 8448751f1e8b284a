"""Which softmax kernels run on this machine, their error and rate at the model's own shape.

python experiments/softmax_kernels.py
"""

from __future__ import annotations

from functools import partial

import torch
from event_timing import milliseconds

from vggt3.attention.kernels.softmax import KERNELS, ORDER, Call, attend_reference

VIEWS, TOKENS, HEADS, WIDTH = 16, 1041, 16, 64


def main() -> None:
    """Print a line for each kernel."""
    device = torch.device("cuda")
    shape = (VIEWS, HEADS, TOKENS, WIDTH)
    q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(3))
    exact = attend_reference(q[:1].double(), k[:1].double(), v[:1].double())
    work = 4 * VIEWS * HEADS * TOKENS * TOKENS * WIDTH
    print(torch.__version__, torch.cuda.get_device_name(), f"auto order {ORDER}")
    for name, kernel in KERNELS.items():
        reason = kernel.why_not(Call.of(q, None))
        if reason is not None:
            print(f"{name}: {reason}")
            continue
        try:
            found = kernel.run(q[:1], k[:1], v[:1], None).double()
        except (RuntimeError, NotImplementedError, ImportError) as error:
            print(f"{name}: failed, {type(error).__name__}: {str(error).splitlines()[0][:200]}")
            continue
        error = float((found - exact).norm() / exact.norm())
        spent = milliseconds(partial(kernel.run, q, k, v, None))
        print(f"{name}: error {error:.1e}, {spent:.3f} ms, {work / spent / 1e9:.0f} TFLOP/s")


if __name__ == "__main__":
    main()
