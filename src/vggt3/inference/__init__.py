"""From photos to scenes: the plan, the engine, and the doors a user comes in by."""

from vggt3.inference.collect import reconstruct
from vggt3.inference.options import RunOptions

__all__ = ["RunOptions", "reconstruct"]
