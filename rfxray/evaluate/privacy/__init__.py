"""Whether samples give a patient of the training set away: near-copies, membership, a gate."""
