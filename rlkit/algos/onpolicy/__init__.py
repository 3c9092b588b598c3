"""The on-policy training step: fragments, advantages, and minibatches cut from columns."""
