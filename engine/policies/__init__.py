"""Policies: how to load one, how the embedded one is made."""
