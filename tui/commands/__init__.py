"""One file a command of `vla-trace`; each holds a Click command named `command`."""
