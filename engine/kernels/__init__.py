"""One accelerator operation a file: kernel, launcher, torch reference."""
