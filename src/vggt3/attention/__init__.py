"""Interchangeable backends of global attention and the memory they share."""
