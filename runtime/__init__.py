"""Measuring: engines, protocol, devices, and the report."""
