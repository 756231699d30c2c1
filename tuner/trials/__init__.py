"""Trials on Ray: what is proposed, how it is scheduled, where it runs."""
