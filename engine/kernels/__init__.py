"""One operation a file: its torch reference, and on a GPU its Triton kernel."""
