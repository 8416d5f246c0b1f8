"""The vocabulary heads: hidden states to term weights, each equal to `tiled.splade_pool`."""
