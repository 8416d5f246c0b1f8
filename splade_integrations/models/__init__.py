"""Describes checkpoints: where their files are, how they are laid out, and what identifies them.

Nothing here loads weights or imports torch.
"""
