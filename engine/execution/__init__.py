"""The model on a device: weights, forward pass, sampling."""
