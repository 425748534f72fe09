"""rfxray: rectified-flow transformers for chest radiographs."""

__version__ = "0.1.0"
