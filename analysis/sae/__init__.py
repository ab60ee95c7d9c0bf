"""Sparse autoencoders over recorded activations: train, judge, describe their features."""
