"""What `engine bench` measures."""
