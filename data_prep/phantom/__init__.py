"""A procedural chest: attributes drawn through a causal graph, radiographs drawn from them."""

from data_prep.phantom.causes import descendants, draw_attributes, draw_states, draw_trial, observe
from data_prep.phantom.draw import draw_images, truth
from rfxray.data.markers import mask_markers

__all__ = [
    "descendants",
    "draw_attributes",
    "draw_images",
    "draw_states",
    "draw_trial",
    "mask_markers",
    "observe",
    "truth",
]
