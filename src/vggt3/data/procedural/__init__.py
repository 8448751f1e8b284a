"""Procedural scenes: parameters drawn on the CPU from a seed, pictures rendered anywhere.

``draw_scene`` (or the dataset ``ProceduralScenes``) → ``SceneParameters`` → ``render`` →
``SceneBatch``.
"""
