"""What is asked: cohorts, splits, runs, claims and studies as typed data; their keys; reading study files."""
