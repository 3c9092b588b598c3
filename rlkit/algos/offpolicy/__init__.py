"""The off-policy training step on columnar replay, and its options."""
