"""The forward pass in torch: model, weights, runner, sampler."""
