"""Scenes to learn from and to be examined on: drawn by us, or read from a folder."""
