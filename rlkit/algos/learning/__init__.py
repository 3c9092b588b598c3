"""What every learner here shares: minibatches cut from columns, one call per chunk, Adam without overhead."""
