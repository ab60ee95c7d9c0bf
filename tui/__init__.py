"""What a person types and sees: vla-trace and vla-tui."""
