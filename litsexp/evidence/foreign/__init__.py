"""Anybody's results: a tidy table, or nnU-Net's folders, judged as a study's own are."""
