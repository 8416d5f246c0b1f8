"""A text's way to a row of term weights, and back. Knows neither Milvus nor the frameworks."""
