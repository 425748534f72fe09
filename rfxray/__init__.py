"""rfxray: rectified-flow transformers for chest radiographs."""

from rfxray import stop_signals

__version__ = "0.1.0"

stop_signals.hear_from_the_start()
