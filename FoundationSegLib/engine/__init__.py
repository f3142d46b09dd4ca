"""What runs where the models are: devices, the embedding cache, inference on slices, the answer to a request."""
