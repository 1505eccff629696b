"""The dashboard's pages, one a file; no formula."""
