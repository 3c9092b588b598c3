"""Env runners that step arrays instead of episode objects, for one agent and for teams."""
