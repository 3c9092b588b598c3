"""The on-policy training step: fragments, advantages, minibatches from columns. PPO uses it, alone and with several agents."""
