"""Numbers: paired statistics, verdicts, the report."""
