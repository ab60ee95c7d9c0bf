"""The trace, intervention and events contracts (numpy and h5py only)."""


def __getattr__(name: str) -> object:
    """Import `open_traces` when it is used: what imports this package first must be light."""
    if name == "open_traces":
        from traces.collection import open_traces

        return open_traces
    raise AttributeError(f"module 'traces' has no attribute {name!r}")
