"""Rotations, pinhole cameras, projection and alignment: pure functions of tensors."""
