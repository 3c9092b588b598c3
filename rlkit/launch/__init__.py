"""From a recipe to a finished run: building the AlgorithmConfig, `tune.run`, one trial, following it live."""
