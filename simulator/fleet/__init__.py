"""Replicas, routing and clients: what runs under virtual time."""
