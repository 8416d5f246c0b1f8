"""Runs a masked language model, and makes it fast on this machine.

Everything here works on tensors and token ids, not on texts, prompts or tokenizers.
"""
