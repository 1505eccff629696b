"""What a run leaves behind: traces, streaming statistics, figures, reports."""
