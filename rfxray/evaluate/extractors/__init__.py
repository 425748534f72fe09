"""Networks that turn images into features, from which distances between sets are measured."""
