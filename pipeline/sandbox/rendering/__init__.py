"""Clips that the sandbox renders: camera, motion presets, effects, encoding."""
