"""Export: training shards for other trainers, in the formats that they read."""
