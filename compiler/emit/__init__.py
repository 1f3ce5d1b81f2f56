"""Emitters translate the canonical graph into files and decide nothing."""
