"""Acting with a trained policy: agents, exact evaluation, recordings, cross-play."""
