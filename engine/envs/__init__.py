"""Suites: gymnasium environments with LIBERO's observation and action interface."""
