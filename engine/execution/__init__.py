<<<<<<< HEAD
"""The model on a device: weights, forward pass, sampling."""
=======
"""The forward pass in torch: model, weights, runner, sampler."""
>>>>>>> infra
