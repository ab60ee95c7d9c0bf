"""Widgets on the Line API: they repaint the lines that changed and nothing else."""
