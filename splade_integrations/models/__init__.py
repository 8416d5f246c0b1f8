"""What a checkpoint is: its files, its layout, its fingerprint. Knows neither torch nor weights."""
