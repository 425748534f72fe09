"""Convolutional networks with published weights, as functions of images."""
