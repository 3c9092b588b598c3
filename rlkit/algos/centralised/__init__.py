"""Centralised critics: networks, equations and rows of MADDPG, and what plugs into them."""
