"""Tests: unit (pure), steps (fakes, virtual time), sandbox (real HTTP on loopback), acceptance (the command itself)."""
