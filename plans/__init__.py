"""Bluesky plans of the technique."""
