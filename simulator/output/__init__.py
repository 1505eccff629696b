"""What a simulation leaves behind: results, figures, the report."""
