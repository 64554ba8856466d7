"""From a model's name to something that turns token ids into log-probabilities."""
