"""A synthetic abdominal CT cohort."""
