"""Traces as the datasets of other tools: one file a format.

Every exporter takes open traces and a path at which nothing is yet; `target.fresh` gives it one.
Whatever a format needs beside numpy and h5py is imported when it is asked for.
"""
