"""The trace, intervention and events contracts (numpy and h5py only)."""
