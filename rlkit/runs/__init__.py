"""A run on disk: its folder, its trials, its metrics, its checkpoints and who wrote them."""
