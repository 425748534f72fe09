"""Whether samples show what was requested, and how often what goes with what."""
