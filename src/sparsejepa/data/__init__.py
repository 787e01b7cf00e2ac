"""Image sets (from the Hub, local Parquet or drawn on the spot) and device-resident batches."""
