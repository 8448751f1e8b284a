"""From photos to scenes: the plan, the engine, and the doors a user comes in by."""

from vggt3.inference.options import RunOptions
from vggt3.inference.reconstruct import reconstruct

__all__ = ["RunOptions", "reconstruct"]
