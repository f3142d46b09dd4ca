"""Inference beside the models: devices, caches, slices, volumes, classification, and the answers to requests."""
