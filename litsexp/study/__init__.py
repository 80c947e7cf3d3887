"""The room that knows Optuna (the ledger of cells) and MLflow (their results)."""
