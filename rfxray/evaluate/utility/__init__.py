"""What samples are worth to a classifier that is trained on them, and to whom."""
