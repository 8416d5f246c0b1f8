"""What a checkpoint is: its layout, its description, its fingerprint. Knows neither torch nor weights."""
