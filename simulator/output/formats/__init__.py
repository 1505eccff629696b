"""A trace in the formats of other tools: pure functions from a trace to text, one format a file."""
