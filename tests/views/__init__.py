"""The dashboard's pages, inputs and workers."""
