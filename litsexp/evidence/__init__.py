"""Numbers and words: measures, paired statistics, verdicts, the report. No torch, Optuna or MLflow."""
