"""Pure schedules, atomic checkpoints, the one training loop."""
