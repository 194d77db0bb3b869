"""Behaviours of AWS, one table per service; see `harness.behaviour`."""
