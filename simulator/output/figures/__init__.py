"""Results as plotly figures: pure functions, for the dashboard and the reports. One subject a file."""
