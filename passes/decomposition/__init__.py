"""Layers in pieces: what each form of pieces costs and loses, which layers take which, and the surgery."""
