"""A masked language model, fast on this machine. Knows tensors only: no texts, prompts or tokenizers."""
