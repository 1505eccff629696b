"""One operation of the forward pass a file."""
