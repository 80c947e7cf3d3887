"""The only rooms that know Optuna (ledger) and MLflow (tracking)."""
