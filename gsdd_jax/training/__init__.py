"""Compiled loops of fitting, distillation, evaluation and experts.

Independent of configs, directories and progress bars.
"""
