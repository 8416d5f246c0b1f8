"""Describes checkpoints: their files, their layout and their fingerprint.

Nothing here loads weights or imports torch.
"""
