"""Data sets of chest radiographs: phantoms, and what becomes of raw sets."""

from rfxray import stop_signals

stop_signals.hear_from_the_start()
