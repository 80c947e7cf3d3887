"""Masks: scores per case, lesions, pictures."""
