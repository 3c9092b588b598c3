"""What DRON knows of its opponents: history, features, networks."""
