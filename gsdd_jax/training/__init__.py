"""The compiled loops: fitting, distilling, evaluating, and the experts' epochs.

They know arrays and settings, and nothing of configs, directories or progress bars.
"""
