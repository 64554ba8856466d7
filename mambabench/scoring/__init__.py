"""From token ids to answers: log-likelihoods and generated text."""
