"""Trials on Ray: their proposal, scheduling and execution."""
