"""Runs: fit, experts, distillation, evaluation, each resumable."""
