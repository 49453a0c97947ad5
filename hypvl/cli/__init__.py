"""Command line entry points: parse, compose, call."""
